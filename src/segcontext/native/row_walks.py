"""Walks down the rows of a phase, a few channels at a time, that multiply two maps or mix one; imports numba.

Rows that a dilated window sees lie a dilation apart, so a walk takes every r-th row of a map: a phase. It reads each
row once, into scratch, with zeros where a window reaches beyond the map, and keeps as many rows as a window has. So few
channels are taken at a time that these rows stay near. While the vectors of a row are worked on, the next row is
fetched and copied, a few channels after each vector: so much at once would have to be waited for, and lines that were
fetched long before are gone where the channels of a pixel share a place in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from segcontext.native.jit import jit
from segcontext.native.memory import roomy
from segcontext.native.row_copies import bring, fetch, put
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
        Rows of the window and one more, two rows of neighbours, and one that is zero or not wanted: (k + 4, `BLOCK`,
        pitch); addresses of rows; and sums that nobody wants.
    """
    lines = -(-(columns + 2 * reach) // LINE)
    # An odd number of them, or the channels of a pixel would share few places in the cache.
    pitch = LINE * (lines + 1 - lines % 2)
    ring = roomy((kernel_size + 4, BLOCK, pitch), torch.float32).numpy()
    together = rows_at_once(kernel_size)
    tables = np.zeros((2, -(-kernel_size // together) * together), np.int64)
    return ring, tables, np.zeros((kernel_size - 1) * plane + columns, np.float32)


@jit
def _piece(source: Any, number: int, rows: int, channels: int, first: int, last: int) -> Any:
    """Some columns of a row of `BLOCK` channels, the rows of one block after the other being counted.

    Returns:
        What `bring` takes: the address, the step to the next channel, and the tuple; floats, and channels, of which
        there are none where there is no such row.
    """
    begin, down, along, width = source
    block = number // rows * BLOCK
    count = min(BLOCK, channels - block) if number >= 0 else 0
    return (begin + block * along + number % rows * down + first * len(width), along, width), last - first, count


@jit
def _part(piece: Any, first: int, last: int) -> Any:
    """Some channels of a piece."""
    (begin, along, width), floats, count = piece
    return (begin + first * along, along, width), floats, min(last, count) - first


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
            outside so that whole vectors are taken, columns between neighbouring positions, channels.
        window: a tuple of k.
        group: a tuple of `rows_at_once`.
        space: `workspace`.
    """
    rows, columns, first, last, across, channels = extent
    ring, tables, unwanted = space
    size, together = len(window), len(group)
    half, pitch, slots = size // 2, 4 * ring.shape[2], size + 1
    begin, end = max(0, first - half * across), min(columns, last + half * across)
    inside, shift = min(last, columns), 4 * (begin - first + half * across)
    share = -(-BLOCK * LANES // (last - first))
    own, outs = tables[0], tables[1]
    ring[:] = 0
    zeros, lost = ring[size + 3].ctypes.data, unwanted.ctypes.data
    # Queries run ahead of the keys, and the rows of the next channels follow.
    for step in range(-half - 1, -(-channels // BLOCK) * rows):
        queries = _piece(left, step + half + 1, rows, channels, first, inside)
        keys = _piece(right, step + 1, rows, channels, begin, end)
        queries_to = ring[(step + half + 1) % slots].ctypes.data
        keys_to = ring[slots + (step + 1) % 2].ctypes.data + shift
        if step < 0:
            bring(queries, queries_to, pitch)
            bring(keys, keys_to, pitch)
            continue
        row, count = step % rows, min(BLOCK, channels - step // rows * BLOCK)
        near = ring[slots + step % 2].ctypes.data
        for position in range(own.size):
            other = row - half + position
            own[position], outs[position] = zeros, lost
            if position < size and 0 <= other < rows:
                own[position] = ring[(step - half + position) % slots].ctypes.data
                # The row above sees this one below it.
                seen = (size - 1 - position) * size
                outs[position] = sums[0] + other * sums[1] + seen * sums[2] + 4 * first
        moved = 0
        for at in range(0, 4 * (last - first), 4 * LANES):
            fetch(_part(queries, moved, moved + share))
            fetch(_part(keys, moved, moved + share))
            for start in range(0, size, together):
                if row - half + start < rows and row - half + start + together > 0:
                    mine, theirs = own[start:].ctypes.data, outs[start:].ctypes.data
                    row_dots(mine, near, 4 * across, pitch, count, theirs, sums[2], at, window)
            bring(_part(queries, moved, moved + share), queries_to + moved * pitch, pitch)
            bring(_part(keys, moved, moved + share), keys_to + moved * pitch, pitch)
            moved += share


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
    rows, columns, first, last, across, channels = extent
    ring, tables, _ = space
    size, together = len(window), len(group)
    half, pitch, slots = size // 2, 4 * ring.shape[2], size + 1
    begin, end = max(0, first - half * across), min(columns, last + half * across)
    inside, shift = min(last, columns), 4 * (begin - first + half * across)
    share = -(-BLOCK * LANES // (last - first))
    shares, outs = tables[0], tables[1]
    ring[:] = 0
    lost = ring[size + 3].ctypes.data
    bring(_piece(source, 0, rows, channels, begin, end), ring[slots].ctypes.data + shift, pitch)
    for row in range(rows + half + 1):
        # What was done in the last step is written out in this one.
        done = _piece(out, row - half - 1, rows, channels, first, inside)
        done_from = ring[(row - half - 1) % slots].ctypes.data
        if row >= rows:
            put(done, done_from, pitch)
            continue
        following = _piece(source, row + 1, rows, channels if row + 1 < rows else 0, begin, end)
        following_to = ring[slots + (row + 1) % 2].ctypes.data + shift
        near = ring[slots + row % 2].ctypes.data
        ring[(row + half) % slots] = 0
        at_row = weights[0] + row * weights[1] + 4 * first
        for position in range(outs.size):
            other = row - half + position
            # In place of those that are not there, the weights of the row itself, which are.
            shares[position], outs[position] = at_row + half * weights[2], lost
            if position < size and 0 <= other < rows:
                shares[position] = at_row + position * weights[2]
                outs[position] = ring[other % slots].ctypes.data
        moved = 0
        for at in range(0, 4 * (last - first), 4 * LANES):
            fetch(_part(following, moved, moved + share))
            fetch(_part(done, moved, moved + share))
            for start in range(0, size, together):
                if row - half + start < rows and row - half + start + together > 0:
                    ours, into = shares[start:].ctypes.data, outs[start:].ctypes.data
                    row_mix(ours, weights[3], near, 4 * across, pitch, channels, into, at, window)
            bring(_part(following, moved, moved + share), following_to + moved * pitch, pitch)
            put(_part(done, moved, moved + share), done_from + moved * pitch, pitch)
            moved += share
