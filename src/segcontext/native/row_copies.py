"""Pieces of rows of several channels copied between a map and scratch."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from segcontext.native import vectors
from segcontext.native.jit import jit
from segcontext.native.pixel_rows import move_rows, read, write
from segcontext.native.vectors import FLOAT, bytes_, instructions

__all__ = ["bring", "fetch", "put"]

#: Floats that are copied at once: a line of the cache.
LINE = 16
WIDE = (0, 0, 0, 0)


@jit
def bring(piece: Any, into: int, pitch: int) -> None:
    """Copies a piece of a map's rows to scratch.

    Args:
        piece: the address, the step in bytes to the next channel, and a tuple as long as one float has bytes; floats of
            a channel, one at least; and channels, perhaps none.
        into: the address of float32.
        pitch: the step in bytes to the next channel there.
    """
    (begin, along, width), floats, channels = piece
    if floats >= LINE and channels > 0:
        _pieces(begin, along, into, pitch, floats, channels, width, WIDE)
    else:
        move_rows((begin, along, 0, len(width), width), (into, pitch, 0, 4, WIDE), channels, 1, floats)


@jit
def put(piece: Any, held: int, pitch: int) -> None:
    """Copies a piece of a map's rows from scratch to the map; see `bring`."""
    (begin, along, width), floats, channels = piece
    if floats >= LINE and channels > 0:
        _pieces(held, pitch, begin, along, floats, channels, WIDE, width)
    else:
        move_rows((held, pitch, 0, 4, WIDE), (begin, along, 0, len(width), width), channels, 1, floats)


@jit
def fetch(piece: Any) -> None:
    """Has a piece of a map's rows brought near, while others are worked on; see `bring`."""
    (begin, along, width), floats, channels = piece
    if channels > 0:
        _fetch(begin, along, floats * len(width), channels)


@instructions
def _fetch(typing: Any, source: Any, along: Any, size: Any, channels: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, along, size, channels = arguments
        last = builder.sub(size, bytes_(1))

        def channel(_: Any, starts: list[Any]) -> list[Any]:
            def line(offset: Any, held: list[Any]) -> list[Any]:
                vectors.fetch(builder, builder.add(starts[0], offset))
                return held

            vectors.each_step(builder, last, bytes_(4 * LINE), [], line)
            # Where the first is not at the beginning of a line, there may be one more.
            vectors.fetch(builder, builder.add(starts[0], last))
            return [builder.add(starts[0], along)]

        vectors.each_step(builder, channels, bytes_(1), [source], channel)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), code


@instructions
def _pieces(
    typing: Any,
    source: Any,
    along: Any,
    out: Any,
    out_along: Any,
    floats: Any,
    channels: Any,
    width: Any,
    out_width: Any,
) -> Any:
    """Copies pieces of `LINE` floats or more."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, along, out, out_along, floats, channels, *_ = arguments
        last = builder.sub(floats, bytes_(LINE))

        def copy(starts: list[Any], number: Any) -> None:
            begin, end = (
                builder.add(start, builder.mul(number, bytes_(kind.count)))
                for start, kind in zip(starts, (width, out_width), strict=True)
            )
            found = read(builder, begin, width.count, ir.VectorType(FLOAT, LINE))
            write(builder, found, end, out_width.count)

        def channel(_: Any, starts: list[Any]) -> list[Any]:
            def vector(number: Any, held: list[Any]) -> list[Any]:
                copy(starts, number)
                return held

            vectors.each_step(builder, last, bytes_(LINE), [], vector)
            # The last ones, some of them perhaps once more.
            copy(starts, last)
            return [builder.add(start, step) for start, step in zip(starts, (along, out_along), strict=True)]

        vectors.each_step(builder, channels, bytes_(1), [source, out], channel)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, width, out_width), code
