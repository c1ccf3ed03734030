"""Depthwise 3×3 convolutions of stride 2, by compiled loops on the CPU where they can run, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.native import pages, split
from segcontext.ops.compiled_loops import has_batches, is_transformed, obstacle_to_joined_steps
from segcontext.ops.followed_gradients import followed_gradients
from segcontext.ops.gated_by_mask_native import by_pixel, places_of

__all__ = ["halved", "halved_beside", "is_faster", "obstacle_to_halved"]

#: From so many values on the loops make up for what it takes to call them, in either layout.
PLANES, PIXELS = 2**22, 2**23


def obstacle_to_halved(features: Tensor) -> str | None:
    """Why the compiled loops cannot run on a map now, in a few words; `None` where they can.

    Args:
        features: (B, C, h, w).
    """
    obstacle = obstacle_to_joined_steps(features)
    if obstacle is not None:
        return obstacle
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") not in (torch.float32, torch.bfloat16):
        return "compiled loops take what autocast rounds to bfloat16 only"
    return None


def is_faster(features: Tensor) -> bool:
    """Whether the compiled loops are faster than PyTorch's convolution: for gradients in bfloat16, and of large maps.

    Args:
        features: (B, C, h, w).
    """
    narrow = torch.is_autocast_enabled("cpu") or features.dtype == torch.bfloat16
    return (narrow and torch.is_grad_enabled()) or features.numel() >= (PIXELS if by_pixel(features) else PLANES)


def halved(features: Tensor, kernel: Tensor, shift: Tensor | None, *, padding: int = 1) -> Tensor:
    """A depthwise 3×3 convolution of stride 2, as autocast would round it.

    Args:
        features: (B, C, h, w), where there is no `obstacle_to_halved`.
        kernel: (C, 1, 3, 3).
        shift: (C,); `None` is zeros.
        padding: zeros around the map, 0 or 1.

    Returns:
        (B, C, ⌈h/2⌉, ⌈w/2⌉), without padding ⌊(h - 1)/2⌋ and ⌊(w - 1)/2⌋, in the layout of the features.

    Example:
        >>> halved(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3), torch.zeros(1)).tolist()
        [[[[4.0, 6.0], [6.0, 9.0]]]]
    """
    out: Tensor = _halve(*_rounded(features, kernel, shift), padding)
    return out


def halved_beside(features: Tensor, kernel: Tensor, shift: Tensor | None, *, padding: int = 1) -> tuple[Tensor, Tensor]:
    """The same, and the features for one more reader, so that the gradients of both are summed in one pass.

    Args:
        features: as for `halved`.
        kernel: as there.
        shift: as there.
        padding: as there.

    Returns:
        The result, and the features. Who reads these has to be an operation that makes its gradient anew, as
        `gated_by_mask` does (a sum passes on the one that it got): it is added to in place.
    """
    given, *weights = _rounded(features, kernel, shift)
    if given is features and torch.is_grad_enabled() and features.requires_grad:
        out, features = _Beside.apply(features, *weights, padding)
    else:
        out = _halve(given, *weights, padding)
    return out, features


@torch.library.custom_op("segcontext::halved", mutates_args=(), device_types="cpu")
def _halve(features: Tensor, kernel: Tensor, shift: Tensor, padding: int) -> Tensor:
    out = pages.empty_like(_empty(features, padding))
    constant = (*_weights(features, kernel, shift), _extent(features, out, padding), (0,) * features.element_size())
    pixels = by_pixel(features)
    given, made = places_of(features, pixels), places_of(out, pixels)
    if pixels:
        from segcontext.native.halving_pixels import halve_pixels as loop

        rows = out.shape[0] * out.shape[2]
    else:
        from segcontext.native.halving import halve_planes as loop

        rows = out.shape[0] * out.shape[1]
    split(rows, lambda first, last: loop(given, made, *constant, (first, last)))
    return out


@_halve.register_fake
def _(features: Tensor, kernel: Tensor, shift: Tensor, padding: int) -> Tensor:
    return _empty(features, padding)


@torch.library.custom_op("segcontext::halved_backward", mutates_args=(), device_types="cpu")
def _differentiate(gradient: Tensor, features: Tensor, kernel: Tensor, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of features, kernel and shift."""
    out = pages.empty_like(features)
    return (out, *_turn_back(gradient, features, kernel, padding, out, adds=False))


@_differentiate.register_fake
def _(gradient: Tensor, features: Tensor, kernel: Tensor, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    of_kernel = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    return torch.empty_like(features), of_kernel, kernel.new_empty(len(kernel))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.padding = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():

        def reference(features: Tensor, kernel: Tensor, shift: Tensor) -> Tensor:
            return F.conv2d(features, kernel, shift, stride=2, padding=ctx.padding, groups=len(kernel))

        return (*followed_gradients(reference, tensors, wanted, gradient), None)
    results = _differentiate(gradient, *tensors[:2], ctx.padding)
    return (*(each if want else None for each, want in zip(results, wanted, strict=True)), None)


_halve.register_autograd(_backward, setup_context=_keep)


class _Beside(torch.autograd.Function):
    """The convolution, and its features handed on: an operation of PyTorch may not return what it was given."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, shift: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.padding = padding
        ctx.save_for_backward(features, kernel, shift)
        return _halve(features, kernel, shift, padding), features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, beside = gradients
        if gradient is None:
            return beside, None, None, None
        features, kernel, _ = ctx.saved_tensors
        # Raw addresses are of plain tensors; an operation of PyTorch takes many gradients at a time.
        followed = torch.is_grad_enabled() or is_transformed()
        if beside is None or followed or has_batches(gradient, beside):
            found, *others = _backward(ctx, gradient)
            return (found if beside is None or found is None else found + beside, *others)
        # What came back is nobody else's, or lies otherwise, as what was spread from a sum does.
        if beside.dtype != features.dtype or not _lies_like(beside, features):
            beside = pages.empty_like(features).copy_(beside)
        return (beside, *_turn_back(gradient, features, kernel, ctx.padding, beside, adds=True), None)


def _lies_like(x: Tensor, other: Tensor) -> bool:
    """Whether two maps of one size have the same strides, those that count."""
    return all(size == 1 or a == b for size, a, b in zip(x.shape, x.stride(), other.stride(), strict=True))


def _turn_back(
    gradient: Tensor, features: Tensor, kernel: Tensor, padding: int, out: Tensor, *, adds: bool
) -> tuple[Tensor, Tensor]:
    """Writes the gradient of the features, or adds it to what is there; and those of kernel and shift."""
    images, channels, height, _ = gradient.shape
    pixels = by_pixel(features)
    weights, _ = _weights(features, kernel, kernel[:, 0, 0, 0])
    given, told, made = (places_of(each, pixels) for each in (features, gradient, out))
    extent, width = _extent(features, gradient, padding), (0,) * features.element_size()
    if pixels:
        from segcontext.native.halving_pixels import turn_back_pixels as loop

        sums = torch.zeros(images * (height + 1), 10, channels, device="cpu")
    else:
        from segcontext.native.halving import turn_back_planes as loop

        sums = torch.zeros(images * channels, 10, dtype=torch.float64, device="cpu")
    constant = (given, told, made, adds, weights, sums.numpy(), extent, width)
    split(len(sums), lambda first, last: loop(*constant, (first, last)))
    of_all = sums.sum(0, dtype=torch.float64).T if pixels else sums.view(images, channels, 10).sum(0)
    of_kernel = of_all[:, :9].reshape(kernel.shape).to(kernel.dtype)
    return of_kernel, of_all[:, 9].to(kernel.dtype, memory_format=torch.contiguous_format)


def _rounded(features: Tensor, kernel: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What a convolution of PyTorch would read."""
    shift = kernel.new_zeros(len(kernel)) if shift is None else shift
    if not torch.is_autocast_enabled("cpu"):
        return features, kernel, shift
    dtype = torch.get_autocast_dtype("cpu")
    return features.to(dtype), kernel.to(dtype), shift.to(dtype)


def _empty(features: Tensor, padding: int) -> Tensor:
    """What the result is like."""
    images, channels, rows, columns = features.shape
    size = ((rows - 3 + 2 * padding) // 2 + 1, (columns - 3 + 2 * padding) // 2 + 1)
    layout = torch.channels_last if by_pixel(features) else torch.contiguous_format
    return torch.empty((images, channels, *size), dtype=features.dtype, device=features.device, memory_format=layout)


def _weights(features: Tensor, kernel: Tensor, shift: Tensor) -> tuple[Any, Any]:
    of_channels = kernel.detach().float().flatten(1)
    of_channels = of_channels.T if by_pixel(features) else of_channels
    return of_channels.contiguous().numpy(), shift.detach().float().contiguous().numpy()


def _extent(features: Tensor, small: Tensor, padding: int) -> tuple[int, ...]:
    return (*features.shape[2:], *small.shape[2:], padding)
