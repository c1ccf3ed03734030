"""A training pass that leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["rehearse"]


def rehearse(call: Callable[..., object], network: nn.Module, images: Tensor, **options: bool) -> None:
    """Runs a network forward and backward, and puts everything back that this changed.

    Those are the buffers (statistics of batch norms, EM bases), what modules keep in attributes of theirs, and the
    random numbers. Gradients of the weights are computed and thrown away; `Tensor.grad` stays as it is.

    Args:
        call: the network, or a compiled form of it.
        network: whose state is kept.
        images: what it is called with.
        options: likewise.
    """
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _unchanged(network):
        answers = [each for each in _tensors(call(images, **options)) if each.requires_grad]
        learning = [weight for weight in network.parameters() if weight.requires_grad]
        if answers and learning:
            slopes = [torch.zeros_like(each) for each in answers]
            torch.autograd.grad(answers, learning, slopes, allow_unused=True)


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Puts buffers and tensors in attributes back."""
    modules = list(network.modules())
    # Such attributes are replaced, never written into.
    kept = [
        (module, {name: value for name, value in vars(module).items() if value is None or isinstance(value, Tensor)})
        for module in modules
    ]
    # Buffers are written into and replaced, empty ones are filled, and new ones registered.
    buffers = [(module, dict(module._buffers), set(module._non_persistent_buffers_set)) for module in modules]
    values = [(each, each.clone()) for _, held, _ in buffers for each in held.values() if each is not None]
    try:
        yield
    finally:
        for module, attributes in kept:
            vars(module).update(attributes)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)
        for module, held, passing in buffers:
            _put_back(module, held, passing)


def _put_back(module: nn.Module, held: dict[str, Tensor | None], passing: set[str]) -> None:
    """Gives a module the buffers that it had; scripted modules' cannot be replaced, and are not touched in vain."""
    now = dict(module._buffers)
    if now.keys() != held.keys() or any(now[name] is not each for name, each in held.items()):
        module._buffers.clear()
        module._buffers.update(held)
    if module._non_persistent_buffers_set != passing:
        module._non_persistent_buffers_set.clear()
        module._non_persistent_buffers_set.update(passing)


def _tensors(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, tuple):
        for each in answer:
            yield from _tensors(each)
