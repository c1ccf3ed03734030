"""LDv1 as a whole with fixed batch norms on the CPU: convolutions, upsampling and gate in one pass over the planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.native import pages, split
from segcontext.ops.compiled_loops import obstacle_to_joined_steps
from segcontext.ops.followed_gradients import followed_gradients
from segcontext.ops.gated_by_mask_native import axis, by_pixel, places_of
from segcontext.ops.gated_by_mask_reference import gated_by_mask_reference

__all__ = ["halved_gate", "obstacle_to_halved_gate"]


def obstacle_to_halved_gate(features: Tensor) -> str | None:
    """Why the features cannot be gated in one pass now, in a few words; `None` where they can.

    Args:
        features: (B, C, h, w).
    """
    obstacle = obstacle_to_joined_steps(features)
    if obstacle is not None:
        return obstacle
    if torch.is_autocast_enabled("cpu"):
        return "autocast rounds between the single steps"
    return "it takes planes" if by_pixel(features) else None


def halved_gate(
    features: Tensor, kernels: Tensor, shifts: Tensor, *, times: float = 1.0, align_corners: bool = True
) -> Tensor:
    r"""Features gated by the sigmoid of themselves, halved some times by convolutions.

    GALD eqs. 1-2 with W_d = depthwise 3×3 convolutions of stride 2 and padding 1, each followed by a ReLU:
    :math:`\sigma(\mathrm{upsample}(W_d x)) \odot x + t\,x`. Only planes of one channel lie between, in both
    directions; gradients of gradients are those of PyTorch's operators.

    Args:
        features: x, (B, C, h, w), where there is no `obstacle_to_halved_gate`.
        kernels: (layers, C, 3, 3), with batch norm folded in.
        shifts: (layers, C), likewise.
        times: t, how often x is added.
        align_corners: how the mask is upsampled.

    Returns:
        (B, C, h, w), in the dtype and the layout of the features.

    Example:
        >>> with torch.no_grad():
        ...     halved_gate(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 3, 3), torch.zeros(1, 2)).unique()
        tensor([1.5000])
    """
    out: Tensor = _distribute(features, kernels, shifts, times, align_corners)
    return out


@torch.library.custom_op("segcontext::halved_gate", mutates_args=(), device_types="cpu")
def _distribute(features: Tensor, kernels: Tensor, shifts: Tensor, times: float, align_corners: bool) -> Tensor:
    from segcontext.native.halved_gate import distribute

    out = pages.empty_like(features)
    given, made = places_of(features, False), places_of(out, False)
    constant = (*_weights(kernels, shifts), *_geometry(features, len(kernels), times, align_corners))
    split(_planes(features), lambda first, last: distribute(given, made, *constant, (first, last)))
    return out


@_distribute.register_fake
def _(features: Tensor, kernels: Tensor, shifts: Tensor, times: float, align_corners: bool) -> Tensor:
    return torch.empty_like(features)


@torch.library.custom_op("segcontext::halved_gate_backward", mutates_args=(), device_types="cpu")
def _differentiate(
    gradient: Tensor, features: Tensor, kernels: Tensor, shifts: Tensor, times: float, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of features, kernels and shifts."""
    from segcontext.native.halved_gate import turn_back_distributed

    out = pages.empty_like(features)
    layers, channels = shifts.shape
    sums = torch.zeros(_planes(features), layers, 10, dtype=torch.float64, device="cpu")
    given, told, made = (places_of(each, False) for each in (features, gradient, out))
    constant = (*_weights(kernels, shifts), sums.numpy(), *_geometry(features, layers, times, align_corners))
    split(len(sums), lambda first, last: turn_back_distributed(given, told, made, *constant, (first, last)))
    of_all = sums.view(-1, channels, layers, 10).sum(0).transpose(0, 1)
    of_kernels = of_all[..., :9].reshape(kernels.shape).to(kernels.dtype)
    return out, of_kernels, of_all[..., 9].to(shifts.dtype, memory_format=torch.contiguous_format)


@_differentiate.register_fake
def _(
    gradient: Tensor, features: Tensor, kernels: Tensor, shifts: Tensor, times: float, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    weights = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in (kernels, shifts)]
    return torch.empty_like(features), weights[0], weights[1]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.times, ctx.align_corners = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():

        def reference(features: Tensor, kernels: Tensor, shifts: Tensor) -> Tensor:
            return _reference(features, kernels, shifts, ctx.times, ctx.align_corners)

        return (*followed_gradients(reference, tensors, wanted, gradient), None, None)
    results = _differentiate(gradient, *tensors, ctx.times, ctx.align_corners)
    return (*(each if want else None for each, want in zip(results, wanted, strict=True)), None, None)


_distribute.register_autograd(_backward, setup_context=_keep)


def _reference(features: Tensor, kernels: Tensor, shifts: Tensor, times: float, align_corners: bool) -> Tensor:
    small = features
    for kernel, shift in zip(kernels, shifts, strict=True):
        small = F.conv2d(small, kernel[:, None], shift, stride=2, padding=1, groups=len(kernel)).relu()
    return gated_by_mask_reference(features, small, times, align_corners)


def _planes(features: Tensor) -> int:
    return features.shape[0] * features.shape[1]


def _weights(kernels: Tensor, shifts: Tensor) -> tuple[Any, Any]:
    of_channels = kernels.detach().float().flatten(2).transpose(0, 1).contiguous()
    return of_channels.numpy(), shifts.detach().float().T.contiguous().numpy()


def _geometry(features: Tensor, layers: int, times: float, align_corners: bool) -> tuple[Any, Any, Any, Any, Any]:
    height, width = features.shape[2:]
    sizes = [(height, width)]
    for _ in range(layers):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    down, across = (axis(sizes[-1][side], sizes[0][side], align_corners) for side in (0, 1))
    return np.array(sizes), down, across, np.float32(times), (0,) * features.element_size()
