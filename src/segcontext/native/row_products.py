"""Products of a vector of neighbouring pixels with those that their windows see in one row; imports numba.

Channels lie in rows of pixels here, one after the other, so a shift of the window is another address to load from, and
nothing has to be turned. A row of keys is multiplied with several rows of queries at once: what is loaded for k
positions then serves all of them. What depends on k is known when a kernel is compiled: k is a tuple's length.
"""

from __future__ import annotations

from typing import Any

from numba import types

from segcontext.native import vectors
from segcontext.native.vectors import REGISTERS, fma, instructions, load, pointer_at

__all__ = ["row_dots", "row_mix", "rows_at_once"]


def rows_at_once(kernel_size: int) -> int:
    """How many rows are worked on together, so that k sums or k weights for each of them stay in registers."""
    most = max(1, (REGISTERS - 1) // (kernel_size + 1))
    groups = -(-kernel_size // most)
    return -(-kernel_size // groups)


@instructions
def row_dots(
    typing: Any,
    own: Any,
    near: Any,
    step: Any,
    pitch: Any,
    channels: Any,
    outs: Any,
    plane: Any,
    at: Any,
    window: Any,
) -> Any:
    """Adds to sums the products of a vector of pixels, in each of some rows, with the pixels at k positions of a row.

    Args (addresses and numbers of bytes, but for `channels` and `window`):
        own: of the addresses of `rows_at_once` rows.
        near: of the row, from the first position of the first pixel on.
        step: from position to position.
        pitch: from channel to channel, in all rows.
        channels: how many, one at least.
        outs: of the addresses of the rows' sums at the first position.
        plane: from there to those at the next position.
        at: of the vector, from the beginning of each row.
        window: k of anything.
    """
    size = window.count
    rows = rows_at_once(size)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        own, near, step, pitch, channels, outs, plane, at, _ = arguments
        queries = [builder.add(pointer_at(builder, own, row), at) for row in range(rows)]
        keys = _apart(builder, builder.add(near, at), step, size)
        totals = [
            place
            for row in range(rows)
            for place in _apart(builder, builder.add(pointer_at(builder, outs, row), at), plane, size)
        ]

        def body(offset: Any, held: list[Any]) -> list[Any]:
            query = [load(builder, builder.add(each, offset)) for each in queries]
            for position, each in enumerate(keys):
                key = load(builder, builder.add(each, offset))
                for row in range(rows):
                    place = row * size + position
                    held[place] = fma(builder, query[row], key, held[place])
            return held

        held = [load(builder, each) for each in totals]
        found = vectors.each_step(builder, builder.mul(channels, pitch), pitch, held, body)
        for total, each in zip(found, totals, strict=True):
            vectors.store(builder, total, each)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, window), code


@instructions
def row_mix(
    typing: Any,
    weights: Any,
    plane: Any,
    near: Any,
    step: Any,
    pitch: Any,
    channels: Any,
    outs: Any,
    at: Any,
    window: Any,
) -> Any:
    """Adds to a vector of pixels, in each of some rows, the pixels at k positions of a row, times their weights.

    Args (addresses and numbers of bytes, but for `channels` and `window`):
        weights: of the addresses of the weights of `rows_at_once` rows at the first position.
        plane: from there to those at the next position.
        near: of the row, from the first position of the first pixel on.
        step: from position to position.
        pitch: from channel to channel, in all rows.
        channels: how many, one at least.
        outs: of the addresses of the rows that are added to.
        at: of the vector, from the beginning of each row.
        window: k of anything.
    """
    size = window.count
    rows = rows_at_once(size)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights, plane, near, step, pitch, channels, outs, at, _ = arguments
        values = _apart(builder, builder.add(near, at), step, size)
        into = [builder.add(pointer_at(builder, outs, row), at) for row in range(rows)]
        scales = [
            load(builder, place)
            for row in range(rows)
            for place in _apart(builder, builder.add(pointer_at(builder, weights, row), at), plane, size)
        ]

        def body(offset: Any, held: list[Any]) -> list[Any]:
            places = [builder.add(each, offset) for each in into]
            out = [load(builder, place) for place in places]
            for position, each in enumerate(values):
                value = load(builder, builder.add(each, offset))
                for row in range(rows):
                    out[row] = fma(builder, scales[row * size + position], value, out[row])
            for place, vector in zip(places, out, strict=True):
                vectors.store(builder, vector, place)
            return held

        vectors.each_step(builder, builder.mul(channels, pitch), pitch, [], body)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, window), code


def _apart(builder: Any, first: Any, step: Any, count: int) -> list[Any]:
    """Addresses at equal distances."""
    found = [first]
    for _ in range(count - 1):
        found.append(builder.add(found[-1], step))
    return found
