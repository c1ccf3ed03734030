"""Rows of pixels moved between layouts and widths: planes, pixels, float32 and bfloat16; imports numba.

The width of a float in bytes is handed on as the length of a tuple, which is known when a kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from segcontext.native import vectors
from segcontext.native.jit import jit
from segcontext.native.vectors import LANES, VECTOR, instructions
from segcontext.native.window_products import prefetch

__all__ = ["move_rows", "read", "write"]


@jit
def move_rows(source: Any, out: Any, rows: int, pixels: int, channels: int) -> None:
    """Copies rows of pixels, rounding to the nearest even where the copy is narrower.

    Args:
        source: its address, the steps in bytes from row to row, from pixel to pixel and from channel to channel, and a
            tuple as long as one float has bytes: 4 for float32, 2 for bfloat16.
        out: the same of where it goes; one of both is float32.
        rows: how many.
        pixels: of a row.
        channels: of a pixel.
    """
    begin, down, across, along, width = source
    to, out_down, out_across, out_along, out_width = out
    for row in range(rows):
        first, out_first = (begin + row * down, across, along), (to + row * out_down, out_across, out_along)
        _move_row(first, out_first, width, out_width, pixels, channels)


@jit
def _move_row(source: Any, out: Any, width: Any, out_width: Any, pixels: int, channels: int) -> None:
    begin, across, along = source
    end, out_across, out_along = out
    whole, turned = channels - channels % LANES, pixels - pixels % LANES
    narrow, out_narrow = len(width), len(out_width)
    if along == narrow and out_along == out_narrow:
        turned = pixels
        for pixel in range(pixels):
            for channel in range(0, whole, LANES):
                at, to = begin + pixel * across + channel * along, end + pixel * out_across + channel * out_along
                _vector(at, to, width, out_width)
    elif across == narrow and out_along == out_narrow:
        # Channels outside: planes whose sizes are powers of two share the places of the cache, a few at a time.
        for channel in range(0, whole, LANES):
            for following in range(channel + LANES, min(channel + 2 * LANES, whole)):
                prefetch(begin + following * along, pixels * narrow // 4)
            for pixel in range(0, turned, LANES):
                at, to = begin + pixel * across + channel * along, end + pixel * out_across + channel * out_along
                _square(at, along, to, out_across, width, out_width)
    elif along == narrow and out_across == out_narrow:
        for channel in range(0, whole, LANES):
            for pixel in range(0, turned, LANES):
                at, to = begin + pixel * across + channel * along, end + pixel * out_across + channel * out_along
                _square(at, across, to, out_along, width, out_width)
    else:
        turned = 0
    for pixel in range(pixels):
        for channel in range(whole if pixel < turned else 0, channels):
            at, to = begin + pixel * across + channel * along, end + pixel * out_across + channel * out_along
            _single(at, to, width, out_width)


def read(builder: Any, address: Any, bytes_each: int, kind: Any = VECTOR) -> Any:
    """Floats at an address, of 4 or 2 bytes each, as float32."""
    if bytes_each == 4:
        found = builder.load(builder.inttoptr(address, kind.as_pointer()))
        found.align = 4
        return found
    half, whole = _integers(kind, 16), _integers(kind, 32)
    found = builder.load(builder.inttoptr(address, half.as_pointer()))
    found.align = 2
    return builder.bitcast(builder.shl(builder.zext(found, whole), _same(whole, 16)), kind)


def write(builder: Any, value: Any, address: Any, bytes_each: int) -> None:
    """Puts float32 to an address, rounded where they take 2 bytes each."""
    if bytes_each == 2:
        half, whole = _integers(value.type, 16), _integers(value.type, 32)
        bits = builder.bitcast(value, whole)
        odd = builder.and_(builder.lshr(bits, _same(whole, 16)), _same(whole, 1))
        rounded = builder.add(bits, builder.add(odd, _same(whole, 0x7FFF)))
        missing = builder.fcmp_unordered("uno", value, value)
        rounded = builder.select(missing, _same(whole, 0x7FC00000), rounded)
        value = builder.trunc(builder.lshr(rounded, _same(whole, 16)), half)
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = bytes_each


def _integers(kind: Any, bits: int) -> Any:
    number = ir.IntType(bits)
    return ir.VectorType(number, kind.count) if isinstance(kind, ir.VectorType) else number


def _same(kind: Any, number: int) -> Any:
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


@instructions
def _vector(typing: Any, source: Any, out: Any, width: Any, out_width: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write(builder, read(builder, arguments[0], width.count), arguments[1], out_width.count)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, width, out_width), code


@instructions
def _single(typing: Any, source: Any, out: Any, width: Any, out_width: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write(builder, read(builder, arguments[0], width.count, vectors.FLOAT), arguments[1], out_width.count)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, width, out_width), code


@instructions
def _square(typing: Any, source: Any, step: Any, out: Any, out_step: Any, width: Any, out_width: Any) -> Any:
    """`LANES` vectors, `step` bytes apart, turned into as many across them."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, step, out, out_step, *_ = arguments
        rows = []
        for _ in range(LANES):
            rows.append(read(builder, source, width.count))
            source = builder.add(source, step)
        for column in vectors.transposed(builder, rows):
            write(builder, column, out, out_width.count)
            out = builder.add(out, out_step)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, width, out_width), code
