"""The argmax of bilinearly resized logits, without the resized logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.jit import inlined, jit
from segcontext.native.lanes import LANES, between, contend

__all__ = ["BLOCK", "argmax_rows"]

#: Rows of labels that are found together, at most; they share their cells.
BLOCK = 16


@inlined
def _run(line: Any, words: Any, other: Any, others: Any, j: int) -> tuple[int, int]:
    """The next cells from j on that are set in two lines, their first and the one behind their last."""
    end = 8 * len(words)
    while j < end:
        if words[j >> 3] & others[j >> 3] == 0:
            j = (j | 7) + 1
        elif line[j] & other[j]:
            break
        else:
            j += 1
    stop = j
    while stop < end and line[stop] & other[stop]:
        stop += 1
    return j, stop


@jit
def argmax_rows(
    logits: Any,
    held: int,
    slack: Any,
    upper: Any,
    above: Any,
    below: Any,
    starts: Any,
    before: Any,
    behind: Any,
    labels: Any,
    first: int,
    last: int,
) -> None:
    """Finds the labels of some rows.

    A cell is what lies between four neighbouring values. Within it a class stays between the smallest and the largest
    of its four values, so that only those classes are interpolated whose largest reaches the smallest of all others.

    Args:
        logits: float32, (classes, rows held, w), all finite.
        held: which row of the features the first of them is.
        slack: by how much rounding may carry an interpolated value beyond those that it lies between.
        upper: of each row of labels, the row of the features above it, int32, (H,).
        above: its weight, float32, (H,).
        below: the weight of the row below it, (H,).
        starts: first column of labels in each column of cells, int32, (w + 1,).
        before: of each column of labels, the weight of the column of features to its left, (W + LANES,).
        behind: the weight of the column to its right, (W + LANES,).
        labels: integers, (H, W), to be filled.
        first: first row to fill.
        last: row behind the last.
    """
    classes, rows, width = logits.shape
    columns = labels.shape[1]
    floor = np.empty(width, np.float32)
    reaches = np.zeros((classes + 1, (width // 8 + 1) * 8), np.uint8)
    words = reaches.view(np.uint64)
    # A class that reaches a cell alone has won it; the last line holds the cells that several reach.
    several = reaches[classes]
    count = np.empty(width, np.int32)
    sole = np.empty(width, np.int32)
    over = np.empty(columns + LANES, np.float32)
    under = np.empty(columns + LANES, np.float32)
    best = np.empty((BLOCK, columns + LANES), np.float32)
    found = np.empty((BLOCK, columns + LANES), np.int32)
    y = first
    while y < last:
        end = y + 1
        while end < min(last, y + BLOCK) and upper[end] == upper[y]:
            end += 1
        i = upper[y] - held
        k = min(i + 1, rows - 1)
        floor[:] = -np.inf
        for c in range(classes):
            a, b = logits[c, i], logits[c, k]
            for j in range(width - 1):
                floor[j] = max(floor[j], min(min(a[j], a[j + 1]), min(b[j], b[j + 1])))
            floor[width - 1] = max(floor[width - 1], min(a[width - 1], b[width - 1]))
        floor -= slack
        count[:] = 0
        for c in range(classes):
            a, b, line = logits[c, i], logits[c, k], reaches[c]
            for j in range(width - 1):
                reached = max(max(a[j], a[j + 1]), max(b[j], b[j + 1])) >= floor[j]
                line[j] = reached
                count[j] += reached
                sole[j] = c if reached else sole[j]
            reached = max(a[width - 1], b[width - 1]) >= floor[width - 1]
            line[width - 1] = reached
            count[width - 1] += reached
            sole[width - 1] = c if reached else sole[width - 1]
        for j in range(width):
            several[j] = count[j] > 1
            for x in range(starts[j], starts[j + 1]):
                labels[y, x] = sole[j]
        for row in range(y + 1, end):
            labels[row] = labels[y]
        j, stop = _run(several, words[classes], several, words[classes], 0)
        while j < stop:
            for row in range(end - y):
                best[row, starts[j] : starts[stop]] = -np.inf
            j, stop = _run(several, words[classes], several, words[classes], stop)
        for c in range(classes):
            a, b = logits[c, i], logits[c, k]
            j, stop = _run(reaches[c], words[c], several, words[classes], 0)
            while j < stop:
                for cell in range(j, stop):
                    right = min(cell + 1, width - 1)
                    for x in range(starts[cell], starts[cell + 1], LANES):
                        between(a[cell], a[right], before, behind, over, x)
                        between(b[cell], b[right], before, behind, under, x)
                for row in range(end - y):
                    u, v = above[y + row], below[y + row]
                    for x in range(starts[j], starts[stop], LANES):
                        contend(over, under, u, v, best[row], found[row], c, x, starts[stop])
                j, stop = _run(reaches[c], words[c], several, words[classes], stop)
        j, stop = _run(several, words[classes], several, words[classes], 0)
        while j < stop:
            for row in range(end - y):
                line, winners = labels[y + row], found[row]
                for x in range(starts[j], starts[stop]):
                    line[x] = winners[x]
            j, stop = _run(several, words[classes], several, words[classes], stop)
        y = end
