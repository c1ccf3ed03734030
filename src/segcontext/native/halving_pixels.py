"""Depthwise 3×3 convolutions of stride 2 on pixels with their channels side by side, forward and back; imports numba.

Channels are taken `BLOCK` at a time, all of them where there are no more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.halving_products import BLOCK, convolve, give_back, sum_up
from segcontext.native.jit import inlined, jit
from segcontext.native.pixel_rows import move_rows
from segcontext.native.vectors import LANES

__all__ = ["halve_pixels", "turn_back_pixels"]

#: Rows of a store of pixels: nine neighbours, zeros, what is thrown away, gradients of two rows of the result of two
#: columns each, and gradients of four pixels.
NOTHING, LOST, LOWER, UPPER, FOUR = 9, 10, 11, 13, 15


@jit
def halve_pixels(features: Any, out: Any, kernels: Any, shifts: Any, extent: Any, width: Any, span: Any) -> None:
    """The convolution for some rows of the result.

    Args:
        features: for each image its address, and then the steps in bytes to the next row, column and channel.
        out: of the result; is written.
        kernels: (9, C).
        shifts: (C,).
        extent: rows and columns of a map, rows and columns of a result, and the padding, 0 or 1.
        width: a tuple as long as one float of the maps has bytes.
        span: the first row of all images' results and the row behind the last.
    """
    rows, columns, high, wide, padding = extent
    store, places = np.zeros((LOST + 1, BLOCK), np.float32), np.empty(10, np.int64)
    weights = np.zeros((10, BLOCK), np.float32)
    for begin in range(0, shifts.size, BLOCK):
        count = min(BLOCK, shifts.size - begin)
        filled = (count + LANES - 1) // LANES * LANES
        near = _is_near(out[3], width, count)
        weights[:9, :count] = kernels[:, begin : begin + count]
        weights[9, :count] = shifts[begin : begin + count]
        for line in range(span[0], span[1]):
            image, row = line // high, line % high
            given = features[0][image] + begin * features[3]
            for column in range(wide):
                corner = (2 * row - padding, 2 * column - padding, rows, columns)
                _fetch_nine(given, features, corner, width, store, count, places)
                to = out[0][image] + row * out[1] + column * out[2] + begin * out[3]
                places[9] = to if near else store[LOST].ctypes.data
                convolve(places.ctypes.data, weights.ctypes.data, filled)
                if not near:
                    _give(store[LOST, :count], to, out[3], width)


@jit
def turn_back_pixels(
    features: Any, gradient: Any, out: Any, adds: bool, kernels: Any, sums: Any, extent: Any, width: Any, span: Any
) -> None:
    """Gradients of `halve_pixels`, from that of its result.

    Args:
        features: as there.
        gradient: of the result, likewise.
        out: the gradient of the features; is written.
        adds: whether it is added to what `out` holds.
        kernels: as there.
        sums: (images · (h' + 1), 10, C); receives what each row of the result gives to the gradients of kernel and
            shift.
        extent: as there.
        width: as there.
        span: the first of all images' rows of results, of which each has one more, and the row behind the last; row n
            covers the rows of the map where its kernel begins and the one below.
    """
    rows, columns, high, wide, padding = extent
    store, places = np.zeros((FOUR + 4, BLOCK), np.float32), np.empty(9, np.int64)
    weights, totals, corners = (
        np.zeros((9, BLOCK), np.float32),
        np.zeros((10, BLOCK), np.float32),
        np.empty(8, np.int64),
    )
    nothing, lost = store[NOTHING].ctypes.data, store[LOST].ctypes.data
    for begin in range(0, kernels.shape[1], BLOCK):
        count = min(BLOCK, kernels.shape[1] - begin)
        filled = (count + LANES - 1) // LANES * LANES
        near = _is_near(out[3], width, count)
        weights[:, :count] = kernels[:, begin : begin + count]
        for line in range(span[0], span[1]):
            image, row = line // (high + 1), line % (high + 1)
            given = features[0][image] + begin * features[3]
            totals[:] = 0
            corners[:4] = nothing
            for column in range(wide + 1):
                y, x = 2 * row - padding, 2 * column - padding
                told = gradient[0][image] + row * gradient[1] + column * gradient[2] + begin * gradient[3]
                corners[1], corners[3] = corners[0], corners[2]
                corners[0] = corners[2] = nothing
                if row < high and column < wide:
                    corners[0] = _fetched(told, gradient[3], width, store[LOWER + column % 2, :count])
                if row > 0 and column < wide:
                    corners[2] = _fetched(told - gradient[1], gradient[3], width, store[UPPER + column % 2, :count])
                to = out[0][image] + y * out[1] + x * out[2] + begin * out[3]
                for part in range(4):
                    at = to + part // 2 * out[1] + part % 2 * out[2]
                    if not (0 <= y + part // 2 < rows and 0 <= x + part % 2 < columns):
                        corners[4 + part] = lost
                    elif near:
                        corners[4 + part] = at
                    else:
                        corners[4 + part] = store[FOUR + part].ctypes.data
                        if adds:
                            _take(at, out[3], width, store[FOUR + part, :count])
                give_back(corners.ctypes.data, weights.ctypes.data, filled, np.int64(not adds))
                for part in range(4):
                    if corners[4 + part] == store[FOUR + part].ctypes.data:
                        at = to + part // 2 * out[1] + part % 2 * out[2]
                        _give(store[FOUR + part, :count], at, out[3], width)
                if corners[0] != nothing:
                    _fetch_nine(given, features, (y, x, rows, columns), width, store, count, places)
                    sum_up(places.ctypes.data, corners[0], totals.ctypes.data, filled)
            sums[line, :, begin : begin + count] = totals[:, :count]


@jit
def _fetch_nine(given: Any, features: Any, extent: Any, width: Any, store: Any, count: Any, places: Any) -> None:
    """The addresses of a pixel's nine neighbours, which are copied where they do not lie as they should."""
    y, x, rows, columns = extent
    for part in range(9):
        row, column = y + part // 3, x + part % 3
        places[part] = store[NOTHING].ctypes.data
        if 0 <= row < rows and 0 <= column < columns:
            at = given + row * features[1] + column * features[2]
            places[part] = _fetched(at, features[3], width, store[part, :count])


@inlined
def _is_near(step: Any, width: Any, count: Any) -> bool:
    """Whether channels can stay where they are: whole vectors of float32, side by side."""
    return len(width) == 4 and step == 4 and count % LANES == 0


@inlined
def _fetched(address: Any, step: Any, width: Any, store: Any) -> Any:
    """The address of some channels as float32."""
    if _is_near(step, width, store.size):
        return address
    _take(address, step, width, store)
    return store.ctypes.data


@inlined
def _take(address: Any, step: Any, width: Any, store: Any) -> None:
    move_rows((address, 0, 0, step, width), (store.ctypes.data, 0, 0, 4, (0, 0, 0, 0)), 1, 1, store.size)


@inlined
def _give(store: Any, address: Any, step: Any, width: Any) -> None:
    move_rows((store.ctypes.data, 0, 0, 4, (0, 0, 0, 0)), (address, 0, 0, step, width), 1, 1, store.size)
