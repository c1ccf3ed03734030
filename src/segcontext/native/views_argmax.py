"""The argmax of several views' logits or probabilities, added up tile by tile and never held as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.addresses import carray, floats_at
from segcontext.native.jit import inlined, jit
from segcontext.native.lane_values import LANES, lanes_at, larger, nothing, plus, put_lanes

__all__ = ["MOST_ROWS", "TILE", "label_tiles"]

#: Rows of features that a row of tiles is made of, at most.
MOST_ROWS = 64

#: Rows and columns of a tile.
TILE = (8, LANES)

_ROWS, _COLUMNS = TILE
_PIXELS = _ROWS * _COLUMNS
_LOG2E = np.float32(1.4426950408889634)
# ln 2 in two parts: the first has few digits, so that its multiples are exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)


@inlined
def _exp(x: Any) -> Any:
    """e^x of a float32 of at most about 0; relative error below 3e-7."""
    x = max(x, np.float32(-86))
    n = np.floor(x * _LOG2E + np.float32(0.5))
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@jit
def label_tiles(
    addresses: Any,
    shapes: Any,
    classes: int,
    tops: Any,
    row_weights: Any,
    lefts: Any,
    spans: Any,
    starts: Any,
    column_weights: Any,
    softmax: bool,
    labels: Any,
    first: int,
    last: int,
) -> None:
    """Finds the labels of some rows of tiles.

    Every value of a view's answer lies between the smallest and the largest of the features' values under the tile.
    So each class's sum over the views is bounded on both sides, and only classes whose bound from above reaches the
    largest bound from below are added up pixel by pixel. In the softmax a class counts from 2⁻²⁸ of the others' sum.

    Args:
        addresses: of each view's logits, float32, (classes, h, w) without gaps, all finite; int64, (views,).
        shapes: their h and w, (views, 2).
        classes: how many there are.
        tops: of each row of labels, the first row of features it is made of, int32, (views, H).
        row_weights: weights of that row and those below it, float32, (views, H, taps).
        lefts: of each column of tiles, the first column of features it is made of, int32, (views, tiles across).
        spans: how many columns of features a tile is made of, (views,).
        starts: how many columns of features all tiles of the views before are made of, (views,).
        column_weights: their weights in each of its columns, float32, flat: for each view (tiles across, its span,
            columns of a tile).
        softmax: whether probabilities are added up, or logits.
        labels: integers, (H, W), to be filled.
        first: first row of tiles.
        last: row of tiles behind the last.
    """
    views = len(addresses)
    taps = row_weights.shape[2]
    height, width = labels.shape
    across = (width + _COLUMNS - 1) // _COLUMNS
    low = np.empty((views, across, classes), np.float32)
    high = np.empty((views, across, classes), np.float32)
    widest = 0
    for v in range(views):
        widest = max(widest, shapes[v, 1])
    small, large = np.empty(widest, np.float32), np.empty(widest, np.float32)
    least, most = np.empty((views, classes), np.float32), np.empty((views, classes), np.float32)
    lows, highs = np.empty(classes, np.float32), np.empty(classes, np.float32)
    below, beyond = np.empty(classes, np.float32), np.empty(classes, np.float32)
    chosen = np.empty(classes, np.int32)
    shares = np.empty((views, classes), np.float32)
    z = np.empty(classes * _PIXELS, np.float32)
    sums = np.empty((classes, _PIXELS), np.float32)
    top = np.empty(_PIXELS, np.float32)
    total = np.empty(_PIXELS, np.float32)
    lines = np.empty(MOST_ROWS * _COLUMNS, np.float32)
    best = np.empty(_PIXELS, np.float32)
    found = np.empty(_PIXELS, np.int32)
    for tile in range(first, last):
        y = tile * _ROWS
        bottom = min(y + _ROWS, height) - 1
        for v in range(views):
            h, w = shapes[v, 0], shapes[v, 1]
            logits = carray(floats_at(addresses[v]), (classes, h, w))
            upper, lower = tops[v, y], tops[v, bottom] + taps
            for c in range(classes):
                strip = logits[c, upper]
                for j in range(w):
                    small[j] = strip[j]
                    large[j] = strip[j]
                for i in range(upper + 1, lower):
                    strip = logits[c, i]
                    for j in range(w):
                        small[j] = min(small[j], strip[j])
                        large[j] = max(large[j], strip[j])
                for t in range(across):
                    a = lefts[v, t]
                    lo, hi = small[a], large[a]
                    for j in range(a + 1, a + spans[v]):
                        lo = min(lo, small[j])
                        hi = max(hi, large[j])
                    low[v, t, c] = lo
                    high[v, t, c] = hi
        for t in range(across):
            x = t * _COLUMNS
            # Bounds of what is added up.
            lows[:] = 0
            highs[:] = 0
            for v in range(views):
                lo, hi = low[v, t], high[v, t]
                if softmax:
                    peak = hi[0]
                    for c in range(1, classes):
                        peak = max(peak, hi[c])
                    least_sum, most_sum = np.float32(0), np.float32(0)
                    for c in range(classes):
                        # The exponential is never less than e⁻⁸⁶, which would be too large a bound from below.
                        below[c] = _exp(lo[c] - peak) if lo[c] - peak > np.float32(-86) else np.float32(0)
                        beyond[c] = _exp(hi[c] - peak)
                        least_sum += below[c]
                        most_sum += beyond[c]
                    # A difference of sums is off by the digits that the sums lack: that is given to the bounds.
                    slack = np.float32(classes * 2.0**-22)
                    for c in range(classes):
                        least[v, c] = below[c] / (
                            below[c] + max(most_sum - beyond[c], np.float32(0)) + slack * most_sum
                        )
                        rest = max(least_sum - below[c] - slack * least_sum, np.float32(0))
                        most[v, c] = beyond[c] / (beyond[c] + rest)
                        shares[v, c] = beyond[c] / max(least_sum, np.float32(1e-30))
                        lows[c] += least[v, c]
                        highs[c] += most[v, c]
                else:
                    for c in range(classes):
                        lows[c] += lo[c]
                        highs[c] += hi[c]
            leader = 0
            for c in range(1, classes):
                if lows[c] > lows[leader]:
                    leader = c
            count = 0
            for c in range(classes):
                if c != leader and softmax:
                    # Where the leader's logit is larger throughout a view, so is its probability.
                    ahead = np.float32(0)
                    for v in range(views):
                        gap = least[v, leader] - most[v, c]
                        if low[v, t, leader] >= high[v, t, c]:
                            gap = max(gap, np.float32(0))
                        ahead += gap
                    out = ahead > np.float32(1e-5) * views
                else:
                    out = highs[c] < lows[leader] - np.float32(1e-5) * max(abs(lows[leader]), abs(highs[c]))
                if c == leader or not out:
                    chosen[count] = c
                    count += 1
            rows, columns = bottom + 1 - y, min(_COLUMNS, width - x)
            if count == 1:
                for row in range(rows):
                    for column in range(columns):
                        labels[y + row, x + column] = leader
                continue
            for n in range(count):
                sums[n] = 0
            for v in range(views):
                h, w = shapes[v, 0], shapes[v, 1]
                logits = carray(floats_at(addresses[v]), (classes, h, w))
                upper, lower = tops[v, y], tops[v, bottom] + taps
                top[:] = -np.inf
                n = 0
                for c in range(classes):
                    wanted = n < count and chosen[n] == c
                    n += wanted
                    if not wanted and (not softmax or shares[v, c] < np.float32(2.0**-28)):
                        continue
                    left, block = lefts[v, t], starts[v] + t * spans[v]
                    # Three rows at a time: weights are read once, and no sum waits for its last step. Beyond the
                    # last row it is repeated.
                    for i in range(upper, lower, 3):
                        second, third = min(i + 1, lower - 1), min(i + 2, lower - 1)
                        line, line2, line3 = nothing(), nothing(), nothing()
                        for j in range(spans[v]):
                            weights = lanes_at(column_weights, (block + j) * _COLUMNS)
                            line = plus(line, logits[c, i, left + j], weights)
                            line2 = plus(line2, logits[c, second, left + j], weights)
                            line3 = plus(line3, logits[c, third, left + j], weights)
                        put_lanes(line, lines, (i - upper) * _COLUMNS)
                        put_lanes(line2, lines, (second - upper) * _COLUMNS)
                        put_lanes(line3, lines, (third - upper) * _COLUMNS)
                    place = c * _PIXELS
                    for row in range(_ROWS):
                        at = min(y + row, height - 1)
                        above = tops[v, at] - upper
                        value = nothing()
                        for tap in range(taps):
                            value = plus(value, row_weights[v, at, tap], lanes_at(lines, (above + tap) * _COLUMNS))
                        put_lanes(value, z, place + row * _COLUMNS)
                        put_lanes(larger(value, lanes_at(top, row * _COLUMNS)), top, row * _COLUMNS)
                if softmax:
                    total[:] = 0
                    n = 0
                    for c in range(classes):
                        wanted = n < count and chosen[n] == c
                        n += wanted
                        if not wanted and shares[v, c] < np.float32(2.0**-28):
                            continue
                        values = z[c * _PIXELS : (c + 1) * _PIXELS]
                        for p in range(_PIXELS):
                            power = _exp(values[p] - top[p])
                            values[p] = power
                            total[p] += power
                    for p in range(_PIXELS):
                        total[p] = np.float32(1) / total[p]
                else:
                    total[:] = 1
                for n in range(count):
                    values, into = z[chosen[n] * _PIXELS : (chosen[n] + 1) * _PIXELS], sums[n]
                    for p in range(_PIXELS):
                        into[p] += values[p] * total[p]
            best[:] = sums[0]
            found[:] = chosen[0]
            for n in range(1, count):
                values, c = sums[n], chosen[n]
                for p in range(_PIXELS):
                    better = values[p] > best[p]
                    best[p] = values[p] if better else best[p]
                    found[p] = c if better else found[p]
            for row in range(rows):
                for column in range(columns):
                    labels[y + row, x + column] = found[row * _COLUMNS + column]
