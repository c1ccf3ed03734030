"""Blocks of neighbouring pixels and their windows, in maps without dilation; imports numba.

A map that is dilated by r falls into r² maps without dilation, which do not see each other. A kernel is handed some
rows of one phase, r apart, and goes through the r phases of the columns. Maps are float32, with the channels of a pixel
side by side: the address of the first pixel, and the steps in bytes to the next row of the phase and the next column.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.jit import inlined, jit
from segcontext.native.window_products import at_once, dots, mix, padded, prefetch

__all__ = ["NEAR", "ROWS", "fetch", "mixtures_of", "phase_of", "place_row", "products_of", "spread", "workspace"]

#: Rows that are worked on together, so that keys and values are brought near once for all of them.
ROWS = 2
#: Bytes of keys and values that should stay near while neighbouring rows are worked on.
NEAR = 2**19


def workspace(kernel_size: int, channels: int) -> tuple[Any, ...]:
    """What a call of a kernel works in; no two calls at once may share one.

    Args:
        kernel_size: k.
        channels: the most of any map, filled up to whole vectors.

    Returns:
        Addresses of pixels, two sets of products, values by pixel and position, zeros, and a place for what nobody
        wants.
    """
    products = np.zeros((2, ROWS, kernel_size, padded(kernel_size)), np.float32)
    addresses = np.zeros((1 + 3 * ROWS, at_once(kernel_size) + kernel_size - 1), np.int64)
    totals = np.zeros((2, padded(kernel_size)), np.float32)
    nothing, unwanted = np.zeros((2, channels), np.float32)
    return addresses, products, totals, nothing, unwanted


@jit
def place_row(table: Any, plane: Any, row: int, first: int, last: int, count: int, other: int) -> None:
    """Fills a table with the addresses of a row's pixels from the first on; those not in 0 … last - 1 are another."""
    start = plane[0] + row * plane[1]
    for place in range(count):
        column = first + place
        table[place] = start + column * plane[2] if 0 <= column < last else other


@jit
def fetch(plane: Any, first: int, last: int, begin: int, end: int, channels: int) -> None:
    """Has some columns of some rows of a map brought near."""
    for row in range(first, last):
        for column in range(begin, end):
            prefetch(plane[0] + row * plane[1] + column * plane[2], channels)


@inlined
def phase_of(plane: Any, phase: Any, dilation: Any) -> Any:
    """A map's columns from one on, a dilation apart."""
    return (plane[0] + phase * plane[2], plane[1], dilation * plane[2])


@jit
def products_of(
    products: Any, near: Any, own: Any, plane: Any, block: Any, channels: int, zeros: int, window: Any
) -> None:
    """Products of a block's pixels, whose addresses are given, with a map's pixels in their windows."""
    top, bottom, rows, column, columns = block
    size, half, pixels = len(window), len(window) // 2, near.size - len(window) + 1
    for row in range(top - half, bottom + half):
        inside = 0 <= row < rows
        if inside:
            place_row(near, plane, row, column - half, columns, pixels + size - 1, zeros)
        for each in range(max(0, row - half - top), min(bottom - top, row + half - top + 1)):
            found = products[each, row + half - top - each]
            if inside:
                dots(own[each].ctypes.data, near.ctypes.data, channels, found.ctypes.data, window)
            else:
                found[:] = 0


@jit
def mixtures_of(
    weights: Any, near: Any, outs: Any, plane: Any, block: Any, channels: int, zeros: int, window: Any
) -> None:
    """The pixels of a map in the windows of a block's pixels, summed up by their weights."""
    top, bottom, rows, column, columns = block
    size, half, pixels = len(window), len(window) // 2, near.size - len(window) + 1
    for row in range(max(0, top - half), min(rows, bottom + half)):
        place_row(near, plane, row, column - half, columns, pixels + size - 1, zeros)
        for each in range(max(0, row - half - top), min(bottom - top, row + half - top + 1)):
            position = row + half - top - each
            fresh = 1 if position == 0 or row == 0 else 0
            share = weights[each, position].ctypes.data
            mix(share, near.ctypes.data, channels, outs[each].ctypes.data, fresh, window)


@jit
def spread(row: Any, size: int, pixels: int, largest: bool) -> None:
    """Gives all places of a pixel the sum of what they hold, or the largest of it."""
    for pixel in range(pixels):
        first = pixel * size
        found = row[first]
        for place in range(first + 1, first + size):
            if largest:
                found = found if row[place] <= found else row[place]
            else:
                found += row[place]
        for place in range(first, first + size):
            row[place] = found
