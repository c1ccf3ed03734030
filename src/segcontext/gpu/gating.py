"""LDv1's gate on a GPU: one pass over the map, in either direction."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from segcontext.gpu.availability import obstacle

__all__ = ["gate", "gate_obstacle"]


def gate_obstacle(x: Tensor, logits: Tensor) -> str | None:
    """Why `gate` cannot run on these, in a few words; `None` where it can.

    Args:
        x: (B, C, h, w).
        logits: (B, C, h', w').
    """
    if logits.shape[3] > 512:
        return "logits of more than 512 columns"
    if math.prod(x.shape[1:]) >= 2**31:
        return "an image of more than 2³¹ values"
    return obstacle(x, logits)


def gate(x: Tensor, logits: Tensor, *, plain: float = 1.0, align_corners: bool = True) -> Tensor:
    r"""A map gated by a smaller one, :math:`x \odot (\sigma(\mathrm{upsample}(m)) + p)`.

    LDv1 (GALD eqs. 1-2) with p = 1, as its authors' code has it with p = 2. Nothing as large as the map is kept or made
    on the way, but the result.

    Args:
        x: X_g, (B, C, h, w), in any layout.
        logits: m, (B, C, h', w'), upsampled bilinearly.
        plain: p, how often X_g is added.
        align_corners: of the upsampling.

    Returns:
        (B, C, h, w), in the dtype and layout of `x`.

    Note:
        All between load and store is float32. Gradients are of the first order; that by the logits is gathered, so it
        repeats exactly.
    """
    out: Tensor = _gate(x, logits, plain, align_corners)
    return out


@torch.library.custom_op("segcontext::gate_triton", mutates_args=())
def _gate(x: Tensor, logits: Tensor, plain: float, align_corners: bool) -> Tensor:
    from segcontext.gpu.kernels import gating

    batch, channels, height, width = x.shape
    out = torch.empty_like(x)
    pixels, wide = _piece(x)
    gating.gate[batch * height, -(-width // pixels), -(-channels // wide)](
        *(x, logits, out, height, width, channels, *_sizes(x, logits, align_corners), plain),
        *(*_strides(x), *_strides(logits), *_strides(out)),
        **{"ALIGNED": align_corners, "PIXELS": pixels, "CHANNELS": wide},
    )
    return out


@_gate.register_fake
def _(x: Tensor, logits: Tensor, plain: float, align_corners: bool) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("segcontext::gate_triton_backward", mutates_args=())
def _slopes(x: Tensor, logits: Tensor, above: Tensor, plain: float, align_corners: bool) -> tuple[Tensor, Tensor]:
    from segcontext.gpu.kernels import gating

    batch, channels, height, width = x.shape
    rows, columns, row_step, _ = sizes = _sizes(x, logits, align_corners)
    by_x, by_logits = torch.empty_like(x), logits.new_empty(batch, rows, columns, channels)
    gathered = x.new_empty(batch, height, columns, channels, dtype=torch.float32)
    wide_columns = _wide(columns)
    wide = max(16, min(64, 8192 // wide_columns))
    gating.slope[batch * height, -(-channels // wide)](
        *(x, logits, above, by_x, gathered, height, width, channels, *sizes, plain),
        *(*_strides(x), *_strides(logits), *_strides(above), *_strides(by_x)),
        **{"ALIGNED": align_corners, "CHANNELS": wide, "COLUMNS": wide_columns},
        # A program holds the weights of its pixels for each column: more do not fit into registers.
        PIXELS=32 if wide_columns <= 128 else 16,
        num_warps=8,
        num_stages=2,
    )
    size = columns * channels
    spread = 1 / row_step if row_step else float(height)
    reach = math.ceil(2 * spread) + 2
    gating.collect[batch * rows, -(-size // 1024)](
        gathered, by_logits, height, rows, size, row_step, spread, reach, ALIGNED=align_corners, BLOCK=1024
    )
    return by_x, by_logits.permute(0, 3, 1, 2)


@_slopes.register_fake
def _(x: Tensor, logits: Tensor, above: Tensor, plain: float, align_corners: bool) -> tuple[Tensor, Tensor]:
    batch, channels, rows, columns = logits.shape
    return torch.empty_like(x), logits.new_empty(batch, rows, columns, channels).permute(0, 3, 1, 2)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, logits, ctx.plain, ctx.align_corners = inputs
    ctx.save_for_backward(x, logits)


def _backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
    return (*_slopes(*ctx.saved_tensors, above, ctx.plain, ctx.align_corners), None, None)


_gate.register_autograd(_backward, setup_context=_keep)


def _strides(x: Tensor) -> tuple[int, int, int, int]:
    """Of images, rows, columns and channels."""
    image, channel, row, column = x.stride()
    return image, row, column, channel


def _sizes(x: Tensor, logits: Tensor, align_corners: bool) -> tuple[int, int, float, float]:
    """Rows and columns of the logits, and how many of them go to one of the map."""
    (height, width), (rows, columns) = x.shape[2:], logits.shape[2:]
    steps = [
        (few - 1) / max(many - 1, 1) if align_corners else few / many
        for few, many in ((rows, height), (columns, width))
    ]
    return rows, columns, steps[0], steps[1]


def _piece(x: Tensor) -> tuple[int, int]:
    """Pixels and channels of one program, the longer along what lies side by side in memory."""
    if x.stride(1) == 1:
        wide = min(_wide(x.shape[1]), 512)
        return 4096 // wide, wide
    wide = min(_wide(x.shape[3]), 512)
    return wide, 4096 // wide


def _wide(size: int) -> int:
    """The power of two, 16 or more, that holds a size."""
    return max(16, 1 << (size - 1).bit_length())
