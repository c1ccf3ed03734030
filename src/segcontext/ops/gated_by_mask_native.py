"""Gating by a mask by compiled loops on the CPU, with gradients, as one operation of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcontext.native import pages, split
from segcontext.ops.compiled_loops import obstacle_to_loops
from segcontext.ops.followed_gradients import followed_gradients
from segcontext.ops.gated_by_mask_reference import gated_by_mask_reference

__all__ = ["axis", "by_pixel", "gate", "obstacle", "places_of"]


def obstacle(features: Tensor, logits: Tensor) -> str | None:
    """Why compiled loops cannot run on these maps now, in a few words; `None` where they can.

    Args:
        features: (B, C, h, w).
        logits: (B, C, h', w').
    """
    if features.dtype == torch.bfloat16 and logits.dtype == torch.float32:
        return "its result is wider than the features"
    return obstacle_to_loops(features, logits)


@torch.library.custom_op("segcontext::gated_by_mask", mutates_args=(), device_types="cpu")
def _gate(features: Tensor, logits: Tensor, times: float, align_corners: bool) -> Tensor:
    from segcontext.native import gate as kernels

    out = pages.empty_like(features)
    down, across = _axes(features, logits, align_corners)
    if by_pixel(features):
        small = logits.permute(0, 2, 3, 1).float().contiguous().numpy()
        kernel, rows = kernels.gate_pixels, features.shape[0] * features.shape[2]
    else:
        small = logits.float().flatten(0, 1).contiguous().numpy()
        kernel, rows = kernels.gate_planes, features.shape[0] * features.shape[1]
    factor, width = np.float32(times), (0,) * features.element_size()
    given, made = (places_of(each, by_pixel(features)) for each in (features, out))
    split(rows, lambda first, last: kernel(given, made, small, down, across, factor, width, (first, last)))
    return out


def gate(features: Tensor, logits: Tensor, times: float, align_corners: bool) -> Tensor:
    """See `segcontext.ops.gated_by_mask`.

    Args:
        features: (B, C, h, w), where there is no `obstacle`.
        logits: (B, C, h', w').
        times: how often the features are added.
        align_corners: how the logits are upsampled.

    Returns:
        (B, C, h, w), in the dtype and the layout of the features.
    """
    out: Tensor = _gate(features, logits, times, align_corners)
    return out


@_gate.register_fake
def _(features: Tensor, logits: Tensor, times: float, align_corners: bool) -> Tensor:
    return torch.empty_like(features)


@torch.library.custom_op("segcontext::gated_by_mask_backward", mutates_args=(), device_types="cpu")
def _differentiate(
    gradient: Tensor, features: Tensor, logits: Tensor, times: float, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of the features and of the logits."""
    from segcontext.native import gate as kernels

    out = pages.empty_like(features)
    down, across = _axes(features, logits, align_corners)
    factor, width = np.float32(times), (0,) * features.element_size()
    given, told, made = (places_of(each, by_pixel(features)) for each in (features, gradient, out))
    if by_pixel(features):
        small = logits.permute(0, 2, 3, 1).float().contiguous()
        halves = torch.zeros(2, *small.shape, device="cpu")
        constant = (small.numpy(), halves.numpy(), down, across, factor, width)
        split(
            small.shape[0] * small.shape[1],
            lambda first, last: kernels.turn_back_pixels(given, told, made, *constant, (first, last)),
        )
        found = halves[0]
        found[:, 1:] += halves[1, :, :-1]
        # What the rows below the last small row give to the next one is the last one's as well.
        found[:, -1] += halves[1, :, -1]
        return out, found.permute(0, 3, 1, 2).to(logits.dtype, memory_format=torch.contiguous_format)
    planes = logits.float().flatten(0, 1).contiguous()
    of_planes = torch.empty_like(planes)
    constant = (planes.numpy(), of_planes.numpy(), down, across, factor, width)
    split(len(planes), lambda first, last: kernels.turn_back_planes(given, told, made, *constant, (first, last)))
    return out, of_planes.view(logits.shape).to(logits.dtype)


@_differentiate.register_fake
def _(gradient: Tensor, features: Tensor, logits: Tensor, times: float, align_corners: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(features), torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, logits, *ctx.options = inputs
    ctx.save_for_backward(features, logits)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    features, logits = ctx.saved_tensors
    if torch.is_grad_enabled():

        def reference(features: Tensor, logits: Tensor) -> Tensor:
            return gated_by_mask_reference(features, logits, *ctx.options)

        return (*followed_gradients(reference, (features, logits), ctx.needs_input_grad[:2], gradient), None, None)
    results = _differentiate(gradient, features, logits, *ctx.options)
    return (*(each if want else None for each, want in zip(results, ctx.needs_input_grad, strict=False)), None, None)


_gate.register_autograd(_backward, setup_context=_keep)


def by_pixel(x: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side."""
    return x.stride(1) == 1 and x.shape[1] > 1


def _axes(features: Tensor, logits: Tensor, align_corners: bool) -> tuple[Any, Any]:
    return tuple(axis(logits.shape[side], features.shape[side], align_corners) for side in (2, 3))  # type: ignore[return-value]


def axis(small: int, large: int, align_corners: bool) -> tuple[Any, Any]:
    """For each of the large positions the small one before it, and the share of the next one."""
    positions = torch.arange(large, dtype=torch.float64, device="cpu")
    if align_corners:
        found = positions * ((small - 1) / (large - 1) if large > 1 else 0.0)
    else:
        found = ((positions + 0.5) * (small / large) - 0.5).clamp_min(0)
    before = found.floor().clamp_max(small - 1)
    return before.long().numpy(), (found - before).float().numpy()


def places_of(x: Tensor, pixels: bool) -> tuple[Any, ...]:
    """The addresses of the images or planes, and the steps in bytes to the next row, column and, in images, channel.

    Raises:
        TypeError: where the loops would misread the values: they tell dtypes apart by their size.
    """
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(f"compiled loops take float32 or bfloat16, not {x.dtype}")
    images, channels, rows, columns = (x.element_size() * step for step in x.stride())
    begin = x.data_ptr() + images * torch.arange(x.shape[0], device="cpu")
    if pixels:
        return begin.numpy(), rows, columns, channels
    planes = begin[:, None] + channels * torch.arange(x.shape[1], device="cpu")
    return planes.flatten().numpy(), rows, columns
