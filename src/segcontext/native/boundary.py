"""Boundary pixels of all classes, and the distance of each to the nearest one of its class in another map."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.bits import bits_above, bits_below
from segcontext.native.jit import inlined, jit

__all__ = ["boundary_rows", "group", "match_classes"]


@jit
def boundary_rows(labels: Any, first: int, last: int, counts: Any) -> Any:
    """Lists the boundary pixels of some rows, as `segcontext.metrics.boundary_points` defines them.

    Args:
        labels: int32, (H, W); negative where no mask is.
        first: first row.
        last: row behind the last.
        counts: int64, (classes,); pixels of each class are added to it.

    Returns:
        int32, (n, 2): the class of each boundary pixel and its place y · W + x, row by row.
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
            if words[word] == 0:
                continue
            for x in range(8 * word, min(8 * word + 8, width)):
                if changes[x] == 0:
                    continue
                if n + 4 > len(found):
                    more = np.empty((2 * len(found), 2), np.int32)
                    more[:n] = found[:n]
                    found = more
                own, under = here[x], below[x]
                right, across = (here[x + 1], below[x + 1]) if x + 1 < width else (own, own)
                if y + 1 == height:
                    under, across = own, own
                place = y * width + x
                for turn in range(4):
                    label = own
                    if turn == 1:
                        label = right
                        if right == own:
                            continue
                    elif turn == 2:
                        label = under
                        if under == own or under == right:
                            continue
                    elif turn == 3:
                        label = across
                        if across == own or across == right or across == under:
                            continue
                    if label < 0:
                        continue
                    found[n, 0] = label
                    found[n, 1] = place
                    counts[label] += 1
                    n += 1
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
def _flip(plane: Any, places: Any, first: int, last: int, width: int) -> None:
    """Sets the bits of some pixels, or takes them back."""
    words = (width + 63) // 64
    for n in range(first, last):
        y = places[n] // width
        x = places[n] - y * width
        plane[y * (words + 2) + 1 + (x >> 6)] ^= np.uint64(1) << np.uint64(x & 63)


@jit
def _beyond(plane: Any, at: int, step: int, count: int, distance: int, best: int) -> int:
    """How far the nearest set bit is in the words to one side, where that may be less than the best so far.

    Args:
        plane: the bits.
        at: the word that the pixel is in.
        step: 1 for those to the right, -1 for those to the left.
        count: how many there are on that side.
        distance: from the pixel to the nearest bit of the next word.
        best: squared distances from here on are of no interest.
    """
    for _ in range(count):
        at += step
        if distance * distance >= best:
            break
        if plane[at] != 0:
            return distance + (bits_below(plane[at]) if step > 0 else bits_above(plane[at]))
        distance += 64
    return 0x40000000


@inlined
def _nearest(plane: Any, height: int, words: int, y: int, x: int, limit: int) -> int:
    """The squared distance from a pixel to the nearest set bit, or limit + 1 where that is larger than the limit.

    Rows are visited by their distance. In each the word around x tells the nearest bit on either side at once.
    """
    best = limit + 1
    bit = np.uint64(x & 63)
    mirrored = np.uint64(63) - bit
    one = np.uint64(1)
    for down in range(height):
        if down * down >= best:
            break
        for row in range(y - down, y + down + 1, max(1, 2 * down)):
            if row < 0 or row >= height:
                continue
            # An empty word stands before each row and one behind it.
            at = row * (words + 2) + 1 + (x >> 6)
            after = (plane[at] >> bit) | ((plane[at + 1] << one) << mirrored)
            before = (plane[at] << mirrored) | ((plane[at - 1] >> one) >> bit)
            far = min(bits_below(after), bits_above(before))
            if far == 64 and limit >= 64 * 64:
                right = _beyond(plane, at, 1, words - 1 - (x >> 6), 64 - (x & 63), best - down * down)
                far = min(right, _beyond(plane, at, -1, x >> 6, (x & 63) + 1, best - down * down))
            best = min(best, far * far + down * down)
    return best


@jit
def match_classes(
    starts: Any, places: Any, limits: Any, planes: Any, shape: Any, order: Any, first: int, last: int, matched: Any
) -> None:
    """Counts, for some classes, the boundary pixels that have one of the other map nearby.

    Args:
        starts: where each class's places begin in either map, int64, (2, classes + 1).
        places: y · W + x of the boundary pixels of either map, by class, int32, two arrays (n,).
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
    for position in range(first, last):
        label = order[position]
        for side in range(2):
            _flip(planes[side], places[side], starts[side, label], starts[side, label + 1], width)
        for side in range(2):
            own, plane = places[side], planes[1 - side]
            for n in range(starts[side, label], starts[side, label + 1]):
                y = own[n] // width
                near = _nearest(plane, height, words, y, own[n] - y * width, limit)
                for slack in range(len(limits)):
                    matched[side, slack, label] += near <= limits[slack]
        for side in range(2):
            _flip(planes[side], places[side], starts[side, label], starts[side, label + 1], width)
