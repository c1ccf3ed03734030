"""Boundary pixels of all classes of a label map, 64 pixels of a row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.bits import bits_below, bits_set, where_equal, where_unlike
from segcontext.native.jit import inlined, jit

__all__ = ["boundary_words", "group"]


@inlined
def _read(row: Any, line: Any) -> None:
    """Copies a row; beyond its end a line repeats the last pixel, which is then its own neighbour."""
    width = len(row)
    for x in range(width):
        line[x] = row[x]
    line[width:] = line[width - 1]


@inlined
def _one_of(
    here: Any, below: Any, x: int, own: np.uint64, right: np.uint64, under: np.uint64, across: np.uint64
) -> Any:
    """The label of one of the pixels whose bits are set: x + n, its right, lower or lower-right neighbour."""
    if own != 0:
        return here[x + bits_below(own)]
    if under != 0:
        return below[x + bits_below(under)]
    if right != 0:
        return here[x + 1 + bits_below(right)]
    return below[x + 1 + bits_below(across)]


@jit
def boundary_words(labels: Any, first: int, last: int, lines: Any, nothing: Any, layout: Any, counts: Any) -> Any:
    """Lists the boundary pixels of some rows, as `segcontext.metrics.boundary_points` defines them.

    Args:
        labels: int32, (H, W); -1 where no mask is.
        first: first row.
        last: row behind the last.
        lines: room for two rows and 64 to 127 pixels more, up to a multiple of 64; of a type in which -1 is no class:
            (2, W + more).
        nothing: what -1 is there.
        layout: where pixel (0, 0) lies in a plane of bits, and how far it is from a word to that of the next 64
            columns.
        counts: int64, (2, classes); how many words and how many pixels each class has are added to it.

    Returns:
        uint64, (n, 3): of each class and 64 pixels where it has a boundary the class, the word's place in the plane
        and the word, row by row.
    """
    height, width = labels.shape
    begin, stride = layout
    found = np.empty((1024, 3), np.uint64)
    n = 0
    _read(labels[first], lines[0])
    for y in range(first, last):
        here, below = lines[(y - first) & 1], lines[(y - first + 1) & 1]
        _read(labels[min(y + 1, height - 1)], below)
        for word in range(lines.shape[1] // 64 - 1):
            x = 64 * word
            changed = where_unlike(here, x, here, x + 1)
            changed |= where_unlike(here, x, below, x) | where_unlike(here, x, below, x + 1)
            # No pixel beyond the last column.
            changed &= ~np.uint64(0) >> np.uint64(max(0, x + 64 - width))
            if changed == 0:
                continue
            if n + 256 > len(found):
                more = np.empty((2 * len(found), 3), np.uint64)
                more[:n] = found[:n]
                found = more
            own, right, under, across = changed, changed, changed, changed
            while own | right | under | across != 0:
                label = _one_of(here, below, x, own, right, under, across)
                owns, rights = where_equal(here, x, label), where_equal(here, x + 1, label)
                unders, acrosses = where_equal(below, x, label), where_equal(below, x + 1, label)
                own, right, under, across = own & ~owns, right & ~rights, under & ~unders, across & ~acrosses
                edge = ((owns ^ rights) | (owns ^ unders) | (owns ^ acrosses)) & changed
                # Written in any case and kept if it is a class: there is no telling which way a branch would go.
                inside = label != nothing
                found[n, 0] = label
                found[n, 1] = begin + word * stride + y
                found[n, 2] = edge
                counts[0, label * inside] += inside
                counts[1, label * inside] += bits_set(edge) * inside
                n += inside
    return found[:n]


@jit
def group(found: Any, starts: Any, words: Any) -> None:
    """Sorts words by class; within a class they stay in their order.

    Args:
        found: uint64, (n, 3), as from `boundary_words`.
        starts: int64, (classes,): where the next word of each class goes; moved on.
        words: uint64, (all, 2), to be filled with places and words.
    """
    for n in range(len(found)):
        label = np.int64(found[n, 0])
        words[starts[label], 0] = found[n, 1]
        words[starts[label], 1] = found[n, 2]
        starts[label] += 1
