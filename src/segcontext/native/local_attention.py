"""Attention over windows, a few pixels at a time; imports numba. See `segcontext.native.windows` for the maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.exponential import exp
from segcontext.native.jit import jit
from segcontext.native.windows import NEAR, ROWS, fetch, mixtures_of, phase_of, place_row, products_of, spread

__all__ = ["attend"]


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
    spread(most, size, pixels, True)
    for row in range(size):
        for place in range(width):
            products[row, place] = exp(products[row, place] - most[place])
            added[place] += products[row, place]
    spread(added, size, pixels, False)
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
                    fetch(query, bottom, below, column, end, depth)
                    fetch(result, bottom, below, column, end, channels)
                    fetch(key, bottom + half, min(below + half, rows), column, end, depth)
                    fetch(value, bottom + half, min(below + half, rows), column, end, channels)
                    for row in range(top, bottom):
                        place_row(own[row - top], query, row, column, columns, pixels, zeros)
                        place_row(outs[row - top], result, row, column, columns, pixels, lost)
                    products_of(products[0], near, own, key, block, depth, zeros, window)
                    for row in range(top, bottom):
                        _normalise(products[0, row - top], total, scale, size, pixels)
                        at = places[0] + row * places[1] + phase
                        for each in range(column, end):
                            logs[at + each * dilation] = total[0, (each - column) * size]
                    mixtures_of(products[0], near, outs, value, block, channels, zeros, window)
