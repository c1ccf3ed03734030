"""Boundary pixels of all classes, and the distance of each to the nearest one of its class in another map."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.bits import bits_above, bits_below
from segcontext.native.jit import inlined, jit

__all__ = ["boundary_rows", "group", "match_classes"]


@inlined
def _append(found: Any, n: int, counts: Any, label: int, place: int, wanted: bool) -> int:
    found[n, 0] = label
    found[n, 1] = place
    counts[label + 1] += wanted
    return n + wanted


@jit
def boundary_rows(labels: Any, first: int, last: int, counts: Any) -> Any:
    """Lists the boundary pixels of some rows, as `segcontext.metrics.boundary_points` defines them.

    Args:
        labels: int32, (H, W); negative where no mask is.
        first: first row.
        last: row behind the last.
        counts: int64, (1 + classes,); pixels of each class are added to it.

    Returns:
        int32, (n, 2): the class of each boundary pixel and its place, y · 2¹⁶ + x, row by row.
    """
    height, width = labels.shape
    found = np.empty((1024, 2), np.int32)
    n = 0
    changes = np.zeros(width + 8, np.uint8)
    words = changes[: (width + 7) // 8 * 8].view(np.uint64)
    for y in range(first, last):
        here, below = labels[y], labels[min(y + 1, height - 1)]
        for x in range(width - 1):
            changes[x] = (here[x] != here[x + 1]) | (here[x] != below[x]) | (here[x] != below[x + 1])
        changes[width - 1] = here[width - 1] != below[width - 1]
        for word in range(len(words)):
            changed = words[word]
            if changed == 0:
                continue
            if n + 32 > len(found):
                more = np.empty((2 * len(found), 2), np.int32)
                more[:n] = found[:n]
                found = more
            while changed != 0:
                x = 8 * word + (bits_below(changed) >> 3)
                changed &= changed - np.uint64(1)
                x1, place = min(x + 1, width - 1), (y << 16) | x
                own, right, under, across = here[x], here[x1], below[x], below[x1]
                # Written in any case and kept if wanted: there is no telling which way a branch would go.
                n = _append(found, n, counts, own, place, own >= 0)
                n = _append(found, n, counts, right, place, (right != own) & (right >= 0))
                n = _append(found, n, counts, under, place, (under != own) & (under != right) & (under >= 0))
                new = (across != own) & (across != right) & (across != under)
                n = _append(found, n, counts, across, place, new & (across >= 0))
    return found[:n]


@jit
def group(found: Any, starts: Any, places: Any) -> None:
    """Sorts boundary pixels by class; within a class they stay in their order.

    Args:
        found: int32, (n, 2), as from `boundary_rows`.
        starts: int64, (classes,): where the next pixel of each class goes; moved on.
        places: int32, to be filled.
    """
    for n in range(len(found)):
        label = found[n, 0]
        places[starts[label]] = found[n, 1]
        starts[label] += 1


@inlined
def _flip(plane: Any, places: Any, first: int, last: int, stride: int) -> None:
    """Sets the bits of some pixels, or takes them back."""
    for n in range(first, last):
        x = places[n] & 0xFFFF
        plane[(places[n] >> 16) * stride + 1 + (x >> 6)] ^= np.uint64(1) << np.uint64(x & 63)


@jit
def _beyond(plane: Any, at: int, step: int, count: int, distance: int, limit: int) -> int:
    """How far the nearest set bit is in the words to one side, where that is within the limit.

    Args:
        plane: the bits.
        at: the word that the pixel is in.
        step: 1 for those to the right, -1 for those to the left.
        count: how many there are on that side.
        distance: from the pixel to the nearest bit of the next word.
        limit: larger squared distances are of no interest.
    """
    for _ in range(count):
        at += step
        if distance * distance > limit:
            break
        if plane[at] != 0:
            return distance + int(bits_below(plane[at]) if step > 0 else bits_above(plane[at]))
        distance += 64
    return 0x40000000


@inlined
def _in_row(plane: Any, at: int, x: int, words: int, limit: int) -> int:
    """How far the nearest set bit of a row is from x, whose word is at `at`."""
    bit = np.uint64(x & 63)
    mirrored = np.uint64(63) - bit
    # Unsigned, for signed places are looked at whether they count from the end.
    here, one = np.uint64(at), np.uint64(1)
    after = (plane[here] >> bit) | ((plane[here + one] << one) << mirrored)
    before = (plane[here] << mirrored) | ((plane[here - one] >> one) >> bit)
    far: int = min(bits_below(after), bits_above(before))
    if far == 64 and limit >= 64 * 64:
        far = _beyond(plane, at, 1, words - 1 - (x >> 6), 64 - (x & 63), limit)
        far = min(far, _beyond(plane, at, -1, x >> 6, (x & 63) + 1, limit))
    return far


@inlined
def _nearest(plane: Any, height: int, words: int, y: int, x: int, limit: int) -> int:
    """The squared distance from a pixel to the nearest set bit, or limit + 1 where that is larger than the limit.

    Rows are visited by their distance. In each the word around x tells the nearest bit on either side at once.
    """
    # An empty word stands before each row and one behind it.
    stride = words + 2
    at = y * stride + 1 + (x >> 6)
    best = min(limit + 1, _in_row(plane, at, x, words, limit) ** 2)
    down = 1
    while down * down < best:
        if y >= down:
            best = min(best, _in_row(plane, at - down * stride, x, words, limit) ** 2 + down * down)
        if y + down < height:
            best = min(best, _in_row(plane, at + down * stride, x, words, limit) ** 2 + down * down)
        down += 1
    return best


@jit
def match_classes(
    starts: Any, places: Any, limits: Any, planes: Any, shape: Any, order: Any, first: int, last: int, matched: Any
) -> None:
    """Counts, for some classes, the boundary pixels that have one of the other map nearby.

    Args:
        starts: where each class's places begin in either map, int64, (2, classes + 1).
        places: y · 2¹⁶ + x of the boundary pixels of either map, by class, int32, two arrays (n,).
        limits: the largest squared distances that count, int64, (slacks,).
        planes: a bit for each pixel, none of them set, uint64, (2, H · (words of a row + 2) + 2).
        shape: H and W.
        order: classes, int64.
        first: first of them, as a position in `order`.
        last: position behind the last.
        matched: int64, (2, slacks, classes), to be filled for these classes.
    """
    height, width = shape
    words = (width + 63) // 64
    limit = limits.max()
    counts = np.empty(len(limits), np.int64)
    for position in range(first, last):
        label = order[position]
        for side in range(2):
            _flip(planes[side], places[side], starts[side, label], starts[side, label + 1], words + 2)
        for side in range(2):
            own, plane = places[side], planes[1 - side]
            counts[:] = 0
            for n in range(starts[side, label], starts[side, label + 1]):
                near = _nearest(plane, height, words, own[n] >> 16, own[n] & 0xFFFF, limit)
                for slack in range(len(limits)):
                    counts[slack] += near <= limits[slack]
            matched[side, :, label] = counts
        for side in range(2):
            _flip(planes[side], places[side], starts[side, label], starts[side, label + 1], words + 2)
