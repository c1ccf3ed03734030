"""Windows of scaled images and masks, in loops over the pixels that they need."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.native.jit import jit

__all__ = ["cut_labels", "mix"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Indices: TypeAlias = npt.NDArray[np.int64]


@jit
def mix(
    pixels: Bytes,
    left: int,
    width: int,
    first_rows: Indices,
    row_weights: npt.NDArray[np.uint32],
    first_columns: Indices,
    column_weights: npt.NDArray[np.uint64],
    first: int,
    last: int,
    canvas: Bytes,
    column: int,
) -> None:
    """Mixes rows and then columns of an RGB image, as `segcontext.data.resampling` says.

    The three channels of a pixel travel in one number of 64 bits, 21 each: that is enough for 10 bits of a mixed row
    times 11 bits of weight, and a third of the look-ups.

    Args:
        pixels: (H, 3·W), the channels of a pixel side by side.
        left: the first column that is looked at.
        width: how many are.
        first_rows: (h,), the first row that each row of the window is mixed of.
        row_weights: (h, k), k of at least 2, in 2048ths; the last ones may be 0 where there is no row any more.
        first_columns: (w,), likewise, counted from `left`.
        column_weights: (k, w), likewise.
        first: the first row of the window to make.
        last: the one behind the last.
        canvas: (3, at least `last`, at least `column` + w), written to.
        column: where the window begins in it.
    """
    taps, count = column_weights.shape
    sums = np.empty(3 * width, np.uint32)
    packed = np.zeros(width + 1, np.uint64)
    totals = np.empty(count, np.uint64)
    half = np.uint32(256)
    halves = np.uint64(4096 | 4096 << 21 | 4096 << 42)
    for row in range(first, last):
        top = first_rows[row]
        weight, other = np.uint32(row_weights[row, 0]), np.uint32(row_weights[row, 1])
        # Two at a time, because storing a sum takes as long as adding to it.
        upper, lower = pixels[top, 3 * left :], pixels[top + (1 if other else 0), 3 * left :]
        for index in range(3 * width):
            sums[index] = (
                np.uint32(weight * np.uint32(upper[index])) + np.uint32(other * np.uint32(lower[index])) + half
            )
        for tap in range(2, row_weights.shape[1]):
            weight = np.uint32(row_weights[row, tap])
            if weight:
                source = pixels[top + tap, 3 * left :]
                for index in range(3 * width):
                    sums[index] += np.uint32(weight * np.uint32(source[index]))
        for index in range(width):
            red, green, blue = sums[3 * index] >> 9, sums[3 * index + 1] >> 9, sums[3 * index + 2] >> 9
            packed[index] = np.uint64(red) | np.uint64(green) << np.uint64(21) | np.uint64(blue) << np.uint64(42)
        for index in range(count):
            place = first_columns[index]
            pair = column_weights[0, index] * packed[place] + column_weights[1, index] * packed[place + 1]
            totals[index] = halves + pair
        for tap in range(2, taps):
            for index in range(count):
                totals[index] += column_weights[tap, index] * packed[first_columns[index] + tap]
        for index in range(count):
            total = totals[index]
            canvas[0, row, column + index] = np.uint8(total >> np.uint64(13) & np.uint64(255))
            canvas[1, row, column + index] = np.uint8(total >> np.uint64(34) & np.uint64(255))
            canvas[2, row, column + index] = np.uint8(total >> np.uint64(55) & np.uint64(255))


@jit
def cut_labels(labels: Bytes, rows: Indices, columns: Indices, canvas: Bytes, column: int) -> None:
    """Looks up the labels of a window.

    Args:
        labels: (H, W).
        rows: (h,), the row that each row of the window shows.
        columns: (w,), likewise.
        canvas: (at least h, at least `column` + w), written to.
        column: where the window begins in it.
    """
    for row in range(len(rows)):
        target = canvas[row, column : column + len(columns)]
        # Where the mask is enlarged, rows repeat themselves.
        if row > 0 and rows[row] == rows[row - 1]:
            target[:] = canvas[row - 1, column : column + len(columns)]
        else:
            source = labels[rows[row]]
            for index in range(len(columns)):
                target[index] = source[columns[index]]
