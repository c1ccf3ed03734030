"""The steps of attention over windows of planar maps, some units of work at a time; imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.jit import jit
from segcontext.native.row_softmax import normalise, spread_back
from segcontext.native.row_walks import blend, multiply
from segcontext.native.vectors import LANES

__all__ = ["compare", "mix", "slopes", "weigh"]


@jit
def compare(units: Any, part: Any, pair: int, products: Any, width: Any, options: Any, space: Any) -> None:
    """Products of two maps for some units.

    Args:
        units: each some columns of a phase of an image: its first row among all, rows, first column, the column behind
            the last; and then for each pair of maps addresses and steps of both, as `multiply` takes them, and
            channels.
        part: the first unit and the unit behind the last.
        pair: the number of the pair.
        products: (rows of all images, k², columns and margins); is written, with zeros in the margins.
        width: a tuple as long as one float of the maps has bytes.
        options: columns of the maps, those of `products` before the first, dilation, columns between neighbouring
            positions, a tuple of k, and one of `rows_at_once`.
        space: `workspace`.
    """
    columns, margin, dilation, across, window, group = options
    plane = 4 * products.shape[2]
    for number in range(part[0], part[1]):
        start, rows, first, last = units[number, 0], units[number, 1], units[number, 2], units[number, 3]
        # Margins belong to whoever works on the columns beside them.
        begin, end = margin + first if first > 0 else 0, margin + last if last < columns else products.shape[2]
        for row in range(rows):
            for position in range(products.shape[1]):
                line = products[start + row * dilation, position, begin:end]
                line[:] = 0
        maps = units[number, 4 + 7 * pair :]
        left, right = (maps[0], maps[1], maps[2], width), (maps[3], maps[4], maps[5], width)
        sums = (products[start].ctypes.data + 4 * margin, dilation * products.shape[1] * plane, plane)
        multiply(left, right, sums, (rows, columns, first, last, across, maps[6]), window, group, space)


@jit
def weigh(units: Any, part: Any, weights: Any, logs: Any, scale: Any, dilation: int) -> None:
    """Turns products of some units into weights.

    Args:
        units: as for `compare`.
        part: likewise.
        weights: (rows of all images, k², columns): as `compare` wrote them without margins; is written.
        logs: (rows of all images, columns): the logarithms of the sums of the exponentials; is written.
        scale: multiplies the products.
        dilation: r.
    """
    most, added = np.empty((2, weights.shape[2]), np.float32)
    for number in range(part[0], part[1]):
        start, rows, first, last = units[number, 0], units[number, 1], units[number, 2], units[number, 3]
        for row in range(start, start + rows * dilation, dilation):
            for x in range(first, last, LANES):
                place, to, sums = weights[row, 0, x:].ctypes.data, most[x:].ctypes.data, added[x:].ctypes.data
                normalise(place, 4 * weights.shape[2], weights.shape[1], scale, to, sums)
            for x in range(first, min(last, logs.shape[1])):
                logs[row, x] = most[x] + np.log(added[x])


@jit
def slopes(
    units: Any, part: Any, weights: Any, changes: Any, logs: Any, scale: Any, dilation: int, margin: int
) -> None:
    """Turns products of some units into weights, and gradients of the weights into those of the products.

    Args:
        units: as for `compare`.
        part: likewise.
        weights: as `compare` wrote them of the first pair; is written, with zeros behind the last columns.
        changes: the same of the second, which is the gradient of the result and the values.
        logs: as `weigh` wrote them.
        scale: multiplies the products.
        dilation: r.
        margin: columns of `weights` and `changes` before the first.
    """
    found = np.zeros(weights.shape[2], np.float32)
    for number in range(part[0], part[1]):
        start, rows, first, last = units[number, 0], units[number, 1], units[number, 2], units[number, 3]
        inside = min(last, logs.shape[1])
        for row in range(start, start + rows * dilation, dilation):
            found[first:inside] = logs[row, first:inside]
            for x in range(first, last, LANES):
                place, other = weights[row, 0, margin + x :].ctypes.data, changes[row, 0, margin + x :].ctypes.data
                spread_back(place, other, 4 * weights.shape[2], weights.shape[1], scale, found[x:].ctypes.data)
            if inside < last:
                weights[row, :, margin + inside : margin + last] = 0
                changes[row, :, margin + inside : margin + last] = 0


@jit
def mix(units: Any, part: Any, width: Any, options: Any, space: Any) -> None:
    """Mixtures of some units.

    Args:
        units: each some channels and columns of a phase of an image: channels, rows, first column, the column behind
            the last; and then addresses and steps of a map, of what is written, and of weights, as `blend` takes them.
        part: the first unit and the unit behind the last.
        width: as for `compare`, and so are the others.
        options: see there.
        space: see there.
    """
    columns, _, _, across, window, group = options
    for number in range(part[0], part[1]):
        unit = units[number]
        source, out = (unit[4], unit[5], unit[6], width), (unit[7], unit[8], unit[9], width)
        weights = (unit[10], unit[11], unit[12], unit[13])
        blend(source, out, weights, (unit[1], columns, unit[2], unit[3], across, unit[0]), window, group, space)
