"""Gradients of attention over windows, a few pixels at a time; imports numba."""

from __future__ import annotations

from typing import Any

from segcontext.native.exponential import exp
from segcontext.native.jit import jit
from segcontext.native.windows import NEAR, ROWS, fetch, mixtures_of, phase_of, place_row, products_of, spread

__all__ = ["gather", "slopes"]


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
            phase_of(maps[0], phase, dilation),
            phase_of(maps[1], phase, dilation),
            phase_of(maps[2], phase, dilation),
            phase_of(maps[3], phase, dilation),
            phase_of(maps[4], phase, dilation),
        )
        for left in range(0, columns, tile):
            for top in range(first, last, ROWS):
                bottom, below = min(top + ROWS, last), min(top + 2 * ROWS, last)
                for column in range(left, min(left + tile, columns), pixels):
                    end = min(column + pixels, columns)
                    block = (top, bottom, rows, column, columns)
                    fetch(query, bottom, below, column, end, depth)
                    fetch(gradient, bottom, below, column, end, channels)
                    fetch(result, bottom, below, column, end, depth)
                    fetch(key, bottom + half, min(below + half, rows), column, end, depth)
                    fetch(value, bottom + half, min(below + half, rows), column, end, channels)
                    for row in range(top, bottom):
                        place_row(own[row - top], query, row, column, columns, pixels, zeros)
                        place_row(heard[row - top], gradient, row, column, columns, pixels, zeros)
                        place_row(outs[row - top], result, row, column, columns, pixels, lost)
                    products_of(weights, near, own, key, block, depth, zeros, window)
                    if wanted[0]:
                        products_of(changes, near, heard, value, block, channels, zeros, window)
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
                        mixtures_of(changes, near, outs, key, block, depth, zeros, window)


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
    spread(mean, size, pixels, False)
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
            phase_of(maps[0], phase, dilation),
            phase_of(maps[1], phase, dilation),
            phase_of(maps[2], phase, dilation),
            phase_of(maps[3], phase, dilation),
        )
        for left in range(0, columns, tile):
            for top in range(first, last, ROWS):
                bottom, below = min(top + ROWS, last), min(top + 2 * ROWS, last)
                for column in range(left, min(left + tile, columns), pixels):
                    end = min(column + pixels, columns)
                    block = (top, bottom, rows, column, columns)
                    fetch(of_key, bottom, below, column, end, depth)
                    fetch(of_value, bottom, below, column, end, channels)
                    fetch(query, bottom + half, min(below + half, rows), column, end, depth)
                    fetch(gradient, bottom + half, min(below + half, rows), column, end, channels)
                    products[:] = 0
                    for row in range(top, bottom):
                        place_row(outs[row - top], of_key, row, column, columns, pixels, lost)
                        place_row(others[row - top], of_value, row, column, columns, pixels, lost)
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
                        mixtures_of(changes, near, outs, query, block, depth, zeros, window)
                    if wanted[1]:
                        mixtures_of(weights, near, others, gradient, block, channels, zeros, window)
