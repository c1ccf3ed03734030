"""Walks down the rows of a phase, a few channels at a time, that multiply two maps or mix one; imports numba.

Rows that a dilated window sees lie a dilation apart, so a walk takes every r-th row of a map: a phase. It reads each
row once, into scratch, with zeros where a window reaches beyond the map, and keeps as many rows as a window has. So few
channels are taken at a time that these rows stay in the nearest cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from segcontext.native.jit import inlined, jit
from segcontext.native.memory import roomy
from segcontext.native.row_copies import bring, put
from segcontext.native.row_products import row_dots, row_mix, rows_at_once
from segcontext.native.vectors import LANES

__all__ = ["BLOCK", "blend", "multiply", "workspace"]

#: Channels that are taken at a time.
BLOCK = 32
#: Floats in a line of the cache.
LINE = 16


def workspace(kernel_size: int, reach: int, columns: int, plane: int) -> tuple[Any, ...]:
    """What a walk works in; no two walks at once may share one.

    Args:
        kernel_size: k.
        reach: pixels from the middle of a window to its last position.
        columns: most columns of a walk.
        plane: floats from the sums of one position to those of the next.

    Returns:
        Rows of the window, a row of neighbours, and one that is zero or not wanted: (k + 2, `BLOCK`, pitch); addresses
        of rows; and sums that nobody wants.
    """
    lines = -(-(columns + 2 * reach) // LINE)
    # An odd number of them, or the channels of a pixel would share few places in the cache.
    pitch = LINE * (lines + 1 - lines % 2)
    ring = roomy((kernel_size + 2, BLOCK, pitch), torch.float32).numpy()
    tables = np.zeros((2, rows_at_once(kernel_size)), np.int64)
    return ring, tables, np.zeros((kernel_size - 1) * plane + columns, np.float32)


@inlined
def _following(row: int, rows: int, source: Any) -> Any:
    """Bytes from a map's first row and channel to what is read after some row of it."""
    return (row + 1) * source[1] if row + 1 < rows else (row + 1 - rows) * source[1] + BLOCK * source[2]


@jit
def multiply(left: Any, right: Any, sums: Any, extent: Any, window: Any, group: Any, space: Any) -> None:
    """Adds to sums the products of a map's pixels with those of another in their windows.

    Args:
        left: the address of its phase, the steps in bytes to the phase's next row and to the next channel, and a tuple
            as long as one float has bytes.
        right: the same of the other map, which has floats of the same size.
        sums: the address of those of the first pixel at the first of k² positions, and the steps in bytes to the next
            row and to the next position.
        extent: rows of the phase, columns of the map, the first column, the column behind the last, which may lie
            outside so that whole vectors are taken, dilation, channels.
        window: a tuple of k.
        group: a tuple of `rows_at_once`.
        space: `workspace`.
    """
    rows, columns, first, last, dilation, channels = extent
    ring, tables, unwanted = space
    size, together = len(window), len(group)
    half, pitch = size // 2, ring.shape[2]
    begin, end = max(0, first - half * dilation), min(columns, last + half * dilation)
    inside = min(last, columns)
    own, outs = tables[0], tables[1]
    lost = unwanted.ctypes.data
    ring[:] = 0
    near, zeros = ring[size].ctypes.data, ring[size + 1].ctypes.data
    into = near + 4 * (begin - first + half * dilation)
    width = left[3]
    narrow = len(width)
    most, most_keys = (inside - first) * narrow - 1, (end - begin) * narrow - 1
    for channel in range(0, channels, BLOCK):
        count = min(BLOCK, channels - channel)
        queries = left[0] + channel * left[2] + first * narrow
        keys = right[0] + channel * right[2] + begin * narrow
        for row in range(-half, rows):
            entering = row + half
            if entering < rows:
                from_ = (queries + entering * left[1], left[2], width)
                bring(from_, ring[entering % size].ctypes.data, 4 * pitch, inside - first, count)
            if row < 0:
                continue
            bring((keys + row * right[1], right[2], width), into, 4 * pitch, end - begin, count)
            # What is read after this row: the queries run ahead of the keys, and the next channels follow the last row.
            ahead = queries + _following(entering, rows, left)
            ahead_keys = keys + _following(row, rows, right)
            for start in range(0, size, together):
                some = False
                for place in range(together):
                    position = start + place
                    other = row - half + position
                    if position < size and 0 <= other < rows:
                        some = True
                        own[place] = ring[other % size].ctypes.data
                        # The row above sees this one below it.
                        seen = (size - 1 - position) * size
                        outs[place] = sums[0] + other * sums[1] + seen * sums[2] + 4 * first
                    else:
                        own[place], outs[place] = zeros, lost
                if some:
                    for at in range(0, 4 * (last - first), 4 * LANES):
                        # By turns a line of the one and of the other; the last ones for want of something better.
                        line = at // (8 * LANES) * 64
                        soon, along = ahead_keys + min(line, most_keys), right[2]
                        if at % (8 * LANES) == 0:
                            soon, along = ahead + min(line, most), left[2]
                        row_dots(
                            own.ctypes.data,
                            near,
                            4 * dilation,
                            4 * pitch,
                            count,
                            outs.ctypes.data,
                            sums[2],
                            at,
                            soon,
                            along,
                            window,
                        )


@jit
def blend(source: Any, out: Any, weights: Any, extent: Any, window: Any, group: Any, space: Any) -> None:
    """Writes the pixels of a map in the windows of pixels, summed up by weights, of `BLOCK` channels at most.

    Args:
        source: the map, as for `multiply`.
        out: what is written, likewise.
        weights: where those lie by which the source's first row adds to the row k // 2 above it, for the first column
            and the first position, and the steps in bytes: to the source's next row, to the next lower row that it
            adds to, and to the next position.
        extent: as for `multiply`.
        window: a tuple of k.
        group: a tuple of `rows_at_once`.
        space: `workspace`.
    """
    rows, columns, first, last, dilation, channels = extent
    ring, tables, _ = space
    size, together = len(window), len(group)
    half, pitch = size // 2, ring.shape[2]
    begin, end = max(0, first - half * dilation), min(columns, last + half * dilation)
    inside = min(last, columns)
    shares, outs = tables[0], tables[1]
    ring[:] = 0
    near, lost = ring[size].ctypes.data, ring[size + 1].ctypes.data
    into = near + 4 * (begin - first + half * dilation)
    width = source[3]
    narrow = len(width)
    most, most_out = (end - begin) * narrow - 1, (inside - first) * narrow - 1
    for row in range(rows + half):
        if row < rows:
            at_source = (source[0] + row * source[1] + begin * narrow, source[2], width)
            bring(at_source, into, 4 * pitch, end - begin, channels)
            if row + half < rows:
                ring[(row + half) % size] = 0
            ahead = at_source[0] + source[1]
            ahead_out = out[0] + max(0, row + 1 - half) * out[1] + first * narrow
            at_row = weights[0] + row * weights[1] + 4 * first
            for start in range(0, size, together):
                some = False
                for place in range(together):
                    position = start + place
                    other = row - half + position
                    if position < size and 0 <= other < rows:
                        some = True
                        shares[place] = at_row + position * weights[2]
                        outs[place] = ring[other % size].ctypes.data
                    else:
                        # Those of the row itself, which are there.
                        shares[place], outs[place] = at_row + half * weights[2], lost
                if some:
                    for at in range(0, 4 * (last - first), 4 * LANES):
                        line = at // (8 * LANES) * 64
                        soon, along = ahead_out + min(line, most_out), out[2]
                        if at % (8 * LANES) == 0:
                            soon, along = ahead + min(line, most), source[2]
                        row_mix(
                            shares.ctypes.data,
                            weights[3],
                            near,
                            4 * dilation,
                            4 * pitch,
                            channels,
                            outs.ctypes.data,
                            at,
                            soon,
                            along,
                            window,
                        )
        done = row - half
        if done >= 0:
            at_out = (out[0] + done * out[1] + first * narrow, out[2], width)
            put(ring[done % size].ctypes.data, 4 * pitch, at_out, inside - first, channels)
