"""How many boundary pixels of a class have one of the other map nearby, block by block of their bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.bits import bits_below
from segcontext.native.jit import inlined, jit
from segcontext.native.nearest_bit import nearest
from segcontext.native.word_rows import ROWS, block_at, joined, moved_down, moved_up, ones, put, without

__all__ = ["match_classes"]


@inlined
def _widen(plane: Any, at: int, stride: int, radius: int, reached: Any, table: Any) -> None:
    """Makes rows of the table reach so far: table[w] has the bits at most w columns from a set one.

    Args:
        plane: the bits.
        at: the word of the table's first row.
        stride: words to the next column.
        radius: how many columns; so many rows above and below the block are needed, too.
        reached: of each eight rows the w that were done, to be brought up to date.
        table: flat, (columns, rows).
    """
    rows = len(reached) * ROWS
    middle = (rows - ROWS) // 2
    for part in range((middle - radius) // ROWS, (middle + radius + ROWS - 1) // ROWS + 1):
        place = part * ROWS
        word = at + place
        here, before, behind = block_at(plane, word), block_at(plane, word - stride), block_at(plane, word + stride)
        if reached[part] < 0:
            put(here, table, place)
            reached[part] = 0
        wide = block_at(table, reached[part] * rows + place)
        for step in range(reached[part] + 1, radius + 1):
            wide = joined(wide, joined(moved_up(here, before, step), moved_down(here, behind, step)))
            put(wide, table, step * rows + place)
        reached[part] = radius


@inlined
def _within(table: Any, rows: int, spans: Any, radius: int) -> Any:
    """The bits of the block around which a disk, so many columns wide in each row, has a set bit."""
    middle = (rows - ROWS) // 2
    found = block_at(table, spans[0] * rows + middle)
    for down in range(1, radius + 1):
        at = spans[down] * rows + middle
        found = joined(found, joined(block_at(table, at - down), block_at(table, at + down)))
    return found


@jit
def match_classes(
    begins: Any,
    words: Any,
    limits: Any,
    spans: Any,
    planes: Any,
    shape: Any,
    layout: Any,
    order: Any,
    first: int,
    last: int,
    matched: Any,
) -> None:
    """Counts, for some classes, the boundary pixels that have one of the other map nearby.

    Args:
        begins: where each class's words begin in either map, int64, (2, classes + 1).
        words: places and words of either map, by class, uint64, two arrays (n, 2).
        limits: the largest squared distances that count, increasing, int64, (limits,).
        spans: of the first of these, below 64², how many columns a disk reaches in each row from its middle on, int64,
            (disks, the largest radius + 1). All of them, unless limits reach farther.
        planes: a bit for each pixel, none of them set, uint64, (2, words). Consecutive words are of consecutive rows.
            An empty word stands before each row and one behind it; above and below each column of words there are as
            many empty ones as the largest radius of a disk, rounded up to a multiple of eight.
        shape: H and W.
        layout: where pixel (0, 0) lies in a plane, a multiple of eight, and how far it is from a word to that of the
            next 64 columns, another.
        order: classes, int64.
        first: first of them, as a position in `order`.
        last: position behind the last.
        matched: int64, (2, limits, classes), zero, to be filled for these classes.
    """
    stride = layout[1]
    above = (spans.shape[1] + ROWS - 2) // ROWS * ROWS
    rows = 2 * above + ROWS
    table = np.empty(spans.shape[1] * rows, np.uint64)
    reached = np.empty(rows // ROWS, np.int64)
    rest = np.empty(ROWS, np.uint64)
    seen = np.empty(planes.shape[1] // ROWS, np.bool_)
    blocks = np.empty(len(seen), np.int64)
    for position in range(first, last):
        label = order[position]
        for side in range(2):
            for n in range(begins[side, label], begins[side, label + 1]):
                planes[side, np.int64(words[side][n, 0])] = words[side][n, 1]
        for side in range(2):
            own, plane = planes[side], planes[1 - side]
            seen[:] = False
            count = 0
            for n in range(begins[side, label], begins[side, label + 1]):
                block = np.int64(words[side][n, 0]) // ROWS
                blocks[count] = block
                count += not seen[block]
                seen[block] = True
            for number in range(count):
                at = blocks[number] * ROWS
                pixels = block_at(own, at)
                several = ones(pixels)
                reached[:] = -1
                left, found = several, matched[side, :, label]
                for disk in range(len(spans)):
                    radius = spans[disk, 0]
                    _widen(plane, at - above, stride, radius, reached, table)
                    missed = without(pixels, _within(table, rows, spans[disk], radius))
                    left = ones(missed)
                    found[disk] += several - left
                    if left == 0:
                        for larger in range(disk + 1, len(limits)):
                            found[larger] += several
                        break
                    put(missed, rest, 0)
                if left > 0 and len(limits) > len(spans):
                    _match_far(plane, shape, layout, at, rest, several - left, limits, len(spans), found)
        for side in range(2):
            for n in range(begins[side, label], begins[side, label + 1]):
                planes[side, np.int64(words[side][n, 0])] = 0


@jit
def _match_far(
    plane: Any, shape: Any, layout: Any, at: int, pixels: Any, near: int, limits: Any, first: int, matched: Any
) -> None:
    """Adds to the counts of the limits from the first on: pixels near anyway, and those of a block one by one."""
    begin, stride = layout
    column, row = (at - begin) // stride, (at - begin) % stride
    matched[first:] += near
    for down in range(ROWS):
        bits = pixels[down]
        while bits != 0:
            distance = nearest(plane, shape, layout, row + down, 64 * column + bits_below(bits), limits[-1])
            bits &= bits - np.uint64(1)
            for n in range(first, len(limits)):
                matched[n] += distance <= limits[n]
