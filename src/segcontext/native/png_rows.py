"""The rows of PNG files of 8 bits, told from what they are stored as."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.native.jit import inlined, jit

__all__ = ["undo_filters"]

Bytes: TypeAlias = npt.NDArray[np.uint8]

#: Pixels that are looked at together.
BLOCK = 16


@jit
def undo_filters(stored: Bytes, step: int, rows: Bytes) -> bool:
    """Adds to each byte what its row's filter predicts of it (PNG, 3rd edition, section 9).

    Args:
        stored: (H, 1 + N): a row's filter, then how far its bytes are from what it predicts.
        step: bytes of a pixel, 1 or 3, by which N can be divided.
        rows: (H, N), written to.

    Returns:
        Whether every filter is one of the five.
    """
    length = rows.shape[1]
    above = np.zeros(length, np.uint8)
    for row in range(len(rows)):
        kind, source, target = stored[row, 0], stored[row, 1:], rows[row]
        if kind == 0:
            for index in range(length):
                target[index] = source[index]
        elif kind == 1:
            for channel in range(step):
                left = np.uint8(0)
                for index in range(channel, length, step):
                    left = np.uint8(left + source[index])
                    target[index] = left
        elif kind == 2:
            for index in range(length):
                target[index] = np.uint8(source[index] + above[index])
        elif kind == 3:
            for channel in range(step):
                before = np.int32(0)
                for index in range(channel, length, step):
                    mean = (before + np.int32(above[index])) >> np.int32(1)
                    before = (np.int32(source[index]) + mean) & np.int32(255)
                    target[index] = np.uint8(before)
        elif kind == 4:
            if step == 3:
                _undo_paeth_of_three(source, above, target)
            else:
                _undo_paeth_of_one(source, above, target)
        else:
            return False
        above = target
    return True


@inlined
def _undo_paeth_of_one(source: Bytes, above: Bytes, target: Bytes) -> None:
    """Undoes the filter that predicts by the closest neighbour, where a pixel is one byte."""
    length = len(source)
    left, corner = np.int32(0), np.int32(0)
    begin = 0
    while begin < length:
        end = min(begin + BLOCK, length)
        # Where the pixel behind equals the one above it, a stretch that is as predicted is a copy of the row above:
        # most of a mask.
        if left == corner and end == begin + BLOCK:
            # Slices of their own, since compilers make vectors of loops that start at 0.
            part = source[begin:]
            apart = np.uint8(0)
            for index in range(BLOCK):
                apart |= part[index]
            if apart == 0:
                copied, copy = above[begin:], target[begin:]
                for index in range(BLOCK):
                    copy[index] = copied[index]
                begin = end
                left = corner = np.int32(above[begin - 1])
                continue
        for index in range(begin, end):
            over = np.int32(above[index])
            left = (_closest(left, over, corner) + np.int32(source[index])) & np.int32(255)
            target[index] = np.uint8(left)
            corner = over
        begin = end


@inlined
def _undo_paeth_of_three(source: Bytes, above: Bytes, target: Bytes) -> None:
    """Undoes it where a pixel is three bytes, whose sums do not wait for each other."""
    left = left_1 = left_2 = corner = corner_1 = corner_2 = np.int32(0)
    for index in range(0, len(source) - 2, 3):
        over, over_1, over_2 = np.int32(above[index]), np.int32(above[index + 1]), np.int32(above[index + 2])
        left = (_closest(left, over, corner) + np.int32(source[index])) & np.int32(255)
        left_1 = (_closest(left_1, over_1, corner_1) + np.int32(source[index + 1])) & np.int32(255)
        left_2 = (_closest(left_2, over_2, corner_2) + np.int32(source[index + 2])) & np.int32(255)
        target[index], target[index + 1], target[index + 2] = np.uint8(left), np.uint8(left_1), np.uint8(left_2)
        corner, corner_1, corner_2 = over, over_1, over_2


@inlined
def _closest(left: np.int32, over: np.int32, corner: np.int32) -> np.int32:
    """Which of the three is closest to left + over - corner; the first of equals."""
    to_left, to_over = abs(over - corner), abs(left - corner)
    to_corner = abs(left + over - corner - corner)
    second = over if to_over <= to_corner else corner
    return left if to_left <= min(to_over, to_corner) else second
