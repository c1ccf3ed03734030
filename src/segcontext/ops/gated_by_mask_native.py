"""Gating by a mask by compiled loops on the CPU, with gradients, as one operation of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segcontext.native import pages, split, unavailable
from segcontext.ops.gated_by_mask_reference import gated_by_mask_reference

__all__ = ["gate", "obstacle"]

DTYPES = (torch.float32, torch.bfloat16)


def obstacle(features: Tensor, logits: Tensor) -> str | None:
    """Why compiled loops cannot run on these maps now, in a few words; `None` where they can.

    Args:
        features: (B, C, h, w).
        logits: (B, C, h', w').
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "an exported program has to run without segcontext"
    if features.device.type != "cpu" or logits.device.type != "cpu":
        return "compiled loops run on the CPU"
    if features.dtype not in DTYPES or logits.dtype not in (torch.bfloat16, features.dtype):
        return "compiled loops take float32 or bfloat16"
    if features.numel() == 0 or logits.numel() == 0:
        return "a map is empty"
    return _no_loops()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _no_loops() -> str | None:
    return unavailable()


@torch.library.custom_op("segcontext::gated_by_mask", mutates_args=(), device_types="cpu")
def _gate(features: Tensor, logits: Tensor, times: float, align_corners: bool) -> Tensor:
    from segcontext.native import gate as kernels

    out = pages.empty_like(features)
    down, across = _axes(features, logits, align_corners)
    if _by_pixel(features):
        small = logits.permute(0, 2, 3, 1).float().contiguous().numpy()
        kernel, rows, places = kernels.gate_pixels, features.shape[0] * features.shape[2], _images
    else:
        small = logits.float().flatten(0, 1).contiguous().numpy()
        kernel, rows, places = kernels.gate_planes, features.shape[0] * features.shape[1], _planes
    factor, width = _single(times), (0,) * features.element_size()
    given, made = places(features), places(out)
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
    factor, width = _single(times), (0,) * features.element_size()
    if _by_pixel(features):
        small = logits.permute(0, 2, 3, 1).float().contiguous()
        halves = torch.zeros(2, *small.shape)
        given, told, made = (_images(each) for each in (features, gradient, out))
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
    given, told, made = (_planes(each) for each in (features, gradient, out))
    constant = (planes.numpy(), of_planes.numpy(), down, across, factor, width)
    split(
        len(planes), lambda first, last: kernels.turn_back_planes(given, told, made, *constant, (first, last))
    )
    return out, of_planes.view(logits.shape).to(logits.dtype)


@_differentiate.register_fake
def _(
    gradient: Tensor, features: Tensor, logits: Tensor, times: float, align_corners: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(features), torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, logits, *ctx.options = inputs
    ctx.save_for_backward(features, logits)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    features, logits = ctx.saved_tensors
    if torch.is_grad_enabled():
        # Somebody will differentiate the gradients: only the reference's know how they came about.
        out = gated_by_mask_reference(features, logits, *ctx.options)
        asked = [each for each, want in zip((features, logits), ctx.needs_input_grad, strict=False) if want]
        found = iter(torch.autograd.grad(out, asked, gradient, create_graph=True))
        return (*(next(found) if want else None for want in ctx.needs_input_grad[:2]), None, None)
    results = _differentiate(gradient, features, logits, *ctx.options)
    return (*(each if want else None for each, want in zip(results, ctx.needs_input_grad, strict=False)), None, None)


_gate.register_autograd(_backward, setup_context=_keep)


def _by_pixel(x: Tensor) -> bool:
    return x.stride(1) == 1 and x.shape[1] > 1


def _axes(features: Tensor, logits: Tensor, align_corners: bool) -> tuple[Any, Any]:
    return tuple(_axis(logits.shape[axis], features.shape[axis], align_corners) for axis in (2, 3))  # type: ignore[return-value]


def _axis(small: int, large: int, align_corners: bool) -> tuple[Any, Any]:
    """For each of the large positions the small one before it, and the share of the next one."""
    positions = torch.arange(large, dtype=torch.float64)
    if align_corners:
        found = positions * ((small - 1) / (large - 1) if large > 1 else 0.0)
    else:
        found = ((positions + 0.5) * (small / large) - 0.5).clamp_min(0)
    before = found.floor().clamp_max(small - 1)
    return before.long().numpy(), (found - before).float().numpy()


def _planes(x: Tensor) -> tuple[Any, int, int]:
    """The address of each plane, and the steps in bytes to the next row and column."""
    images, channels, rows, columns = (x.element_size() * step for step in x.stride())
    begin = x.data_ptr() + images * torch.arange(x.shape[0])[:, None] + channels * torch.arange(x.shape[1])
    return begin.flatten().numpy(), rows, columns


def _images(x: Tensor) -> tuple[Any, int, int, int]:
    """The address of each image, and the steps in bytes to the next row, column and channel."""
    images, channels, rows, columns = (x.element_size() * step for step in x.stride())
    return (x.data_ptr() + images * torch.arange(x.shape[0])).numpy(), rows, columns, channels


def _single(number: float) -> Any:
    return torch.tensor(number, dtype=torch.float32).numpy()[()]
