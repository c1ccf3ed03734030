"""The sums of depthwise 3×3 convolutions of stride 2 for one pixel of the result, over its channels; imports numba.

Pixels are float32 vectors of channels behind addresses; whoever calls fills vectors up and puts zeros around the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

from segcontext.native.vectors import ZERO, bytes_, each_vector, fma, instructions, load, pointer_at, store

__all__ = ["BLOCK", "SHARES", "convolve", "give_back", "sum_up"]

#: Channels at a time: long runs are read faster, and sums and weights of more would not stay near.
BLOCK = 512

#: For each of the four pixels (2r, 2c), (2r, 2c + 1), (2r + 1, 2c), (2r + 1, 2c + 1), counted from where the kernel
#: begins: which of the gradients at (r, c), (r, c - 1), (r - 1, c), (r - 1, c - 1) reach it, and through which weight.
SHARES = (((0, 0), (1, 2), (2, 6), (3, 8)), ((0, 1), (2, 7)), ((0, 3), (1, 5)), ((0, 4),))


@instructions
def convolve(typing: Any, places: Any, weights: Any, channels: Any) -> Any:
    """Writes a pixel of the result.

    Args (addresses, but for the last):
        places: of the addresses of nine pixels and of the result.
        weights: (10, `BLOCK`), the kernel's nine and the shift.
        channels: a multiple of the vectors'.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places, weights, channels = arguments
        given = [pointer_at(builder, places, number) for number in range(9)]
        out = pointer_at(builder, places, 9)

        def body(offset: Any, held: list[Any]) -> list[Any]:
            rows = []
            for row in range(3):
                total = _at(builder, weights, 9, offset) if row == 0 else ZERO
                for number in range(3 * row, 3 * row + 3):
                    pixel = load(builder, builder.add(given[number], offset))
                    total = fma(builder, pixel, _at(builder, weights, number, offset), total)
                rows.append(total)
            store(builder, builder.fadd(builder.fadd(rows[0], rows[1]), rows[2]), builder.add(out, offset))
            return held

        each_vector(builder, channels, [], body)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), code


@instructions
def give_back(typing: Any, places: Any, weights: Any, channels: Any, fresh: Any) -> Any:
    """Adds to the gradients of four pixels what the results around them give, see `SHARES`.

    Args (addresses, but for the last two):
        places: of the addresses of four gradients of the result, and of the four pixels' gradients.
        weights: (9, `BLOCK`), the kernel.
        channels: a multiple of the vectors'.
        fresh: 1 where the pixels' gradients start from zero, 0 where from what they are.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places, weights, channels, fresh = arguments
        told = [pointer_at(builder, places, number) for number in range(4)]
        outs = [pointer_at(builder, places, 4 + number) for number in range(4)]
        empty = builder.icmp_signed("!=", fresh, bytes_(0))

        def body(offset: Any, held: list[Any]) -> list[Any]:
            slopes = [load(builder, builder.add(each, offset)) for each in told]
            for out, shares in zip(outs, SHARES, strict=True):
                place = builder.add(out, offset)
                total = builder.select(empty, ZERO, load(builder, place))
                for slope, weight in shares:
                    total = fma(builder, slopes[slope], _at(builder, weights, weight, offset), total)
                store(builder, total, place)
            return held

        each_vector(builder, channels, [], body)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), code


@instructions
def sum_up(typing: Any, places: Any, slope: Any, sums: Any, channels: Any) -> Any:
    """Adds to the gradients of the kernel and of the shift what one pixel of the result gives.

    Args (addresses, but for the last):
        places: of the addresses of nine pixels.
        slope: the gradient of the result.
        sums: (10, `BLOCK`), the kernel's nine and the shift's.
        channels: a multiple of the vectors'.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places, slope, sums, channels = arguments
        given = [pointer_at(builder, places, number) for number in range(9)]

        def body(offset: Any, held: list[Any]) -> list[Any]:
            own = load(builder, builder.add(slope, offset))
            totals: Sequence[Any] = [_at(builder, sums, number, offset) for number in range(10)]
            for number, total in enumerate(totals):
                if number < 9:
                    total = fma(builder, own, load(builder, builder.add(given[number], offset)), total)
                else:
                    total = builder.fadd(total, own)
                store(builder, total, builder.add(sums, builder.add(offset, bytes_(4 * BLOCK * number))))
            return held

        each_vector(builder, channels, [], body)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), code


def _at(builder: Any, table: Any, number: int, offset: Any) -> Any:
    """A vector of one row of a table whose rows are `BLOCK` floats apart."""
    return load(builder, builder.add(table, builder.add(offset, bytes_(4 * BLOCK * number))))
