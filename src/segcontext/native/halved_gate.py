"""LDv1 as a whole with fixed batch norms, a plane at a time, forward and back; imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.gate import done, mask_of, row_at, row_for, shrink, stretch
from segcontext.native.halving import halve, kernel_sums, turn_back
from segcontext.native.jit import jit
from segcontext.native.pixel_rows import move_rows

__all__ = ["distribute", "turn_back_distributed"]


@jit
def distribute(
    features: Any,
    out: Any,
    kernels: Any,
    shifts: Any,
    sizes: Any,
    down: Any,
    across: Any,
    times: Any,
    width: Any,
    span: Any,
) -> None:
    """σ(upsampled W_d x)·x + times·x for some planes.

    Args:
        features: x: for each plane its address, and then the steps in bytes to the next row and the next column.
        out: of the same size; is written.
        kernels: (C, layers, 9), with batch norm folded in.
        shifts: (C, layers).
        sizes: rows and columns of a plane, and after each layer.
        down: for each row the row of the small map above it, and how much of the next one it takes.
        across: the same for columns.
        times: how often x is added.
        width: a tuple as long as one float of x has bytes.
        span: the first plane and the plane behind the last.
    """
    channels, layers = shifts.shape
    rows, columns = sizes[0]
    high, wide = sizes[layers]
    starts = _starts(sizes)
    store = np.zeros(starts[-1], np.float32)
    plane, last = _framed(store, starts, sizes, 0), _framed(store, starts, sizes, layers)
    above, below, result = (
        np.empty(columns, np.float32),
        np.empty(columns, np.float32),
        np.empty(columns, np.float32),
    )
    near = (plane[1, 1:].ctypes.data, 4 * plane.shape[1], 0, 4, (0, 0, 0, 0))
    for number in range(span[0], span[1]):
        channel = number % channels
        move_rows((features[0][number], features[1], 0, features[2], width), near, rows, 1, columns)
        _halve_all(store, starts, sizes, kernels[channel], shifts[channel])
        seen = -1
        for line in range(rows):
            place, share = down[0][line], down[1][line]
            if place != seen:
                stretch(last[1 + place, 1 : 1 + wide], across, above)
                stretch(last[1 + min(place + 1, high - 1), 1 : 1 + wide], across, below)
                seen = place
            place_out = (out[0][number] + line * out[1], out[2])
            row, into = plane[1 + line, 1 : 1 + columns], row_for(place_out, width, result)
            for column in range(columns):
                logit = above[column] * (np.float32(1) - share) + below[column] * share
                into[column] = row[column] * (mask_of(logit) + times)
            done(into, place_out, width)


@jit
def turn_back_distributed(
    features: Any,
    gradient: Any,
    out: Any,
    kernels: Any,
    shifts: Any,
    sums: Any,
    sizes: Any,
    down: Any,
    across: Any,
    times: Any,
    width: Any,
    span: Any,
) -> None:
    """Gradients of `distribute`, from that of its result.

    Args:
        features: x, as there.
        gradient: likewise.
        out: the gradient of x; is written.
        kernels: as there.
        shifts: as there.
        sums: float64, (planes, layers, 10), zeros; receives each plane's part of the gradients of kernel and shift.
        sizes: as there.
        down: as there.
        across: as there.
        times: as there.
        width: as there.
        span: as there.
    """
    channels, layers = shifts.shape
    rows, columns = sizes[0]
    high, wide = sizes[layers]
    starts = _starts(sizes)
    store, changes = np.zeros(starts[-1], np.float32), np.zeros(starts[-1], np.float32)
    plane, last = _framed(store, starts, sizes, 0), _framed(store, starts, sizes, layers)
    slopes, of_last = _framed(changes, starts, sizes, 0), _framed(changes, starts, sizes, layers)
    above, below = np.empty(columns, np.float32), np.empty(columns, np.float32)
    upper, lower = np.empty(columns, np.float32), np.empty(columns, np.float32)
    change, copied = np.empty(columns, np.float32), np.empty(columns, np.float32)
    near = (plane[1, 1:].ctypes.data, 4 * plane.shape[1], 0, 4, (0, 0, 0, 0))
    near_slopes = (slopes[1, 1:].ctypes.data, 4 * plane.shape[1], 0, 4, (0, 0, 0, 0))
    for number in range(span[0], span[1]):
        channel = number % channels
        move_rows((features[0][number], features[1], 0, features[2], width), near, rows, 1, columns)
        _halve_all(store, starts, sizes, kernels[channel], shifts[channel])
        changes[starts[1] :] = 0
        seen = -1
        for line in range(rows):
            place, share = down[0][line], down[1][line]
            if place != seen:
                if seen >= 0:
                    shrink(upper, across, of_last[1 + seen, 1 : 1 + wide])
                    shrink(lower, across, of_last[1 + min(seen + 1, high - 1), 1 : 1 + wide])
                stretch(last[1 + place, 1 : 1 + wide], across, above)
                stretch(last[1 + min(place + 1, high - 1), 1 : 1 + wide], across, below)
                upper[:] = 0
                lower[:] = 0
                seen = place
            row, into = plane[1 + line, 1 : 1 + columns], slopes[1 + line, 1 : 1 + columns]
            slope = row_at((gradient[0][number] + line * gradient[1], gradient[2]), width, copied)
            for column in range(columns):
                mask = mask_of(above[column] * (np.float32(1) - share) + below[column] * share)
                change[column] = row[column] * slope[column] * mask * (np.float32(1) - mask)
                into[column] = slope[column] * (mask + times)
            for column in range(columns):
                upper[column] += change[column] * (np.float32(1) - share)
                lower[column] += change[column] * share
        shrink(upper, across, of_last[1 + seen, 1 : 1 + wide])
        shrink(lower, across, of_last[1 + min(seen + 1, high - 1), 1 : 1 + wide])
        for layer in range(layers, 0, -1):
            source, slope = _framed(store, starts, sizes, layer - 1), _framed(changes, starts, sizes, layer)
            # The frame is zero as well where the ReLU is, so that what was added there goes, too.
            for at in range(starts[layer], starts[layer + 1]):
                changes[at] = changes[at] if store[at] > 0 else np.float32(0)
            kernel_sums(source, slope, sums[number, layer - 1], sizes[layer, 0], sizes[layer, 1])
            into = _framed(changes, starts, sizes, layer - 1)
            turn_back(slope, kernels[channel, layer - 1], into, sizes[layer, 0], sizes[layer, 1])
        move_rows(near_slopes, (out[0][number], out[1], 0, out[2], width), rows, 1, columns)


@jit
def _starts(sizes: Any) -> Any:
    """Where each of the framed maps begins, in a store of all of them, and where the last one ends."""
    starts = np.zeros(len(sizes) + 1, np.int64)
    for layer in range(len(sizes)):
        starts[layer + 1] = starts[layer] + (sizes[layer, 0] + 3) * (sizes[layer, 1] + 3)
    return starts


@jit
def _framed(store: Any, starts: Any, sizes: Any, layer: int) -> Any:
    return store[starts[layer] : starts[layer + 1]].reshape((sizes[layer, 0] + 3, sizes[layer, 1] + 3))


@jit
def _halve_all(store: Any, starts: Any, sizes: Any, kernels: Any, shifts: Any) -> None:
    for layer in range(len(shifts)):
        source, smaller = _framed(store, starts, sizes, layer), _framed(store, starts, sizes, layer + 1)
        least = np.float32(0)
        halve(source, kernels[layer], shifts[layer], least, smaller, sizes[layer + 1, 0], sizes[layer + 1, 1])
