"""Whether the layers that shrink LDv1's map are still what they were made as."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from segcontext.layers import ConvNormAct, StridedConv2d
from segcontext.pooled_norm import PooledNorm

__all__ = ["are_as_made"]

#: What may stand between convolution and ReLU: batch norm, and what folding and converting it leave there.
NORMS = (PooledNorm, nn.BatchNorm2d, nn.SyncBatchNorm, nn.Identity)


def are_as_made(shrink: nn.Module, padding: int, x: Tensor) -> bool:
    """Whether depthwise 3×3 convolutions of stride 2, batch norms and ReLUs are all that the layers would compute.

    Anything else (other modules, convolutions of other settings, a `forward` of their own, hooks, those for all modules
    too) has to run as it stands.

    Args:
        shrink: the layers.
        padding: zeros around the map, as the convolutions were made with.
        x: what goes in, (B, C, h, w).

    Example:
        >>> layer = ConvNormAct(4, 4, kernel_size=3, stride=2, groups=4)
        >>> are_as_made(nn.Sequential(layer), 1, torch.zeros(1, 4, 5, 6))
        True
        >>> layer[0].dilation = (2, 2)
        >>> are_as_made(nn.Sequential(layer), 1, torch.zeros(1, 4, 5, 6))
        False
    """
    if type(shrink) is not nn.Sequential or x.ndim != 4 or _are_watched(shrink):
        return False
    for block in shrink:
        parts = tuple(block._modules.values())
        if type(block) is not ConvNormAct or len(parts) != 3:
            return False
        convolution, norm, activation = parts
        if type(norm) not in NORMS or type(activation) is not nn.ReLU or not _is_halving(convolution, padding, x):
            return False
    return True


def _is_halving(module: nn.Module | None, padding: int, x: Tensor) -> bool:
    """Whether a layer is still the convolution that it was made as, and takes these features."""
    if type(module) is not StridedConv2d or module.padding_mode != "zeros" or module.groups != x.shape[1]:
        return False
    weight, bias = module.weight, module.bias
    narrow = (torch.float32, torch.bfloat16) if torch.is_autocast_enabled("cpu") else (x.dtype,)
    return (
        weight.shape == (x.shape[1], 1, 3, 3)
        and (module.stride, module.dilation, module.padding) == ((2, 2), (1, 1), (padding, padding))
        and weight.device == x.device
        and weight.dtype in narrow
        and (bias is None or bias.dtype == weight.dtype)
    )


def _are_watched(shrink: nn.Module) -> bool:
    """Whether somebody wants to see what goes into a module or comes out of it, or has replaced what it does."""
    if modules._has_any_global_hook():  # type: ignore[no-untyped-call]
        return True
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    own = ("forward", "_conv_forward")
    return any(
        any(getattr(each, kind) for kind in kinds) or any(name in vars(each) for name in own)
        for each in shrink.modules()
    )
