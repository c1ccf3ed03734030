"""Kernels of local attention: squares of pixels r apart against blocks of their surroundings.

Maps are (B, h, w, C), contiguous. Pixels r apart in both directions form a phase, in which windows are dense; each
program takes a square of ROWS × COLUMNS pixels of one phase ("near") and walks over blocks of FAR_ROWS × FAR_COLUMNS
pixels of the surroundings that their windows reach ("far"). Both directions are gathers: what a pixel gets is summed up
by one program, in one order.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["attend", "slope"]


@triton.jit
def square(height, width, dilation, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where this program's square is: its phase and the place of its first pixel within the phase."""
    down = tl.cdiv(tl.cdiv(height, dilation), ROWS)
    across = tl.cdiv(tl.cdiv(width, dilation), COLUMNS)
    number = tl.program_id(0)
    phase = number // (down * across)
    place = number % (down * across)
    return phase // dilation, phase % dilation, place // across * ROWS, place % across * COLUMNS


@triton.jit
def block(
    number, down, across, REACH: tl.constexpr, COLUMNS: tl.constexpr, FAR_ROWS: tl.constexpr, FAR_COLUMNS: tl.constexpr
):
    """Places within the phase of one block of the surroundings."""
    beside: tl.constexpr = (COLUMNS + 2 * REACH + FAR_COLUMNS - 1) // FAR_COLUMNS
    n = tl.arange(0, FAR_ROWS * FAR_COLUMNS)
    row = down - REACH + number // beside * FAR_ROWS + n // FAR_COLUMNS
    return row, across - REACH + number % beside * FAR_COLUMNS + n % FAR_COLUMNS


@triton.jit
def rows_of(map_, at, inside, first, SIZE: tl.constexpr, CHUNK: tl.constexpr):
    """Some channels of some pixels."""
    c = first + tl.arange(0, CHUNK)
    return tl.load(map_ + at[:, None] * SIZE + c[None, :], mask=inside[:, None] & (c < SIZE)[None, :], other=0.0)


@triton.jit
def products(held, near, at, inside, far, far_at, far_inside, SIZE: tl.constexpr, CHUNK: tl.constexpr):
    """Products of near with far pixels; `held` are the near ones where one chunk holds all channels."""
    if SIZE <= CHUNK:
        return tl.dot(held, tl.trans(rows_of(far, far_at, far_inside, 0, SIZE, CHUNK)), input_precision="tf32x3")
    else:
        found = tl.zeros([at.shape[0], far_at.shape[0]], tl.float32)
        for first in range(0, SIZE, CHUNK):
            mine = rows_of(near, at, inside, first, SIZE, CHUNK)
            theirs = rows_of(far, far_at, far_inside, first, SIZE, CHUNK)
            found = tl.dot(mine, tl.trans(theirs), found, input_precision="tf32x3")
        return found


@triton.jit
def attend(
    query,
    key,
    value,
    out,
    sums,
    height,
    width,
    dilation,
    scale,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    REACH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FAR_ROWS: tl.constexpr,
    FAR_COLUMNS: tl.constexpr,
    DEPTH_CHUNK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One chunk of channels of the output, and the logarithm of the sum under the softmax."""
    phase_row, phase_column, down, across = square(height, width, dilation, ROWS, COLUMNS)
    first, image = tl.program_id(1) * CHUNK, tl.program_id(2).to(tl.int64) * height * width
    query += image * DEPTH
    key += image * DEPTH
    value += image * CHANNELS
    n = tl.arange(0, ROWS * COLUMNS)
    row, column = down + n // COLUMNS, across + n % COLUMNS
    y, x = phase_row + dilation * row, phase_column + dilation * column
    at, inside = y * width + x, (y < height) & (x < width)
    held = rows_of(query, at, inside, 0, DEPTH, DEPTH_CHUNK)
    largest = tl.full([ROWS * COLUMNS], -1e30, tl.float32)
    total = tl.zeros([ROWS * COLUMNS], tl.float32)
    found = tl.zeros([ROWS * COLUMNS, CHUNK], tl.float32)
    beside: tl.constexpr = (COLUMNS + 2 * REACH + FAR_COLUMNS - 1) // FAR_COLUMNS
    below: tl.constexpr = (ROWS + 2 * REACH + FAR_ROWS - 1) // FAR_ROWS
    for number in range(beside * below):
        far_row, far_column = block(number, down, across, REACH, COLUMNS, FAR_ROWS, FAR_COLUMNS)
        far_y, far_x = phase_row + dilation * far_row, phase_column + dilation * far_column
        there = (far_y >= 0) & (far_y < height) & (far_x >= 0) & (far_x < width)
        # What no window of the square reaches need not be read.
        there &= (far_row < down + ROWS + REACH) & (far_column < across + COLUMNS + REACH)
        far_at = far_y * width + far_x
        logits = products(held, query, at, inside, key, far_at, there, DEPTH, DEPTH_CHUNK) * scale
        # Beyond the map the key is zero, so its logit is 0 and takes its share.
        window = tl.abs(far_row[None, :] - row[:, None]) <= REACH
        window &= tl.abs(far_column[None, :] - column[:, None]) <= REACH
        logits = tl.where(window, logits, -float("inf"))
        new = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp(logits - new[:, None])
        shrink = tl.exp(largest - new)
        total = total * shrink + tl.sum(weights, 1)
        values = rows_of(value, far_at, there, first, CHANNELS, CHUNK)
        found = tl.dot(weights.to(values.dtype), values, found * shrink[:, None], input_precision="tf32x3")
        largest = new
    c = first + tl.arange(0, CHUNK)
    target = out + image * CHANNELS + at[:, None] * CHANNELS + c[None, :]
    found /= total[:, None]
    tl.store(target, found.to(out.dtype.element_ty), mask=inside[:, None] & (c < CHANNELS)[None, :])
    if first == 0:
        tl.store(sums + image + at, largest + tl.log(total), mask=inside)


@triton.jit
def slope(
    near,
    near_other,
    far,
    far_other,
    result,
    out,
    sums,
    shared,
    height,
    width,
    dilation,
    scale,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    WHAT: tl.constexpr,
    REACH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FAR_ROWS: tl.constexpr,
    FAR_COLUMNS: tl.constexpr,
    DEPTH_CHUNK: tl.constexpr,
    OTHER_CHUNK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The gradient by the near pixels' queries, keys or values, as WHAT says.

    "query": near are query and slope of the output, far key and value; also writes what all gradients by a pixel's
    logits share, Σ slope · result. "key": near are key and value, far query and slope of the output. "value": near is
    the key, far query and slope of the output.
    """
    phase_row, phase_column, down, across = square(height, width, dilation, ROWS, COLUMNS)
    first, image = tl.program_id(1) * CHUNK, tl.program_id(2).to(tl.int64) * height * width
    near += image * DEPTH
    far += image * DEPTH
    near_other += image * CHANNELS
    far_other += image * CHANNELS
    sums += image
    shared += image
    n = tl.arange(0, ROWS * COLUMNS)
    row, column = down + n // COLUMNS, across + n % COLUMNS
    y, x = phase_row + dilation * row, phase_column + dilation * column
    at, inside = y * width + x, (y < height) & (x < width)
    held = rows_of(near, at, inside, 0, DEPTH, DEPTH_CHUNK)
    if WHAT != "value":
        held_other = rows_of(near_other, at, inside, 0, CHANNELS, OTHER_CHUNK)
    if WHAT == "query":
        under = tl.load(sums + at, mask=inside, other=0.0)
        both = tl.zeros([ROWS * COLUMNS], tl.float32)
        for start in range(0, CHANNELS, 64):
            mine = rows_of(near_other, at, inside, start, CHANNELS, 64).to(tl.float32)
            both += tl.sum(mine * rows_of(result + image * CHANNELS, at, inside, start, CHANNELS, 64), 1)
        if first == 0:
            tl.store(shared + at, both, mask=inside)
    found = tl.zeros([ROWS * COLUMNS, CHUNK], tl.float32)
    beside: tl.constexpr = (COLUMNS + 2 * REACH + FAR_COLUMNS - 1) // FAR_COLUMNS
    below: tl.constexpr = (ROWS + 2 * REACH + FAR_ROWS - 1) // FAR_ROWS
    for number in range(beside * below):
        far_row, far_column = block(number, down, across, REACH, COLUMNS, FAR_ROWS, FAR_COLUMNS)
        far_y, far_x = phase_row + dilation * far_row, phase_column + dilation * far_column
        there = (far_y >= 0) & (far_y < height) & (far_x >= 0) & (far_x < width)
        there &= (far_row < down + ROWS + REACH) & (far_column < across + COLUMNS + REACH)
        far_at = far_y * width + far_x
        logits = products(held, near, at, inside, far, far_at, there, DEPTH, DEPTH_CHUNK) * scale
        # Beyond the map keys and values are zero and pass nothing on.
        window = tl.abs(far_row[None, :] - row[:, None]) <= REACH
        window &= (tl.abs(far_column[None, :] - column[:, None]) <= REACH) & there[None, :]
        if WHAT == "query":
            logits -= under[:, None]
        else:
            logits -= tl.load(sums + far_at, mask=there, other=0.0)[None, :]
        weights = tl.exp(tl.where(window, logits, -float("inf")))
        if WHAT == "value":
            values = rows_of(far_other, far_at, there, first, CHANNELS, CHUNK)
        else:
            by_weight = products(held_other, near_other, at, inside, far_other, far_at, there, CHANNELS, OTHER_CHUNK)
            if WHAT == "query":
                by_weight -= both[:, None]
            else:
                by_weight -= tl.load(shared + far_at, mask=there, other=0.0)[None, :]
            weights *= by_weight * scale
            values = rows_of(far, far_at, there, first, DEPTH, CHUNK)
        found = tl.dot(weights.to(values.dtype), values, found, input_precision="tf32x3")
    c = first + tl.arange(0, CHUNK)
    size: tl.constexpr = CHANNELS if WHAT == "value" else DEPTH
    target = out + image * size + at[:, None] * size + c[None, :]
    tl.store(target, found.to(out.dtype.element_ty), mask=inside[:, None] & (c < size)[None, :])
