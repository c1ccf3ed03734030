"""The argmax of bilinearly resized logits, without the resized logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.bits import bits_below
from segcontext.native.cells import between, chosen, highest, lowest, mixed, put_class, put_classes, reaching
from segcontext.native.jit import inlined, jit
from segcontext.native.lane_values import LANES, filled, lanes_at, larger, plus, put_lanes

__all__ = ["BLOCK", "argmax_rows"]

#: Rows of labels that are found together, at most; they share their cells.
BLOCK = 16

#: Cells beside each other that are found together, one bit each of a word.
CELLS = 64

#: From a class's values of a row to those of the next: the corners of the cells, and what vectors read beyond.
PITCH = CELLS + LANES

#: In a float32, all but the sign; and the least of these bits that are no number.
MAGNITUDE, INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)


@inlined
def _hold(logits: Any, row: int, left: int, held: Any, start: int) -> Any:
    """Copies a row's corners of some cells, as bits, and returns the largest amount among them, as bits.

    Lines of a map lie a power of two apart, where the caches would have them push each other out.
    """
    classes, _, width = logits.shape
    # bfloat16 is the upper half of a float32.
    shift = np.uint32(8 * (4 - logits.itemsize))
    corners = min(CELLS + 1, width - left)
    most = np.int32(0)
    for c in range(classes):
        line, into = logits[c, row, left : left + corners], held[start + c * PITCH : start + c * PITCH + CELLS + 1]
        for j in range(corners):
            value = np.int32(np.uint32(line[j]) << shift)
            into[j] = value
            most = max(most, np.int32(value & MAGNITUDE))
        # Behind the last value it takes its own place.
        for j in range(corners, CELLS + 1):
            into[j] = into[corners - 1]
    return most


@jit
def argmax_rows(
    logits: Any,
    skipped: int,
    upper: Any,
    above: Any,
    below: Any,
    starts: Any,
    before: Any,
    behind: Any,
    labels: Any,
    first: int,
    last: int,
) -> bool:
    """Finds the labels of some rows.

    A cell is what lies between four neighbouring values. Within it a class stays between the smallest and the largest
    of its four values, so that only those classes are interpolated whose largest reaches the smallest of all others.

    Args:
        logits: float32 or bfloat16 as the int32 or uint16 that they are in memory, (classes, rows held, w).
        skipped: which row of the features the first of them is.
        upper: of each row of labels, the row of the features above it, int32, (H,).
        above: its weight, float32, (H,).
        below: the weight of the row below it, (H,).
        starts: first column of labels in each column of cells, int32, (w + 1,).
        before: of each column of labels, the weight of the column of features to its left, (W + LANES,).
        behind: the weight of the column to its right, (W + LANES,).
        labels: integers, (H, W), to be filled.
        first: first row to fill.
        last: row behind the last.

    Returns:
        Whether all logits were finite; the labels are of no use otherwise.
    """
    classes, rows, width = logits.shape
    # Two rows of corners, one after the other.
    bits = np.zeros(2 * classes * PITCH, np.int32)
    held = bits.view(np.float32)
    reached = np.empty(classes, np.uint64)
    sole = np.empty(CELLS, np.float32)
    rivals = np.empty(CELLS * classes, np.int32)
    count = np.empty(CELLS, np.int64)
    tops = np.empty(classes * LANES, np.float32)
    bottoms = np.empty(classes * LANES, np.float32)
    most = np.empty(2, np.int32)
    lines = np.empty(BLOCK * (labels.shape[1] + LANES), labels.dtype)
    base = np.empty(labels.shape[1] + LANES, labels.dtype)
    for left in range(0, width, CELLS):
        cells = min(CELLS, width - left)
        begin, columns = starts[left], starts[left + cells] - starts[left]
        if columns == 0:
            continue
        pitch = columns + LANES
        # Which of the two is the upper row, and what is held in each.
        top, high_row, low_row = 0, -1, -1
        y = first
        while y < last:
            end = y + 1
            while end < min(last, y + BLOCK) and upper[end] == upper[y]:
                end += 1
            i = upper[y] - skipped
            k = min(i + 1, rows - 1)
            if low_row == i:
                top, high_row, low_row = 1 - top, low_row, high_row
            over, under = top * classes * PITCH, (1 - top) * classes * PITCH
            if high_row != i:
                most[top] = _hold(logits, i, left, bits, over)
                high_row = i
            if low_row != k:
                most[1 - top] = _hold(logits, k, left, bits, under)
                low_row = k
            largest = np.int32(max(most[0], most[1]))
            if largest >= INFINITE:
                return False
            # An interpolated value is off by at most four roundings.
            slack = largest.view(np.float32) * np.float32(-(2.0**-20))
            once, several = np.uint64(0), np.uint64(0)
            for c in range(classes):
                reached[c] = 0
            for x in range(0, cells, LANES):
                floor = lowest(held, over + x, under + x)
                for c in range(1, classes):
                    floor = larger(lowest(held, over + c * PITCH + x, under + c * PITCH + x), floor)
                floor = plus(floor, slack, filled(np.float32(1)))
                alone = filled(np.float32(0))
                for c in range(classes):
                    peak = highest(held, over + c * PITCH + x, under + c * PITCH + x)
                    alone = chosen(peak, floor, filled(np.float32(c)), alone)
                    word = reaching(peak, floor) << np.uint64(x)
                    reached[c] |= word
                    several |= once & word
                    once |= word
                put_lanes(alone, sole, x)
            if cells < CELLS:
                several &= (np.uint64(1) << np.uint64(cells)) - np.uint64(1)
            # A class that reaches a cell alone has won it. What is written beyond its end, the next cell overwrites.
            for j in range(cells):
                for x in range(starts[left + j], starts[left + j + 1], LANES):
                    put_class(np.int64(sole[j]), base, x - begin)
            for row in range(end - y):
                line = lines[row * pitch : row * pitch + columns]
                for x in range(columns):
                    line[x] = base[x]
            if several:
                for j in range(cells):
                    count[j] = 0
                for c in range(classes):
                    word = reached[c] & several
                    while word:
                        j = bits_below(word)
                        rivals[j * classes + count[j]] = c
                        count[j] += 1
                        word &= word - np.uint64(1)
            while several:
                j = bits_below(several)
                several &= several - np.uint64(1)
                those = rivals[j * classes : (j + 1) * classes]
                stop = starts[left + j + 1]
                for x in range(starts[left + j], stop, LANES):
                    for n in range(count[j]):
                        a = over + those[n] * PITCH + j
                        b = under + those[n] * PITCH + j
                        put_lanes(between(held[a], held[a + 1], before, behind, x), tops, n * LANES)
                        put_lanes(between(held[b], held[b + 1], before, behind, x), bottoms, n * LANES)
                    for row in range(end - y):
                        u, v = above[y + row], below[y + row]
                        best = mixed(lanes_at(tops, 0), lanes_at(bottoms, 0), u, v)
                        found = filled(np.float32(those[0]))
                        for n in range(1, count[j]):
                            value = mixed(lanes_at(tops, n * LANES), lanes_at(bottoms, n * LANES), u, v)
                            # Of equal values the first class keeps its place.
                            found = chosen(best, value, found, filled(np.float32(those[n])))
                            best = larger(value, best)
                        put_classes(found, lines, row * pitch + x - begin, stop - x)
            for row in range(end - y):
                line, into = lines[row * pitch : row * pitch + columns], labels[y + row, begin : begin + columns]
                for x in range(columns):
                    into[x] = line[x]
            y = end
    return True
