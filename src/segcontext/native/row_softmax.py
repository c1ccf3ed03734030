"""Softmax over the positions of windows, and its gradient, for a vector of neighbouring pixels; imports numba.

Written in vectors because numba makes none of these loops where they become part of a larger function.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from segcontext.native import vectors
from segcontext.native.intrinsics import called
from segcontext.native.vectors import FLAGS, LANES, VECTOR, fma, instructions, load, same, store

__all__ = ["normalise", "spread_back"]

_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
#: Of the exponential function's series, from the highest power on.
_SERIES = (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0)


@instructions
def normalise(typing: Any, place: Any, plane: Any, positions: Any, scale: Any, most: Any, added: Any) -> Any:
    """Turns the products of a vector of pixels into weights.

    Args (addresses and numbers of bytes, but for `positions` and `scale`):
        place: of the products at the first position; weights take their place.
        plane: from there to those at the next one.
        positions: how many.
        scale: multiplies the products.
        most: where the largest of the scaled products are written to.
        added: where the sums of exponentials are, divided by that of the largest.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, plane, positions, scale, most, added = arguments
        scales, end = same(builder, scale), builder.mul(plane, positions)

        def logit(at: Any) -> Any:
            return builder.fmul(scales, load(builder, at))

        def compare(offset: Any, held: list[Any]) -> list[Any]:
            found = logit(builder.add(place, offset))
            return [builder.select(builder.fcmp_ordered("<=", found, held[0]), held[0], found)]

        def raise_(offset: Any, held: list[Any]) -> list[Any]:
            at = builder.add(place, offset)
            found = _exp(builder, builder.fsub(logit(at), largest))
            store(builder, found, at)
            return [builder.fadd(held[0], found)]

        def divide(offset: Any, held: list[Any]) -> list[Any]:
            at = builder.add(place, offset)
            store(builder, builder.fmul(load(builder, at), inverse), at)
            return held

        (largest,) = vectors.each_step(builder, end, plane, [logit(place)], compare)
        (total,) = vectors.each_step(builder, end, plane, [vectors.ZERO], raise_)
        inverse = builder.fdiv(_constant(1.0), total)
        vectors.each_step(builder, end, plane, [], divide)
        store(builder, largest, most)
        store(builder, total, added)
        return context.get_dummy_value()

    numbers = types.int64
    return types.void(numbers, numbers, numbers, types.float32, numbers, numbers), code


@instructions
def spread_back(typing: Any, place: Any, other: Any, plane: Any, positions: Any, scale: Any, logs: Any) -> Any:
    """Turns the products of a vector of pixels into weights, and gradients of weights into those of the products.

    Args (addresses and numbers of bytes, but for `positions` and `scale`):
        place: of the products at the first position; weights take their place.
        other: of the gradients there; those of the products take their place.
        plane: from there to those at the next position.
        positions: how many.
        scale: multiplies the products.
        logs: of the logarithms of the sums of the exponentials.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, other, plane, positions, scale, logs = arguments
        scales, end, total = same(builder, scale), builder.mul(plane, positions), load(builder, logs)

        def raise_(offset: Any, held: list[Any]) -> list[Any]:
            at = builder.add(place, offset)
            found = _exp(builder, builder.fsub(builder.fmul(scales, load(builder, at)), total))
            store(builder, found, at)
            return [fma(builder, found, load(builder, builder.add(other, offset)), held[0])]

        def change(offset: Any, held: list[Any]) -> list[Any]:
            at = builder.add(other, offset)
            weight = builder.fmul(scales, load(builder, builder.add(place, offset)))
            store(builder, builder.fmul(weight, builder.fsub(load(builder, at), mean)), at)
            return held

        (mean,) = vectors.each_step(builder, end, plane, [vectors.ZERO], raise_)
        vectors.each_step(builder, end, plane, [], change)
        return context.get_dummy_value()

    numbers = types.int64
    return types.void(numbers, numbers, numbers, numbers, types.float32, numbers), code


def _constant(number: float) -> Any:
    return ir.Constant(VECTOR, [number] * LANES)


def _exp(builder: Any, x: Any) -> Any:
    """As `segcontext.native.exponential.exp`."""
    turns = builder.fmul(x, _constant(1.4426950408889634))
    for sign, bound in (("<", -125.0), (">", 125.0)):
        turns = builder.select(builder.fcmp_ordered(sign, turns, _constant(bound)), _constant(bound), turns)
    whole = called(builder, f"llvm.floor.v{LANES}f32", [builder.fadd(turns, _constant(0.5))], VECTOR)
    rest = builder.fmul(builder.fsub(turns, whole), _constant(0.6931471805599453))
    series = _constant(_SERIES[0])
    for factor in _SERIES[1:]:
        series = fma(builder, series, rest, _constant(factor))
    exponent = builder.add(builder.fptosi(whole, _INTEGERS), ir.Constant(_INTEGERS, [127] * LANES))
    power = builder.bitcast(builder.shl(exponent, ir.Constant(_INTEGERS, [23] * LANES)), VECTOR)
    return builder.fmul(series, power, flags=FLAGS)
