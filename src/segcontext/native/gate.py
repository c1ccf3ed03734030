"""Gates of features by the sigmoid of a smaller map, which is resized row by row; imports numba.

Rows of planes are read and written where they lie if they are float32, side by side; whatever else is copied into
float32 first, so that one form serves every layout and bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.addresses import carray, floats_at
from segcontext.native.exponential import exp
from segcontext.native.jit import inlined, jit
from segcontext.native.pixel_rows import move_rows

__all__ = [
    "done",
    "gate_pixels",
    "gate_planes",
    "mask_of",
    "row_at",
    "row_for",
    "shrink",
    "stretch",
    "turn_back_pixels",
    "turn_back_planes",
]


@inlined
def mask_of(logit: Any) -> Any:
    """The sigmoid of a float32."""
    return np.float32(1) / (np.float32(1) + exp(-logit))


@inlined
def _take(row: Any, place: Any, width: Any) -> None:
    """Reads a row from its address and the step from float to float."""
    move_rows((place[0], 0, 0, place[1], width), (row.ctypes.data, 0, 0, 4, (0, 0, 0, 0)), 1, 1, row.size)


@inlined
def _give(row: Any, place: Any, width: Any) -> None:
    move_rows((row.ctypes.data, 0, 0, 4, (0, 0, 0, 0)), (place[0], 0, 0, place[1], width), 1, 1, row.size)


@inlined
def row_for(place: Any, width: Any, store: Any) -> Any:
    """Where a row is to be written as float32: where it lies, or a store of its size."""
    if len(width) == 4 and place[1] == 4:
        return carray(floats_at(place[0]), (store.size,))
    return store[:]


@inlined
def row_at(place: Any, width: Any, store: Any) -> Any:
    """A row as float32: where it lies, or copied into a store of its size."""
    row = row_for(place, width, store)
    if not (len(width) == 4 and place[1] == 4):
        _take(row, place, width)
    return row


@inlined
def done(row: Any, place: Any, width: Any) -> None:
    """Puts a row of `row_for` where it belongs."""
    if not (len(width) == 4 and place[1] == 4):
        _give(row, place, width)


@jit
def stretch(small: Any, across: Any, out: Any) -> None:
    """A row resized, by the place before each of the columns and the share of the next one."""
    places, shares = across
    for column in range(out.size):
        place, share = places[column], shares[column]
        following = min(place + 1, small.size - 1)
        out[column] = small[place] * (np.float32(1) - share) + small[following] * share


@jit
def gate_planes(features: Any, out: Any, small: Any, down: Any, across: Any, times: Any, width: Any, span: Any) -> None:
    """σ(small)·x + times·x for some planes.

    Args:
        features: x: for each plane its address, and then the steps in bytes to the next row and the next column.
        out: of the same size; is written.
        small: (planes, h', w').
        down: for each row the row of the small map above it, and how much of the next one it takes.
        across: the same for columns.
        times: how often x is added.
        width: a tuple as long as one float of x has bytes.
        span: the first plane and the plane behind the last.
    """
    rows, columns = down[0].size, across[0].size
    store, result = np.empty(columns, np.float32), np.empty(columns, np.float32)
    above, below = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for plane in range(span[0], span[1]):
        seen = -1
        for line in range(rows):
            place, share = down[0][line], down[1][line]
            if place != seen:
                stretch(small[plane, place], across, above)
                stretch(small[plane, min(place + 1, small.shape[1] - 1)], across, below)
                seen = place
            place_out = (out[0][plane] + line * out[1], out[2])
            row = row_at((features[0][plane] + line * features[1], features[2]), width, store)
            into = row_for(place_out, width, result)
            for column in range(columns):
                logit = above[column] * (np.float32(1) - share) + below[column] * share
                into[column] = row[column] * (mask_of(logit) + times)
            done(into, place_out, width)


@jit
def turn_back_planes(
    features: Any,
    gradient: Any,
    out: Any,
    small: Any,
    of_small: Any,
    down: Any,
    across: Any,
    times: Any,
    width: Any,
    span: Any,
) -> None:
    """Gradients of `gate_planes`, from that of its result.

    Args:
        features: x, as there.
        gradient: likewise.
        out: the gradient of x; is written.
        small: as there.
        of_small: its gradient; is written.
        down: as there.
        across: as there.
        times: as there.
        width: as there.
        span: as there.
    """
    rows, columns = down[0].size, across[0].size
    store, slopes, result = np.empty(columns, np.float32), np.empty(columns, np.float32), np.empty(columns, np.float32)
    above, below, change = (
        np.empty(columns, np.float32),
        np.empty(columns, np.float32),
        np.empty(columns, np.float32),
    )
    sums, next_sums = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    for plane in range(span[0], span[1]):
        of_small[plane] = 0
        seen = -1
        for line in range(rows):
            place, share = down[0][line], down[1][line]
            if place != seen:
                if seen >= 0:
                    shrink(sums, across, of_small[plane, seen])
                    shrink(next_sums, across, of_small[plane, min(seen + 1, small.shape[1] - 1)])
                stretch(small[plane, place], across, above)
                stretch(small[plane, min(place + 1, small.shape[1] - 1)], across, below)
                sums[:] = 0
                next_sums[:] = 0
                seen = place
            place_out = (out[0][plane] + line * out[1], out[2])
            row = row_at((features[0][plane] + line * features[1], features[2]), width, store)
            slope = row_at((gradient[0][plane] + line * gradient[1], gradient[2]), width, slopes)
            into = row_for(place_out, width, result)
            for column in range(columns):
                mask = mask_of(above[column] * (np.float32(1) - share) + below[column] * share)
                change[column] = row[column] * slope[column] * mask * (np.float32(1) - mask)
                into[column] = slope[column] * (mask + times)
            for column in range(columns):
                sums[column] += change[column] * (np.float32(1) - share)
                next_sums[column] += change[column] * share
            done(into, place_out, width)
        shrink(sums, across, of_small[plane, seen])
        shrink(next_sums, across, of_small[plane, min(seen + 1, small.shape[1] - 1)])


@jit
def shrink(row: Any, across: Any, small: Any) -> None:
    """Adds to a small row what its columns gave to a large one."""
    places, shares = across
    for column in range(row.size):
        place, share = places[column], shares[column]
        small[place] += row[column] * (np.float32(1) - share)
        small[min(place + 1, small.size - 1)] += row[column] * share


@jit
def _between(small: Any, place: int, share: Any, out: Any) -> None:
    """A row of pixels between two rows of a small map."""
    above, below = small[place], small[min(place + 1, small.shape[0] - 1)]
    for pixel in range(out.shape[0]):
        upper, lower, row = above[pixel], below[pixel], out[pixel]
        for channel in range(row.size):
            row[channel] = upper[channel] * (np.float32(1) - share) + lower[channel] * share


@jit
def gate_pixels(features: Any, out: Any, small: Any, down: Any, across: Any, times: Any, width: Any, span: Any) -> None:
    """σ(small)·x + times·x for some rows of pixels with their channels side by side.

    Args:
        features: x: for each image its address, and then the steps in bytes to the next row, column and channel.
        out: of the same size; is written.
        small: (images, h', w', C).
        down: for each row the row of the small map above it, and how much of the next one it takes.
        across: the same for columns.
        times: how often x is added.
        width: a tuple as long as one float of x has bytes.
        span: the first row of all images' and the row behind the last.
    """
    rows, columns, channels = down[0].size, across[0].size, small.shape[3]
    pixel, between = np.empty(channels, np.float32), np.empty(small.shape[2:], np.float32)
    for line in range(span[0], span[1]):
        image, row = line // rows, line % rows
        _between(small[image], down[0][row], down[1][row], between)
        for column in range(columns):
            place, share = across[0][column], across[1][column]
            left, right = between[place], between[min(place + 1, small.shape[2] - 1)]
            at = row * features[1] + column * features[2]
            _take(pixel, (features[0][image] + at, features[3]), width)
            for channel in range(channels):
                logit = left[channel] * (np.float32(1) - share) + right[channel] * share
                pixel[channel] *= mask_of(logit) + times
            _give(pixel, (out[0][image] + row * out[1] + column * out[2], out[3]), width)


@jit
def turn_back_pixels(
    features: Any,
    gradient: Any,
    out: Any,
    small: Any,
    halves: Any,
    down: Any,
    across: Any,
    times: Any,
    width: Any,
    span: Any,
) -> None:
    """Gradients of `gate_pixels`, from that of its result.

    Args:
        features: x, as there.
        gradient: likewise.
        out: the gradient of x; is written.
        small: as there.
        halves: (2, images, h', w', C), zeros; receives for each small row what the rows below it give to it, and what
            they give to the next one.
        down: as there.
        across: as there.
        times: as there.
        width: as there.
        span: the first small row of all images' and the row behind the last; the rows below them are worked on.
    """
    columns, channels = across[0].size, small.shape[3]
    pixel, slope = np.empty(channels, np.float32), np.empty(channels, np.float32)
    between, sums = np.empty(small.shape[2:], np.float32), np.empty(small.shape[2:], np.float32)
    for line in range(span[0], span[1]):
        image, above = line // small.shape[1], line % small.shape[1]
        for row in range(np.searchsorted(down[0], above), np.searchsorted(down[0], above + 1)):
            below = down[1][row]
            _between(small[image], above, below, between)
            sums[:] = 0
            for column in range(columns):
                place, share = across[0][column], across[1][column]
                following = min(place + 1, small.shape[2] - 1)
                left, right, left_sum, right_sum = between[place], between[following], sums[place], sums[following]
                _take(pixel, (features[0][image] + row * features[1] + column * features[2], features[3]), width)
                _take(slope, (gradient[0][image] + row * gradient[1] + column * gradient[2], gradient[3]), width)
                for channel in range(channels):
                    mask = mask_of(left[channel] * (np.float32(1) - share) + right[channel] * share)
                    change = pixel[channel] * slope[channel] * mask * (np.float32(1) - mask)
                    slope[channel] *= mask + times
                    pixel[channel] = change
                _give(slope, (out[0][image] + row * out[1] + column * out[2], out[3]), width)
                for channel in range(channels):
                    left_sum[channel] += pixel[channel] * (np.float32(1) - share)
                for channel in range(channels):
                    right_sum[channel] += pixel[channel] * share
            for place in range(small.shape[2]):
                first, second = halves[0, image, above, place], halves[1, image, above, place]
                for channel in range(channels):
                    first[channel] += sums[place, channel] * (np.float32(1) - below)
                    second[channel] += sums[place, channel] * below
