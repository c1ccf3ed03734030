"""Products of a few neighbouring pixels with the row of pixels that their windows span; imports numba.

Pixels are vectors of channels behind addresses, so one compiled form serves every layout; what lies outside the map is
the address of zeros. A window is handed on as a tuple, whose length, k, is known when a kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from numba import types

from segcontext.native import vectors
from segcontext.native.vectors import LANES, SUMS, bytes_, fma, instructions, load, pointer_at

__all__ = ["at_once", "dots", "mix", "padded", "prefetch"]


def at_once(kernel_size: int) -> int:
    """How many neighbouring pixels are worked on together, so that their sums stay in registers."""
    return max(1, min(LANES, SUMS // kernel_size))


def padded(kernel_size: int) -> int:
    """Floats that `dots` writes: a sum for each pixel and position, filled up to whole vectors."""
    return -(-at_once(kernel_size) * kernel_size // LANES) * LANES


@instructions
def dots(typing: Any, queries: Any, keys: Any, channels: Any, out: Any, window: Any) -> Any:
    """Writes the products of pixel i with the pixels i … i + k - 1 of a row, to place i·k + o.

    Args (addresses, but for `channels` and `window`):
        queries: of the addresses of `at_once` pixels.
        keys: of those of k - 1 more.
        channels: a multiple of `LANES`.
        out: of `padded` floats.
        window: k of anything.
    """
    size = window.count
    pixels = at_once(size)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        queries, keys, channels, out, _ = arguments
        left = [pointer_at(builder, queries, i) for i in range(pixels)]
        right = [pointer_at(builder, keys, j) for j in range(pixels + size - 1)]

        def body(offset: Any, held: list[Any]) -> list[Any]:
            query = [load(builder, builder.add(each, offset)) for each in left]
            for j, each in enumerate(right):
                key = load(builder, builder.add(each, offset))
                for i in range(max(0, j - size + 1), min(pixels, j + 1)):
                    place = i * size + j - i
                    held[place] = fma(builder, query[i], key, held[place])
            return held

        found = vectors.each_vector(builder, channels, [vectors.ZERO] * (pixels * size), body)
        for start in range(0, pixels * size, LANES):
            total = vectors.sums(builder, found[start : start + LANES])
            vectors.store(builder, total, builder.add(out, bytes_(4 * start)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, window), code


@instructions
def mix(typing: Any, weights: Any, values: Any, channels: Any, outs: Any, fresh: Any, window: Any) -> Any:
    """Adds to each of some pixels the pixels i … i + k - 1 of a row, each times its weight at place i·k + o.

    Args (addresses, but for `channels`, `fresh` and `window`):
        weights: of the floats.
        values: of the addresses of the row's pixels, k - 1 more than `at_once`.
        channels: a multiple of `LANES`.
        outs: of the addresses of `at_once` pixels.
        fresh: 1 where they start from zero, 0 where from what they are.
        window: k of anything.
    """
    size = window.count
    pixels = at_once(size)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights, values, channels, outs, fresh, _ = arguments
        row = [pointer_at(builder, values, j) for j in range(pixels + size - 1)]
        into = [pointer_at(builder, outs, i) for i in range(pixels)]
        scales = [vectors.splat(builder, builder.add(weights, bytes_(4 * n))) for n in range(pixels * size)]
        empty = builder.icmp_signed("!=", fresh, bytes_(0))

        def body(offset: Any, held: list[Any]) -> list[Any]:
            out = [builder.select(empty, vectors.ZERO, load(builder, builder.add(each, offset))) for each in into]
            for j, each in enumerate(row):
                value = load(builder, builder.add(each, offset))
                for i in range(max(0, j - size + 1), min(pixels, j + 1)):
                    out[i] = fma(builder, scales[i * size + j - i], value, out[i])
            for each, vector in zip(into, out, strict=True):
                vectors.store(builder, vector, builder.add(each, offset))
            return held

        vectors.each_vector(builder, channels, [], body)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64, window), code


@instructions
def prefetch(typing: Any, address: Any, channels: Any) -> Any:
    """Has a pixel brought near, while others are worked on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, channels = arguments

        # Lines of the cache hold two vectors on nearly every processor.
        def body(offset: Any, held: list[Any]) -> list[Any]:
            vectors.fetch(builder, builder.add(address, builder.mul(offset, bytes_(2))))
            return held

        vectors.each_vector(builder, builder.ashr(channels, bytes_(1)), [], body)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code
