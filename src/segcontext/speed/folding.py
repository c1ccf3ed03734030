"""Batch norms with fixed statistics, folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

__all__ = ["fold_batch_norms"]


def fold_batch_norms(network: nn.Module, images: Tensor) -> int:
    """Folds every batch norm whose input is a convolution's output, and nothing else's, into that convolution.

    Such a norm multiplies each channel by γ/√(σ² + ε) and adds β − μγ/√(σ² + ε), both of them constants in evaluation;
    so the convolution's weights are multiplied (in float64) and its bias takes the rest. What follows what is seen by
    running the network once, so that it does not hang on how the network is written.

    Args:
        network: is changed; in evaluation mode. Norms that were folded become what was left of them: nothing, or the
            activation that a timm norm holds.
        images: (B, 3, H, W), which the network is run on.

    Returns:
        How many norms were folded.

    Note:
        A convolution or norm that runs twice, a convolution whose weights are computed on the way (weight
        standardisation), and one whose output is used elsewhere too, stay as they are.
    """
    convolutions = {
        id(module.weight): module
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and isinstance(module.weight, nn.Parameter)
    }
    norms = {
        id(module.running_mean): module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    }
    watch = _Watch()
    with watch, torch.no_grad():
        network(images)
    left: dict[nn.Module, nn.Module] = {}
    for weight, mean in watch.pairs():
        convolution, norm = convolutions.get(weight), norms.get(mean)
        rest = None if norm is None else _rest(norm)
        if convolution is not None and norm is not None and rest is not None:
            _fold(convolution, norm)
            left[norm] = rest
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in left:
                setattr(parent, name, left[child])
    return len(left)


def _rest(norm: nn.BatchNorm2d) -> nn.Module | None:
    """What remains to be done where a norm was; `None` for norms of a kind that might do more than is known here."""
    if isinstance(norm, BatchNormAct2d):
        return nn.Sequential(norm.drop, norm.act)
    # Subclasses of our own and of PyTorch's change training alone.
    known = type(norm).__module__.split(".")[0] in ("torch", "segcontext")
    return nn.Identity() if known else None


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    shift = -norm.running_mean.double() * factor
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * factor
    kind = convolution.weight.dtype
    weight = (convolution.weight.double() * factor.view(-1, 1, 1, 1)).to(kind)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(kind), requires_grad=False)


class _Watch(TorchFunctionMode):
    """Sees which convolution's output goes to which batch norm, and whether it goes anywhere else."""

    def __init__(self) -> None:
        super().__init__()
        # By the identity of the output: what made it, and who used it. The tensors are kept, or identities would recur.
        self._made: dict[int, int] = {}
        self._used: dict[int, list[int | None]] = {}
        self._kept: list[Any] = []
        self._runs: dict[int, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Runs the function and notes what went in and came out."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(isinstance(leaf, Tensor) for leaf in _pytree.tree_leaves(out)):
            return out
        self._kept.append((given, out))
        norm = func is F.batch_norm and len(given) > 1
        for position, tensor in enumerate(given):
            if id(tensor) in self._made:
                user = id(given[1]) if norm and position == 0 else None
                self._used.setdefault(id(tensor), []).append(user)
        if norm:
            self._count(id(given[1]))
        if func is F.conv2d and len(given) > 1:
            self._made[id(out)] = id(given[1])
            self._count(id(given[1]))
        return out

    def _count(self, parameter: int) -> None:
        self._runs[parameter] = self._runs.get(parameter, 0) + 1

    def pairs(self) -> list[tuple[int, int]]:
        """Identities of convolutions' weights and norms' running means that belong together."""
        found = []
        for output, weight in self._made.items():
            users = self._used.get(output, [])
            norm = users[0] if len(users) == 1 else None
            if norm is not None and self._runs[weight] == self._runs[norm] == 1:
                found.append((weight, norm))
        return found
