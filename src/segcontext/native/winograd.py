"""The transforms of 3×3 convolutions by F(2×2, 3×3), on maps of bfloat16 stored channels-last."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.jit import inlined, jit

__all__ = ["bring", "take"]


@inlined
def _wide(bits: Any) -> Any:
    """A bfloat16 number, given as its 16 bits, in float32."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@inlined
def _narrow(value: Any) -> Any:
    """The nearest bfloat16 number, to even where two are as near, as its 16 bits."""
    bits = np.float32(value).view(np.uint32)
    even = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + even) >> np.uint32(16))


@jit
def take(source: Any, place: Any, dilation: int, found: Any, first: int, last: int) -> None:
    """Takes tiles out of a map and transforms them: Bᵀ d B.

    Args:
        source: (H, W, C), bits of bfloat16.
        place: (tiles, 2): row and column of each tile's upper left output pixel.
        dilation: distance of the pixels that belong together.
        found: (16, tiles, C), bits of bfloat16.
        first: the first tile.
        last: the one behind the last.
    """
    height, width, channels = source.shape
    pixels = np.empty((16, channels), np.float32)
    rows = np.empty((16, channels), np.float32)
    for tile in range(first, last):
        for cell in range(16):
            y = place[tile, 0] + (cell // 4 - 1) * dilation
            x = place[tile, 1] + (cell % 4 - 1) * dilation
            line = pixels[cell]
            if 0 <= y < height and 0 <= x < width:
                given = source[y, x]
                for c in range(channels):
                    line[c] = _wide(given[c])
            else:
                line[:] = 0.0
        for column in range(4):
            a, b, d, e = pixels[column], pixels[4 + column], pixels[8 + column], pixels[12 + column]
            p, q, r, s = rows[column], rows[4 + column], rows[8 + column], rows[12 + column]
            for c in range(channels):
                p[c] = a[c] - d[c]
            for c in range(channels):
                q[c] = b[c] + d[c]
            for c in range(channels):
                r[c] = d[c] - b[c]
            for c in range(channels):
                s[c] = b[c] - e[c]
        for row in range(0, 16, 4):
            a, b, d, e = rows[row], rows[row + 1], rows[row + 2], rows[row + 3]
            p, q, r, s = found[row, tile], found[row + 1, tile], found[row + 2, tile], found[row + 3, tile]
            for c in range(channels):
                p[c] = _narrow(a[c] - d[c])
            for c in range(channels):
                q[c] = _narrow(b[c] + d[c])
            for c in range(channels):
                r[c] = _narrow(d[c] - b[c])
            for c in range(channels):
                s[c] = _narrow(b[c] - e[c])


@jit
def bring(products: Any, place: Any, dilation: int, bias: Any, target: Any, first: int, last: int) -> None:
    """Transforms products back and puts them into a map: Aᵀ m A + bias.

    Args:
        products: (16, tiles, K), bits of bfloat16.
        place: as for `take`.
        dilation: as there.
        bias: (K,), float32.
        target: (H, W, K), bits of bfloat16; pixels of tiles that lie outside are left out.
        first: the first tile.
        last: the one behind the last.
    """
    height, width, channels = target.shape
    upper = np.empty((4, channels), np.float32)
    lower = np.empty((4, channels), np.float32)
    for tile in range(first, last):
        for column in range(4):
            a, b = products[column, tile], products[4 + column, tile]
            d, e = products[8 + column, tile], products[12 + column, tile]
            p, q = upper[column], lower[column]
            for c in range(channels):
                p[c] = _wide(a[c]) + _wide(b[c]) + _wide(d[c])
            for c in range(channels):
                q[c] = _wide(b[c]) - _wide(d[c]) - _wide(e[c])
        for row in range(2):
            y, x = place[tile, 0] + row * dilation, place[tile, 1]
            if y >= height:
                continue
            half = upper if row == 0 else lower
            f, g, h, k = half[0], half[1], half[2], half[3]
            if x < width:
                out = target[y, x]
                for c in range(channels):
                    out[c] = _narrow(f[c] + g[c] + h[c] + bias[c])
            if x + dilation < width:
                out = target[y, x + dilation]
                for c in range(channels):
                    out[c] = _narrow(g[c] - h[c] - k[c] + bias[c])
