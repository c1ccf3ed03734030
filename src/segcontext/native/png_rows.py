"""The rows of PNG files of 8 bits, told from what they are stored as."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.native.jit import inlined, jit

__all__ = ["undo_filters"]

Bytes: TypeAlias = npt.NDArray[np.uint8]

#: Pixels that are looked at together.
BLOCK = 32


@jit
def undo_filters(stored: Bytes, step: int, rows: Bytes) -> bool:
    """Adds to each byte what its row's filter predicts of it (PNG, 3rd edition, section 9).

    Args:
        stored: (H, 1 + N): a row's filter, then how far its bytes are from what it predicts.
        step: bytes of a pixel, by which N can be divided.
        rows: (H, N), written to.

    Returns:
        Whether every filter is one of the five.
    """
    length = rows.shape[1]
    above = np.zeros(length, np.uint8)
    for row in range(len(rows)):
        kind, source, target = stored[row, 0], stored[row, 1:], rows[row]
        if kind == 0:
            target[:] = source
        elif kind == 1:
            target[:step] = source[:step]
            for index in range(step, length):
                target[index] = np.uint8(source[index] + target[index - step])
        elif kind == 2:
            for index in range(length):
                target[index] = np.uint8(source[index] + above[index])
        elif kind == 3:
            for index in range(step):
                target[index] = np.uint8(source[index] + (above[index] >> 1))
            for index in range(step, length):
                mean = (np.int32(target[index - step]) + np.int32(above[index])) >> 1
                target[index] = np.uint8(np.int32(source[index]) + mean)
        elif kind == 4:
            _undo_paeth(source, step, above, target)
        else:
            return False
        above = target
    return True


@inlined
def _undo_paeth(source: Bytes, step: int, above: Bytes, target: Bytes) -> None:
    """Undoes the filter that predicts the neighbour which is closest to left + above - above left."""
    length = len(source)
    for index in range(step):
        target[index] = np.uint8(source[index] + above[index])
    begin = step
    while begin < length:
        end = min(begin + BLOCK, length)
        # Where the pixel behind equals the one above it, a stretch that is as predicted is a copy of the row above:
        # most of a mask.
        if step == 1 and target[begin - 1] == above[begin - 1] and end == begin + BLOCK:
            apart = np.uint8(0)
            for index in range(BLOCK):
                apart |= source[begin + index]
            if apart == 0:
                for index in range(BLOCK):
                    target[begin + index] = above[begin + index]
                begin = end
                continue
        for index in range(begin, end):
            left, over, corner = np.int32(target[index - step]), np.int32(above[index]), np.int32(above[index - step])
            # How far the prediction is from each of the three.
            to_left, to_over = abs(over - corner), abs(left - corner)
            to_corner = abs(left + over - 2 * corner)
            second = over if to_over <= to_corner else corner
            guess = left if to_left <= min(to_over, to_corner) else second
            target[index] = np.uint8(guess + np.int32(source[index]))
        begin = end
