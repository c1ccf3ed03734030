"""How long a network takes, as a whole and part by part."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segcontext.costs.scopes import parts_of
from segcontext.errors import RecipeError
from segcontext.types import Output

__all__ = ["latency"]


def latency(
    model: nn.Module, images: Tensor, *, rounds: int = 10, warmup: int = 3, parts: bool = True
) -> tuple[float, Mapping[str, float]]:
    """Medians of the time that a network takes, in evaluation mode, without gradients.

    Args:
        model: the network, on the device that is timed; its mode is put back afterwards.
        images: what it is given, on the same device.
        rounds: how often the whole is timed; the parts are timed in as many rounds of their own.
        warmup: rounds before that are not timed.
        parts: whether these are timed at all.

    Returns:
        Seconds of the whole, with the upsampling of the logits, and seconds of each part.

    Raises:
        RecipeError: for no rounds, or a network without numbers (on the meta device).

    Note:
        Parts are timed apart from the whole because on a GPU each of them has to be waited for, which the whole should
        not be; so they may add up to more than it.

    Example:
        >>> whole, parts = latency(nn.Sequential(nn.ReLU()), torch.ones(2, 3), rounds=1)
        >>> whole > 0, list(parts)
        (True, ['0'])
    """
    if rounds < 1 or warmup < 0:
        raise RecipeError(f"At least one round is needed, and no fewer than 0 to warm up, not {rounds} and {warmup}.")
    if images.is_meta or any(each.is_meta for each in model.parameters()):
        raise RecipeError("A network on the meta device has no numbers to compute with; build it on a real one.")
    modes = {module: module.training for module in model.modules()}
    timed = parts_of(model) if parts else {}
    stopwatches = {name: _Stopwatch(part, images.device) for name, part in timed.items()}
    model.eval()
    try:
        with torch.inference_mode():
            for _ in range(warmup):
                _run(model, images)
            whole = []
            for _ in range(rounds):
                started = _now(images.device)
                _run(model, images)
                whole.append(_now(images.device) - started)
            for stopwatch in stopwatches.values():
                stopwatch.attach()
            for _ in range(rounds if parts else 0):
                _run(model, images)
    finally:
        for stopwatch in stopwatches.values():
            stopwatch.detach()
        for module, training in modes.items():
            module.training = training
    # A part that runs several times in a round, or not at all, is timed as a whole.
    found = {name: _per_round(stopwatch.seconds, rounds) for name, stopwatch in stopwatches.items()}
    return statistics.median(whole), {name: seconds for name, seconds in found.items() if seconds > 0}


def _run(model: nn.Module, images: Tensor) -> None:
    output = model(images)
    if isinstance(output, Output):
        _ = output.logits


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _per_round(seconds: list[float], rounds: int) -> float:
    runs = len(seconds) // rounds
    if runs == 0:
        return 0.0
    return statistics.median(sum(seconds[start : start + runs]) for start in range(0, runs * rounds, runs))


class _Stopwatch:
    """Times every run of a module while it is attached."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._started = 0.0
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.seconds: list[float] = []

    def attach(self) -> None:
        self._handles = [
            self._module.register_forward_pre_hook(self._begin),
            self._module.register_forward_hook(self._end),
        ]

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, module: nn.Module, inputs: object) -> None:
        self._started = _now(self._device)

    def _end(self, module: nn.Module, inputs: object, outputs: object) -> None:
        self.seconds.append(_now(self._device) - self._started)
