"""Kernels of LDv1: a small map of logits is upsampled, squashed and applied where it is needed, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl

from segcontext.gpu.kernels.bilinear import corners

__all__ = ["collect", "gate", "slope"]


@triton.jit
def mask_of(
    logits, y, x, c, there, rows, columns, row_step, column_step, l_row, l_column, l_channel, ALIGNED: tl.constexpr
):
    """The sigmoid of the upsampled logits of some pixels of one row."""
    top, bottom, down = corners(y, rows, row_step, ALIGNED)
    left, right, across = corners(x, columns, column_step, ALIGNED)
    across = across[:, None]
    channel = (c * l_channel)[None, :]
    upper, lower = logits + top * l_row + channel, logits + bottom * l_row + channel
    left, right = left[:, None] * l_column, right[:, None] * l_column
    above = (1 - across) * tl.load(upper + left, mask=there, other=0.0).to(tl.float32)
    above += across * tl.load(upper + right, mask=there, other=0.0).to(tl.float32)
    below = (1 - across) * tl.load(lower + left, mask=there, other=0.0).to(tl.float32)
    below += across * tl.load(lower + right, mask=there, other=0.0).to(tl.float32)
    return tl.sigmoid((1 - down) * above + down * below)


@triton.jit
def gate(
    map_,
    logits,
    out,
    height,
    width,
    channels,
    rows,
    columns,
    row_step,
    column_step,
    plain,
    m_image,
    m_row,
    m_column,
    m_channel,
    l_image,
    l_row,
    l_column,
    l_channel,
    o_image,
    o_row,
    o_column,
    o_channel,
    ALIGNED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Map · (mask + plain) for a piece of a row."""
    y, image = tl.program_id(0) % height, (tl.program_id(0) // height).to(tl.int64)
    x = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    there = (x < width)[:, None] & (c < channels)[None, :]
    place = x[:, None] * m_column + c[None, :] * m_channel
    seen = tl.load(map_ + image * m_image + y * m_row + place, mask=there, other=0.0).to(tl.float32)
    mask = mask_of(
        logits + image * l_image,
        y,
        x,
        c,
        there,
        rows,
        columns,
        row_step,
        column_step,
        l_row,
        l_column,
        l_channel,
        ALIGNED,
    )
    place = x[:, None] * o_column + c[None, :] * o_channel
    tl.store(out + image * o_image + y * o_row + place, (seen * (mask + plain)).to(out.dtype.element_ty), mask=there)


@triton.jit
def slope(
    map_,
    logits,
    above,
    out,
    gathered,
    height,
    width,
    channels,
    rows,
    columns,
    row_step,
    column_step,
    plain,
    m_image,
    m_row,
    m_column,
    m_channel,
    l_image,
    l_row,
    l_column,
    l_channel,
    a_image,
    a_row,
    a_column,
    a_channel,
    o_image,
    o_row,
    o_column,
    o_channel,
    ALIGNED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The gradient by one row of the map, and that by the upsampled logits gathered along the row.

    `gathered` is (B, height, columns, channels), float32: what is left to do is to gather it over the rows.
    """
    y, image = tl.program_id(0) % height, (tl.program_id(0) // height).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    j = tl.arange(0, COLUMNS)
    map_ += image * m_image + y * m_row
    above += image * a_image + y * a_row
    out += image * o_image + y * o_row
    found = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    for start in range(0, width, PIXELS):
        x = start + tl.arange(0, PIXELS)
        there = (x < width)[:, None] & (c < channels)[None, :]
        by_out = tl.load(above + x[:, None] * a_column + c[None, :] * a_channel, mask=there, other=0.0)
        by_out = by_out.to(tl.float32)
        seen = tl.load(map_ + x[:, None] * m_column + c[None, :] * m_channel, mask=there, other=0.0).to(tl.float32)
        mask = mask_of(
            logits + image * l_image,
            y,
            x,
            c,
            there,
            rows,
            columns,
            row_step,
            column_step,
            l_row,
            l_column,
            l_channel,
            ALIGNED,
        )
        target = out + x[:, None] * o_column + c[None, :] * o_channel
        tl.store(target, (by_out * (mask + plain)).to(out.dtype.element_ty), mask=there)
        left, right, across = corners(x, columns, column_step, ALIGNED)
        weights = tl.where(j[:, None] == left[None, :], 1 - across[None, :], 0.0)
        weights += tl.where(j[:, None] == right[None, :], across[None, :], 0.0)
        found = tl.dot(weights, by_out * seen * mask * (1 - mask), found, input_precision="tf32x3")
    target = gathered + ((image * height + y) * columns + j[:, None]) * channels + c[None, :]
    tl.store(target, found, mask=(j < columns)[:, None] & (c < channels)[None, :])


@triton.jit
def collect(
    gathered,
    out,
    height,
    rows,
    size,
    row_step,
    spread,
    reach,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gathers over the rows: (B, height, size) to (B, rows, size).

    To each row of the small map go `spread` rows of the large one, at most `reach` rows away.
    """
    row, image = tl.program_id(0) % rows, (tl.program_id(0) // rows).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    # Rows without a share are among these, too: their weight is nil.
    middle = (row.to(tl.float32) * spread).to(tl.int32)
    first = tl.maximum(middle - reach, 0)
    last = tl.minimum(middle + reach + 1, height)
    if row == rows - 1:
        last = height
    found = tl.zeros([BLOCK], tl.float32)
    for y in range(first, last):
        top, bottom, down = corners(y + tl.zeros([1], tl.int32), rows, row_step, ALIGNED)
        weight = tl.where(top == row, 1 - down, 0.0) + tl.where(bottom == row, down, 0.0)
        found += weight * tl.load(gathered + (image * height + y) * size + n, mask=n < size, other=0.0)
    tl.store(out + (image * rows + row) * size + n, found.to(out.dtype.element_ty), mask=n < size)
