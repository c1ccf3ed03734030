"""Depthwise 3×3 convolutions of stride 2, a plane at a time, forward and back; imports numba.

A plane lies in a frame of zeros, one wide above and to the left and up to two below and to the right: what the kernel
reads there needs no exception, and row and column n of the result have their kernel at 2n of the frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.jit import jit
from segcontext.native.pixel_rows import move_rows

__all__ = ["halve", "halve_planes", "kernel_sums", "turn_back", "turn_back_planes"]

#: Unsigned, or numba would look at each index whether it counts from the end, and no loop over every second column
#: would be made into vectors.
ONE, TWO = np.uint64(1), np.uint64(2)


@jit
def halve(source: Any, kernel: Any, shift: Any, least: Any, out: Any, rows: int, columns: int) -> None:
    """The convolution of a plane.

    Args:
        source: the plane in its frame.
        kernel: (9,).
        shift: is added.
        least: what is smaller becomes this: 0 for a ReLU.
        out: receives the result, at row and column 1.
        rows: of the result.
        columns: of the result.
    """
    halves = np.empty((3, 2, columns + 1), np.float32)
    _part(source[0], halves[0])
    for row in range(rows):
        for following in (2 * row + 1, 2 * row + 2):
            _part(source[following], halves[following % 3])
        above, middle, below = halves[2 * row % 3], halves[(2 * row + 1) % 3], halves[(2 * row + 2) % 3]
        into = out[1 + row, 1:]
        for column in range(columns):
            found = shift + kernel[0] * above[0, column] + kernel[1] * above[1, column]
            found += kernel[2] * above[0, column + 1] + kernel[3] * middle[0, column] + kernel[4] * middle[1, column]
            found += kernel[5] * middle[0, column + 1] + kernel[6] * below[0, column] + kernel[7] * below[1, column]
            found += kernel[8] * below[0, column + 1]
            into[column] = least if found < least else found


@jit
def _part(row: Any, halves: Any) -> None:
    """Parts the columns of a row into even and odd ones: the loops over these are made into vectors."""
    evens, odds = halves[0], halves[1]
    for column in range(np.uint64(evens.size)):
        evens[column] = row[TWO * column]
        odds[column] = row[TWO * column + ONE]


@jit
def turn_back(slope: Any, kernel: Any, out: Any, rows: int, columns: int) -> None:
    """Adds the gradient of the plane.

    Args:
        slope: the gradient of the result, at row and column 1 of a frame of zeros.
        kernel: (9,).
        out: the plane's frame; what is added outside the plane means nothing.
        rows: of the result.
        columns: of the result.
    """
    for row in range(rows + 1):
        upper, lower, even, odd = slope[row], slope[1 + row], out[2 * row], out[2 * row + 1]
        for column in range(np.uint64(columns + 1)):
            at = TWO * column
            left, right, lower_left, lower_right = (
                upper[column],
                upper[column + ONE],
                lower[column],
                lower[column + ONE],
            )
            even[at] += kernel[0] * lower_right + kernel[2] * lower_left + (kernel[6] * right + kernel[8] * left)
            even[at + ONE] += kernel[1] * lower_right + kernel[7] * right
        for column in range(np.uint64(columns + 1)):
            at = TWO * column
            lower_left, lower_right = lower[column], lower[column + ONE]
            odd[at] += kernel[3] * lower_right + kernel[5] * lower_left
            odd[at + ONE] += kernel[4] * lower_right


@jit
def kernel_sums(source: Any, slope: Any, sums: Any, rows: int, columns: int) -> None:
    """Adds the gradients of the kernel and of the shift.

    Args:
        source: the plane in its frame.
        slope: as for `turn_back`.
        sums: float64, (10,), the kernel's nine and the shift's.
        rows: of the result.
        columns: of the result.
    """
    halves = np.empty((3, 2, columns + 1), np.float32)
    _part(source[0], halves[0])
    for row in range(rows):
        for following in (2 * row + 1, 2 * row + 2):
            _part(source[following], halves[following % 3])
        above, middle, below = halves[2 * row % 3], halves[(2 * row + 1) % 3], halves[(2 * row + 2) % 3]
        own = slope[1 + row, 1:]
        a = b = c = d = e = f = g = h = i = total = np.float32(0)
        for column in range(columns):
            value = own[column]
            a += value * above[0, column]
            b += value * above[1, column]
            c += value * above[0, column + 1]
            d += value * middle[0, column]
            e += value * middle[1, column]
            f += value * middle[0, column + 1]
            g += value * below[0, column]
            h += value * below[1, column]
            i += value * below[0, column + 1]
            total += value
        for place, found in enumerate((a, b, c, d, e, f, g, h, i, total)):
            sums[place] += found


@jit
def halve_planes(features: Any, out: Any, kernels: Any, shifts: Any, extent: Any, width: Any, span: Any) -> None:
    """The convolution of some planes.

    Args:
        features: for each plane its address, and then the steps in bytes to the next row and the next column.
        out: of the result; is written.
        kernels: (C, 9).
        shifts: (C,).
        extent: rows and columns of a plane, rows and columns of a result, and the padding, 0 or 1.
        width: a tuple as long as one float of the maps has bytes.
        span: the first plane and the plane behind the last.
    """
    rows, columns, high, wide, padding = extent
    plane, small = np.zeros((rows + 3, columns + 3), np.float32), np.empty((high + 2, wide + 2), np.float32)
    near = (plane[padding, padding:].ctypes.data, 4 * plane.shape[1], 0, 4, (0, 0, 0, 0))
    near_small = (small[1, 1:].ctypes.data, 4 * small.shape[1], 0, 4, (0, 0, 0, 0))
    for number in range(span[0], span[1]):
        channel = number % len(shifts)
        move_rows((features[0][number], features[1], 0, features[2], width), near, rows, 1, columns)
        halve(plane, kernels[channel], shifts[channel], np.float32(-np.inf), small, high, wide)
        move_rows(near_small, (out[0][number], out[1], 0, out[2], width), high, 1, wide)


@jit
def turn_back_planes(
    features: Any, gradient: Any, out: Any, adds: bool, kernels: Any, sums: Any, extent: Any, width: Any, span: Any
) -> None:
    """Gradients of `halve_planes`, from that of its result.

    Args:
        features: as there.
        gradient: of the result, likewise.
        out: the gradient of the features; is written.
        adds: whether it is added to what `out` holds.
        kernels: as there.
        sums: float64, (planes, 10), zeros; receives each plane's part of the gradients of kernel and shift.
        extent: as there.
        width: as there.
        span: as there.
    """
    rows, columns, high, wide, padding = extent
    plane, slope = np.zeros((rows + 3, columns + 3), np.float32), np.zeros((high + 2, wide + 2), np.float32)
    found = np.zeros(plane.shape, np.float32)
    near = (plane[padding, padding:].ctypes.data, 4 * plane.shape[1], 0, 4, (0, 0, 0, 0))
    near_slope = (slope[1, 1:].ctypes.data, 4 * slope.shape[1], 0, 4, (0, 0, 0, 0))
    near_found = (found[padding, padding:].ctypes.data, 4 * plane.shape[1], 0, 4, (0, 0, 0, 0))
    for number in range(span[0], span[1]):
        kernel, place = kernels[number % len(kernels)], (out[0][number], out[1], 0, out[2], width)
        move_rows((features[0][number], features[1], 0, features[2], width), near, rows, 1, columns)
        move_rows((gradient[0][number], gradient[1], 0, gradient[2], width), near_slope, high, 1, wide)
        if adds:
            move_rows(place, near_found, rows, 1, columns)
        else:
            found[:] = 0
        kernel_sums(plane, slope, sums[number], high, wide)
        turn_back(slope, kernel, found, high, wide)
        move_rows(near_found, place, rows, 1, columns)
