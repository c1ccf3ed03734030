"""LDv1 as a whole in evaluation, a plane at a time: read once, written once; imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.gate import mask_of, stretch
from segcontext.native.jit import jit
from segcontext.native.pixel_rows import move_rows

__all__ = ["distribute"]


@jit
def _halve(source: Any, kernel: Any, shift: Any, out: Any, rows: int, columns: int) -> None:
    """A 3×3 convolution of stride 2 and a ReLU; both planes have a border of zeros."""
    for row in range(rows):
        above, middle, below = source[2 * row], source[2 * row + 1], source[2 * row + 2]
        into = out[1 + row]
        for column in range(columns):
            at = 2 * column
            found = shift + kernel[0] * above[at] + kernel[1] * above[at + 1] + kernel[2] * above[at + 2]
            found += kernel[3] * middle[at] + kernel[4] * middle[at + 1] + kernel[5] * middle[at + 2]
            found += kernel[6] * below[at] + kernel[7] * below[at + 1] + kernel[8] * below[at + 2]
            into[1 + column] = np.float32(0) if found < 0 else found


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
    # A plane of odd sides lacks what the last step of the stride would read.
    plane = np.zeros((rows + 3, columns + 3), np.float32)
    store = np.zeros((2, (sizes[1, 0] + 3) * (sizes[1, 1] + 3)), np.float32)
    above, below = np.empty(columns, np.float32), np.empty(columns, np.float32)
    near = (plane[1, 1:].ctypes.data, 4 * plane.shape[1], 0, 4, (0, 0, 0, 0))
    for number in range(span[0], span[1]):
        channel = number % channels
        far = (features[0][number], features[1], 0, features[2], width)
        move_rows(far, near, rows, 1, columns)
        source = plane
        for layer in range(layers):
            high, wide = sizes[layer + 1]
            smaller = store[layer % 2, : (high + 3) * (wide + 3)].reshape((high + 3, wide + 3))
            smaller[:] = 0
            _halve(source, kernels[channel, layer], shifts[channel, layer], smaller, high, wide)
            source = smaller
        high, wide = sizes[layers]
        seen = -1
        for line in range(rows):
            place, share = down[0][line], down[1][line]
            if place != seen:
                stretch(source[1 + place, 1 : 1 + wide], across, above)
                stretch(source[1 + min(place + 1, high - 1), 1 : 1 + wide], across, below)
                seen = place
            row = plane[1 + line, 1 : 1 + columns]
            for column in range(columns):
                logit = above[column] * (np.float32(1) - share) + below[column] * share
                row[column] *= mask_of(logit) + times
        move_rows(near, (out[0][number], out[1], 0, out[2], width), rows, 1, columns)
