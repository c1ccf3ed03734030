"""Local attention on a GPU: logits, weights and their gradients stay in registers; one number a pixel is kept."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor

from segcontext.gpu.availability import obstacle
from segcontext.gpu.shared_memory import HOPPER, shared_memory

__all__ = ["local_attention", "local_obstacle"]

#: A program's square of pixels, and a block of their surroundings, in pixels r apart.
SQUARE = {"ROWS": 8, "COLUMNS": 8, "FAR_ROWS": 2, "FAR_COLUMNS": 16}


def local_obstacle(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """Why `local_attention` cannot run on these, in a few words; `None` where it can.

    Args:
        query: (B, D, h, w).
        key: (B, D, h, w).
        value: (B, C, h, w).
    """
    if not query.dtype == key.dtype == value.dtype:
        return "queries, keys and values of several dtypes"
    if max(query.shape[1], value.shape[1]) * query.shape[2] * query.shape[3] >= 2**31:
        return "an image of more than 2³¹ values"
    return obstacle(query, key, value)


def local_attention(
    query: Tensor, key: Tensor, value: Tensor, *, kernel_size: int = 5, dilation: int = 3, scale: float = 1.0
) -> Tensor:
    """`segcontext.ops.local_attention`, whose arguments these are.

    Args:
        query: (B, D, h, w).
        key: (B, D, h, w).
        value: (B, C, h, w).
        kernel_size: k, odd, in positions.
        dilation: r ≥ 1, pixels between neighbouring positions.
        scale: multiplies the logits.

    Returns:
        (B, C, h, w), in the dtype of `value` and laid out with channels last; maps that come so are not copied.

    Note:
        Weights meet the values in their dtype; softmax and sums are float32. Gradients are of the first order; weights
        are computed again, from one number kept for each pixel. All sums have one order, so results repeat exactly.
    """
    with torch.autocast(query.device.type, enabled=False):
        maps = (each.permute(0, 2, 3, 1).contiguous() for each in (query, key, value))
        out: Tensor = _attend(*maps, kernel_size // 2, dilation, scale)[0]
        return out.permute(0, 3, 1, 2)


@torch.library.custom_op("segcontext::local_attention_triton", mutates_args=())
def _attend(
    query: Tensor, key: Tensor, value: Tensor, reach: int, dilation: int, scale: float
) -> tuple[Tensor, Tensor]:
    from segcontext.gpu.kernels import local

    _, height, width, depth = query.shape
    channels = value.shape[-1]
    out, sums = torch.empty_like(value), query.new_empty(query.shape[:3], dtype=torch.float32)
    chunk = _chunk(query, channels, 512)
    local.attend[_grid(query, dilation, channels, chunk)](
        *(query, key, value, out, sums, height, width, dilation, scale),
        **{"DEPTH": depth, "CHANNELS": channels, "REACH": reach, "CHUNK": chunk, **SQUARE},
        DEPTH_CHUNK=_held(query, depth, 256),
        num_warps=8,
        num_stages=2,
    )
    return out, sums


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, reach: int, dilation: int, scale: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(value), query.new_empty(query.shape[:3], dtype=torch.float32)


@torch.library.custom_op("segcontext::local_attention_triton_backward", mutates_args=())
def _slopes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    slope: Tensor,
    reach: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from segcontext.gpu.kernels import local

    _, height, width, depth = query.shape
    channels = value.shape[-1]
    found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    shared = torch.empty_like(sums)
    # The queries' turn is first: what it writes to `shared` the keys need.
    for what, by, near, near_other, far in (
        ("query", found[0], query, slope, (key, value)),
        ("key", found[1], key, value, (query, slope)),
        ("value", found[2], key, value, (query, slope)),
    ):
        size = by.shape[-1]
        chunk = _chunk(query, size, 512 if what == "value" else 256)
        local.slope[_grid(query, dilation, size, chunk)](
            *(near, near_other, *far, out, by, sums, shared, height, width, dilation, scale),
            **{"DEPTH": depth, "CHANNELS": channels, "WHAT": what, "REACH": reach, "CHUNK": chunk, **SQUARE},
            DEPTH_CHUNK=_held(query, depth, 256),
            OTHER_CHUNK=_held(query, channels, 512 if shared_memory(query.device) >= HOPPER else 64),
            num_warps=8,
            num_stages=2,
        )
    return found


@_slopes.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    slope: Tensor,
    reach: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *maps, reach, dilation, scale = inputs
    ctx.save_for_backward(*maps, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.window = (reach, dilation, scale)


def _backward(ctx: Any, slope: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    found = _slopes(*ctx.saved_tensors, slope.contiguous(), *ctx.window)
    return (*found, None, None, None)


_attend.register_autograd(_backward, setup_context=_keep)


def _grid(query: Tensor, dilation: int, channels: int, chunk: int) -> tuple[int, int, int]:
    """Squares of all phases, chunks of channels, images."""
    batch, height, width, _ = query.shape
    phase = ceil(height / dilation), ceil(width / dilation)
    down, across = (ceil(size / SQUARE[side]) for size, side in zip(phase, ("ROWS", "COLUMNS"), strict=True))
    return dilation**2 * down * across, ceil(channels / chunk), batch


def _chunk(query: Tensor, channels: int, most: int) -> int:
    """Channels whose sums a program holds, so few that registers do not spill on compute capability 9.0."""
    return min(_wide(channels), 128 if query.dtype == torch.float32 else most)


def _held(query: Tensor, channels: int, most: int) -> int:
    """Channels that are multiplied at once: all where that fits into shared memory."""
    if query.dtype == torch.float32:
        return min(_wide(channels), 32)
    return _wide(channels) if channels <= most else 64


def _wide(size: int) -> int:
    """The power of two, 16 or more, that holds a size."""
    return max(16, 1 << (size - 1).bit_length())
