"""Attention over dilated windows by compiled loops on the CPU, with gradients, as one operation of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcontext.native import pages
from segcontext.ops.compiled_loops import obstacle_to_loops
from segcontext.ops.followed_gradients import followed_gradients
from segcontext.ops.local_attention_reference import local_attention_reference

__all__ = ["attend", "obstacle"]


def obstacle(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """Why compiled loops cannot run on these maps now, in a few words; `None` where they can.

    Args:
        query: (B, D, h, w).
        key: (B, D, h, w).
        value: (B, C, h, w).
    """
    if key.dtype != query.dtype or value.dtype != query.dtype:
        return "compiled loops take maps of one dtype"
    return obstacle_to_loops(query, key, value)


def attend(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float) -> Tensor:
    """See `segcontext.ops.local_attention`.

    Args:
        query: (B, D, h, w), where there is no `obstacle`.
        key: (B, D, h, w).
        value: (B, C, h, w).
        kernel_size: k, odd.
        dilation: r.
        scale: multiplies the logits.

    Returns:
        (B, C, h, w), in the dtype and the layout of `value`.
    """
    out: Tensor = _attend(query, key, value, kernel_size, dilation, scale)[0]
    return out


@torch.library.custom_op("segcontext::local_attention", mutates_args=(), device_types="cpu")
def _attend(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The result, and for each pixel the logarithm of the sum of its exponentials."""
    from segcontext.native import planar_attention
    from segcontext.native.local_attention import attend as kernel
    from segcontext.native.planes import Plane, each_part, filled
    from segcontext.native.windows import workspace

    images, depth, height, width = query.shape
    out, logs = pages.empty_like(value), value.new_empty((images, height, width), dtype=torch.float32)
    if planar_attention.is_planar(query, key, value, out):
        planar_attention.attend(query, key, value, out, logs, kernel_size, dilation, scale)
        return out, logs
    around = kernel_size // 2
    planes = (Plane(query), Plane(key, around=around), Plane(value, around=around), Plane(out, written=True))
    channels = (filled(depth), filled(value.shape[1]))
    flat, window, factor = logs.view(-1).numpy(), (0,) * kernel_size, np.float32(scale)

    def run(part: Any, maps: Any, space: Any) -> None:
        places, extent = _described(part, height, width, dilation, channels)
        kernel(maps, flat, places, extent, window, factor, space)

    each_part(planes, dilation, lambda: workspace(kernel_size, max(channels)), run)
    return out, logs


@_attend.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float
) -> tuple[Tensor, Tensor]:
    images, _, height, width = query.shape
    return torch.empty_like(value), value.new_empty((images, height, width), dtype=torch.float32)


@torch.library.custom_op("segcontext::local_attention_backward", mutates_args=(), device_types="cpu")
def _differentiate(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logs: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value; those that are not wanted have no elements."""
    from segcontext.native import local_attention_gradients as kernels
    from segcontext.native import planar_attention
    from segcontext.native.planes import Plane, each_part, filled
    from segcontext.native.windows import workspace

    images, depth, height, width = query.shape
    channels = (filled(depth), filled(value.shape[1]))
    around, window = kernel_size // 2, (0,) * kernel_size
    outs = tuple(
        pages.empty_like(each) if want else each.new_empty(0)
        for each, want in zip((query, key, value), wanted, strict=True)
    )
    if planar_attention.is_planar(query, key, value, gradient, *(each for each in outs if each.numel())):
        asked = [each if want else None for each, want in zip(outs, wanted, strict=True)]
        planar_attention.differentiate((query, key, value), gradient, asked, logs, kernel_size, dilation, scale)
        return outs[0], outs[1], outs[2]
    shares = torch.empty(images * height * width, 2, kernel_size**2).numpy()
    flat, factor = logs.view(-1).numpy(), np.float32(scale)

    def plane_of(number: int) -> Plane:
        return Plane(outs[number], written=True) if wanted[number] else Plane(query)

    def weigh(part: Any, maps: Any, space: Any) -> None:
        places, extent = _described(part, height, width, dilation, channels)
        asked = (wanted[0] or wanted[1], wanted[0])
        kernels.slopes(maps, flat, shares, places, extent, window, factor, asked, space)

    def collect(part: Any, maps: Any, space: Any) -> None:
        places, extent = _described(part, height, width, dilation, channels)
        kernels.gather(maps, shares, places, extent, window, (wanted[1], wanted[2]), space)

    def space() -> Any:
        return workspace(kernel_size, max(channels))

    near = (Plane(key, around=around), Plane(value, around=around))
    each_part((Plane(query), *near, Plane(gradient), plane_of(0)), dilation, space, weigh)
    if wanted[1] or wanted[2]:
        seen = (Plane(query, around=around), Plane(gradient, around=around))
        each_part((*seen, plane_of(1), plane_of(2)), dilation, space, collect)
    return outs[0], outs[1], outs[2]


@_differentiate.register_fake
def _(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logs: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = zip((query, key, value), wanted, strict=True)
    outs = [torch.empty_like(each) if want else each.new_empty(0) for each, want in pairs]
    return outs[0], outs[1], outs[2]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *ctx.options = inputs
    ctx.save_for_backward(query, key, value, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    query, key, value, logs = ctx.saved_tensors
    kernel_size, dilation, scale = ctx.options
    wanted = list(ctx.needs_input_grad[:3])
    if torch.is_grad_enabled():

        def reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return local_attention_reference(query, key, value, kernel_size=kernel_size, dilation=dilation, scale=scale)

        return (*followed_gradients(reference, (query, key, value), wanted, gradient), None, None, None)
    results = _differentiate(gradient, query, key, value, logs, kernel_size, dilation, scale, wanted)
    return (*(each if want else None for each, want in zip(results, wanted, strict=True)), None, None, None)


_attend.register_autograd(_backward, setup_context=_keep)


def _described(part: Any, height: int, width: int, dilation: int, channels: tuple[int, int]) -> tuple[Any, Any]:
    """A part's places among all pixels, and its extent, as the kernels take them."""
    places = ((part.image * height + part.phase) * width, dilation * width)
    return places, (part.rows, width, dilation, part.first, part.last, *channels)
