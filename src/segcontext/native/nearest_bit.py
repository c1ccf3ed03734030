"""The distance from a pixel to the nearest set bit of a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.bits import bits_above, bits_below
from segcontext.native.jit import inlined, jit

__all__ = ["nearest"]


@jit
def _beyond(plane: Any, at: int, step: int, count: int, distance: int, limit: int) -> int:
    """How far the nearest set bit is in the words to one side, where that is within the limit.

    Args:
        plane: the bits.
        at: the word that the pixel is in.
        step: from a word to the next, above 0 for those to the right, below for those to the left.
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
def _in_row(plane: Any, at: int, x: int, words: int, stride: int, limit: int) -> int:
    """How far the nearest set bit of a row is from x, whose word is at `at`."""
    bit = np.uint64(x & 63)
    mirrored = np.uint64(63) - bit
    one = np.uint64(1)
    after = (plane[at] >> bit) | ((plane[at + stride] << one) << mirrored)
    before = (plane[at] << mirrored) | ((plane[at - stride] >> one) >> bit)
    far: int = min(bits_below(after), bits_above(before))
    if far == 64 and limit >= 64 * 64:
        far = _beyond(plane, at, stride, words - 1 - (x >> 6), 64 - (x & 63), limit)
        far = min(far, _beyond(plane, at, -stride, x >> 6, (x & 63) + 1, limit))
    return far


@jit
def nearest(plane: Any, shape: Any, layout: Any, y: int, x: int, limit: int) -> int:
    """The squared distance from a pixel to the nearest set bit, or limit + 1 where that is larger than the limit.

    Rows are visited by their distance. In each the word around x tells the nearest bit on either side at once.

    Args:
        plane: the bits, uint64, flat; an empty word stands before each row and one behind it.
        shape: H and W.
        layout: where pixel (0, 0) lies, and how far it is from a word to that of the next 64 columns.
        y: the pixel's row.
        x: the pixel's column.
        limit: larger squared distances are of no interest.
    """
    height, width = shape
    begin, stride = layout
    words = (width + 63) // 64
    at = begin + (x >> 6) * stride + y
    best = min(limit + 1, _in_row(plane, at, x, words, stride, limit) ** 2)
    down = 1
    while down * down < best:
        if y >= down:
            best = min(best, _in_row(plane, at - down, x, words, stride, limit) ** 2 + down * down)
        if y + down < height:
            best = min(best, _in_row(plane, at + down, x, words, stride, limit) ** 2 + down * down)
        down += 1
    return best
