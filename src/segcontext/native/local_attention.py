"""Attention over dilated windows and its gradients, a few pixels at a time; imports numba.

A map that is dilated by r falls into r² maps without dilation, which do not see each other. A kernel is handed some
rows of one phase, r apart, and goes through the r phases of the columns. Maps are float32, with the channels of a pixel
side by side: the address of the first pixel, and the steps in bytes to the next row of the phase and the next column.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.exponential import exp
from segcontext.native.jit import inlined, jit
from segcontext.native.window_products import at_once, dots, mix, padded, prefetch

__all__ = ["attend", "gather", "slopes", "workspace"]

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
def _place(table: Any, plane: Any, row: int, first: int, last: int, count: int, other: int) -> None:
    """Fills a table with the addresses of a row's pixels from the first on; those not in 0 … last - 1 are another."""
    start = plane[0] + row * plane[1]
    for place in range(count):
        column = first + place
        table[place] = start + column * plane[2] if 0 <= column < last else other


@jit
def _fetch(plane: Any, first: int, last: int, begin: int, end: int, channels: int) -> None:
    for row in range(first, last):
        for column in range(begin, end):
            prefetch(plane[0] + row * plane[1] + column * plane[2], channels)


@jit
def _products(
    products: Any, near: Any, own: Any, plane: Any, block: Any, channels: int, zeros: int, window: Any
) -> None:
    """Products of a block's pixels, whose addresses are given, with a map's pixels in their windows."""
    top, bottom, rows, column, columns = block
    size, half, pixels = len(window), len(window) // 2, near.size - len(window) + 1
    for row in range(top - half, bottom + half):
        inside = 0 <= row < rows
        if inside:
            _place(near, plane, row, column - half, columns, pixels + size - 1, zeros)
        for each in range(max(0, row - half - top), min(bottom - top, row + half - top + 1)):
            found = products[each, row + half - top - each]
            if inside:
                dots(own[each].ctypes.data, near.ctypes.data, channels, found.ctypes.data, window)
            else:
                found[:] = 0


@jit
def _mixtures(
    weights: Any, near: Any, outs: Any, plane: Any, block: Any, channels: int, zeros: int, window: Any
) -> None:
    """The pixels of a map in the windows of a block's pixels, summed up by their weights."""
    top, bottom, rows, column, columns = block
    size, half, pixels = len(window), len(window) // 2, near.size - len(window) + 1
    for row in range(max(0, top - half), min(rows, bottom + half)):
        _place(near, plane, row, column - half, columns, pixels + size - 1, zeros)
        for each in range(max(0, row - half - top), min(bottom - top, row + half - top + 1)):
            position = row + half - top - each
            fresh = 1 if position == 0 or row == 0 else 0
            share = weights[each, position].ctypes.data
            mix(share, near.ctypes.data, channels, outs[each].ctypes.data, fresh, window)


@jit
def _spread(row: Any, size: int, pixels: int, largest: bool) -> None:
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


@jit
def _normalise(products: Any, total: Any, scale: Any, size: int, pixels: int) -> None:
    """Turns a row of pixels' products into weights, and `total[0]` into the logarithms of their sums."""
    most, added = total[0], total[1]
    width = added.size
    for place in range(width):
        most[place] = scale * products[0, place]
        added[place] = 0
    for row in range(size):
        for place in range(width):
            logit = scale * products[row, place]
            products[row, place] = logit
            most[place] = most[place] if logit <= most[place] else logit
    _spread(most, size, pixels, True)
    for row in range(size):
        for place in range(width):
            products[row, place] = exp(products[row, place] - most[place])
            added[place] += products[row, place]
    _spread(added, size, pixels, False)
    for pixel in range(pixels):
        most[pixel * size] += np.log(added[pixel * size])
    for place in range(width):
        added[place] = np.float32(1) / added[place]
    for row in range(size):
        for place in range(width):
            products[row, place] *= added[place]


@jit
def attend(maps: Any, logs: Any, places: Any, extent: Any, window: Any, scale: Any, space: Any) -> None:
    """Attention of some rows of one phase.

    Args:
        maps: query, key, value and result, the last of which is written; each an address, and the steps in bytes to
            the next row of the phase and to the next column.
        logs: for all pixels, the logarithms of the sums of their exponentials; is written.
        places: in `logs`, of the phase's first pixel, and from row to row.
        extent: rows of the phase, columns of the map, dilation, first row, the row behind the last, channels of the
            keys and of the values.
        window: a tuple of k.
        scale: multiplies the logits.
        space: `workspace`.
    """
    rows, width, dilation, first, last, depth, channels = extent
    addresses, products, total, nothing, unwanted = space
    size, near = len(window), addresses[0]
    half, pixels = size // 2, near.size - size + 1
    zeros, lost = nothing.ctypes.data, unwanted.ctypes.data
    own, outs = addresses[1 : 1 + ROWS], addresses[1 + ROWS : 1 + 2 * ROWS]
    tile = max(4, NEAR // (4 * size * (depth + channels) * pixels)) * pixels
    for phase in range(min(dilation, width)):
        columns = (width - phase + dilation - 1) // dilation
        query, key, value, result = (
            _phase(maps[0], phase, dilation),
            _phase(maps[1], phase, dilation),
            _phase(maps[2], phase, dilation),
            _phase(maps[3], phase, dilation),
        )
        for left in range(0, columns, tile):
            for top in range(first, last, ROWS):
                bottom, below = min(top + ROWS, last), min(top + 2 * ROWS, last)
                for column in range(left, min(left + tile, columns), pixels):
                    end = min(column + pixels, columns)
                    block = (top, bottom, rows, column, columns)
                    _fetch(query, bottom, below, column, end, depth)
                    _fetch(result, bottom, below, column, end, channels)
                    _fetch(key, bottom + half, min(below + half, rows), column, end, depth)
                    _fetch(value, bottom + half, min(below + half, rows), column, end, channels)
                    for row in range(top, bottom):
                        _place(own[row - top], query, row, column, columns, pixels, zeros)
                        _place(outs[row - top], result, row, column, columns, pixels, lost)
                    _products(products[0], near, own, key, block, depth, zeros, window)
                    for row in range(top, bottom):
                        _normalise(products[0, row - top], total, scale, size, pixels)
                        at = places[0] + row * places[1] + phase
                        for each in range(column, end):
                            logs[at + each * dilation] = total[0, (each - column) * size]
                    _mixtures(products[0], near, outs, value, block, channels, zeros, window)


@inlined
def _phase(plane: Any, phase: Any, dilation: Any) -> Any:
    return (plane[0] + phase * plane[2], plane[1], dilation * plane[2])


@jit
def slopes(
    maps: Any, logs: Any, shares: Any, places: Any, extent: Any, window: Any, scale: Any, wanted: Any, space: Any
) -> None:
    """Weights of some rows of one phase, the gradients of their logits, and what those make of the keys.

    Args:
        maps: query, key, value, gradient of the result, and gradient of the query, which is written.
        logs: as `attend` wrote them.
        shares: (all pixels, 2, k²); weights and gradients of the products are written into it.
        places: in `logs` and `shares`, as for `attend`.
        extent: as for `attend`.
        window: a tuple of k.
        scale: multiplies the logits.
        wanted: whether gradients of the products, and whether that of the query.
        space: `workspace`.
    """
    rows, width, dilation, first, last, depth, channels = extent
    addresses, products, total, nothing, unwanted = space
    size, near = len(window), addresses[0]
    half, pixels = size // 2, near.size - size + 1
    zeros, lost = nothing.ctypes.data, unwanted.ctypes.data
    own, outs, heard = (
        addresses[1 : 1 + ROWS],
        addresses[1 + ROWS : 1 + 2 * ROWS],
        addresses[1 + 2 * ROWS :],
    )
    weights, changes = products[0], products[1]
    tile = max(4, NEAR // (4 * size * (depth + channels) * pixels)) * pixels
    for phase in range(min(dilation, width)):
        columns = (width - phase + dilation - 1) // dilation
        query, key, value, gradient, result = (
            _phase(maps[0], phase, dilation),
            _phase(maps[1], phase, dilation),
            _phase(maps[2], phase, dilation),
            _phase(maps[3], phase, dilation),
            _phase(maps[4], phase, dilation),
        )
        for left in range(0, columns, tile):
            for top in range(first, last, ROWS):
                bottom, below = min(top + ROWS, last), min(top + 2 * ROWS, last)
                for column in range(left, min(left + tile, columns), pixels):
                    end = min(column + pixels, columns)
                    block = (top, bottom, rows, column, columns)
                    _fetch(query, bottom, below, column, end, depth)
                    _fetch(gradient, bottom, below, column, end, channels)
                    _fetch(result, bottom, below, column, end, depth)
                    _fetch(key, bottom + half, min(below + half, rows), column, end, depth)
                    _fetch(value, bottom + half, min(below + half, rows), column, end, channels)
                    for row in range(top, bottom):
                        _place(own[row - top], query, row, column, columns, pixels, zeros)
                        _place(heard[row - top], gradient, row, column, columns, pixels, zeros)
                        _place(outs[row - top], result, row, column, columns, pixels, lost)
                    _products(weights, near, own, key, block, depth, zeros, window)
                    if wanted[0]:
                        _products(changes, near, heard, value, block, channels, zeros, window)
                    for row in range(top, bottom):
                        at = places[0] + row * places[1] + phase + column * dilation
                        for each in range(end - column):
                            total[0, each * size : (each + 1) * size] = logs[at + each * dilation]
                        _differentiate(weights[row - top], changes[row - top], total, scale, size, pixels)
                        for each in range(end - column):
                            share = shares[at + each * dilation]
                            for n in range(size):
                                for o in range(size):
                                    share[0, n * size + o] = weights[row - top, n, each * size + o]
                                    share[1, n * size + o] = changes[row - top, n, each * size + o]
                    if wanted[1]:
                        _mixtures(changes, near, outs, key, block, depth, zeros, window)


@jit
def _differentiate(weights: Any, changes: Any, total: Any, scale: Any, size: int, pixels: int) -> None:
    """Turns products into weights, and gradients of the weights into those of the products."""
    logs, mean = total[0], total[1]
    width = mean.size
    mean[:] = 0
    for row in range(size):
        for place in range(width):
            weights[row, place] = exp(scale * weights[row, place] - logs[place])
            mean[place] += weights[row, place] * changes[row, place]
    _spread(mean, size, pixels, False)
    for row in range(size):
        for place in range(width):
            changes[row, place] = scale * weights[row, place] * (changes[row, place] - mean[place])


@jit
def gather(maps: Any, shares: Any, places: Any, extent: Any, window: Any, wanted: Any, space: Any) -> None:
    """Gradients of the keys and values of some rows of one phase: each gathers from the pixels that looked at it.

    Args:
        maps: query, gradient of the result, and gradients of key and value, which are written.
        shares: as `slopes` wrote them.
        places: in `shares`, as for `attend`.
        extent: as for `attend`.
        window: a tuple of k.
        wanted: whether the gradient of the key, and whether that of the value.
        space: `workspace`.
    """
    rows, width, dilation, first, last, depth, channels = extent
    addresses, products, _, nothing, unwanted = space
    size, near = len(window), addresses[0]
    half, pixels = size // 2, near.size - size + 1
    zeros, lost = nothing.ctypes.data, unwanted.ctypes.data
    outs, others = addresses[1 : 1 + ROWS], addresses[1 + ROWS : 1 + 2 * ROWS]
    weights, changes = products[0], products[1]
    tile = max(4, NEAR // (4 * size * (depth + channels) * pixels)) * pixels
    for phase in range(min(dilation, width)):
        columns = (width - phase + dilation - 1) // dilation
        query, gradient, of_key, of_value = (
            _phase(maps[0], phase, dilation),
            _phase(maps[1], phase, dilation),
            _phase(maps[2], phase, dilation),
            _phase(maps[3], phase, dilation),
        )
        for left in range(0, columns, tile):
            for top in range(first, last, ROWS):
                bottom, below = min(top + ROWS, last), min(top + 2 * ROWS, last)
                for column in range(left, min(left + tile, columns), pixels):
                    end = min(column + pixels, columns)
                    block = (top, bottom, rows, column, columns)
                    _fetch(of_key, bottom, below, column, end, depth)
                    _fetch(of_value, bottom, below, column, end, channels)
                    _fetch(query, bottom + half, min(below + half, rows), column, end, depth)
                    _fetch(gradient, bottom + half, min(below + half, rows), column, end, channels)
                    products[:] = 0
                    for row in range(top, bottom):
                        _place(outs[row - top], of_key, row, column, columns, pixels, lost)
                        _place(others[row - top], of_value, row, column, columns, pixels, lost)
                        for n in range(max(0, half - row), min(size, rows + half - row)):
                            at = places[0] + (row + n - half) * places[1] + phase
                            for source in range(max(0, half - column), min(near.size, columns + half - column)):
                                # What looks from above looks down: position n of ours is its position k - 1 - n.
                                share = shares[at + (column + source - half) * dilation]
                                for i in range(max(0, source - size + 1), min(pixels, source + 1)):
                                    place, seen = i * size + source - i, (size - n) * size - 1 - source + i
                                    weights[row - top, n, place] = share[0, seen]
                                    changes[row - top, n, place] = share[1, seen]
                    if wanted[0]:
                        _mixtures(changes, near, outs, query, block, depth, zeros, window)
                    if wanted[1]:
                        _mixtures(weights, near, others, gradient, block, channels, zeros, window)
