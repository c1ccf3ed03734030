"""Steps of an interpolation within the cells between four neighbouring values, on sixteen cells or pixels at once.

The class of a pixel or cell is kept as a float32, so that it is chosen along with the value; that is exact up to 2²⁴.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from segcontext.native.intrinsics import called, intrinsic, pointer, spread
from segcontext.native.lane_values import LANES, lanes

__all__ = ["between", "chosen", "highest", "lowest", "mixed", "put_class", "put_classes", "reaching"]

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGER = ir.IntType(32)


def _bound(relation: str) -> Any:
    """Generates the smallest or largest of four values: a row's at `over` and beside it, another's at `under`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        one = ir.Constant(values[1].type, 1)
        places = [place for at in values[1:] for place in (at, builder.add(at, one))]
        kind, found = signature.args[0], None
        for place in places:
            value = builder.load(pointer(context, builder, kind, values[0], place, _FLOATS), align=4)
            found = (
                value if found is None else builder.select(builder.fcmp_ordered(relation, value, found), value, found)
            )
        return found

    return generate


@intrinsic
def lowest(_: Any, values: Any, over: Any, under: Any) -> Any:
    """The smallest values of cells.

    Args:
        values: float32, flat.
        over: where the upper left value of the first cell is; the upper right one and the next cells follow.
        under: where its lower left value is.
    """
    return lanes(values, types.intp, types.intp), _bound("<")


@intrinsic
def highest(_: Any, values: Any, over: Any, under: Any) -> Any:
    """The largest values of cells; see `lowest`."""
    return lanes(values, types.intp, types.intp), _bound(">")


@intrinsic
def reaching(_: Any, values: Any, floor: Any) -> Any:
    """A uint64 whose bit n says whether the n-th value is at least as large as the n-th floor."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.bitcast(builder.fcmp_ordered(">=", *values), ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(lanes, lanes), generate


@intrinsic
def chosen(_: Any, values: Any, floor: Any, these: Any, others: Any) -> Any:
    """These numbers where values are at least as large as their floors, and others where they are not."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">=", *values[:2]), *values[2:])

    return lanes(lanes, lanes, lanes, lanes), generate


@intrinsic
def between(_: Any, start: Any, end: Any, before: Any, behind: Any, place: Any) -> Any:
    """Interpolates between two values: start · before[x] + end · behind[x].

    Of the two products the first is not rounded, as PyTorch computes it on processors with fused multiply-adds.

    Args:
        start: float32, the value to the left.
        end: float32, the value to the right.
        before: float32, weights of the left one.
        behind: float32, weights of the right one.
        place: the first x.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        at = [pointer(context, builder, signature.args[n], values[n], values[4], _FLOATS) for n in (2, 3)]
        before, behind = (builder.load(each, align=4) for each in at)
        left, right = (spread(builder, value, _FLOATS) for value in values[:2])
        return _fused(builder, left, before, builder.fmul(right, behind))

    return lanes(types.float32, types.float32, before, behind, types.intp), generate


@intrinsic
def mixed(_: Any, over: Any, under: Any, above: Any, below: Any) -> Any:
    """Interpolates between two rows: over · above + under · below, the first product not rounded.

    Args:
        over: values of the row above.
        under: values of the row below.
        above: float32, the weight of the row above.
        below: float32, the weight of the row below.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        above, below = (spread(builder, value, _FLOATS) for value in values[2:])
        return _fused(builder, values[0], above, builder.fmul(values[1], below))

    return lanes(lanes, lanes, types.float32, types.float32), generate


@intrinsic
def put_class(_: Any, number: Any, line: Any, place: Any) -> Any:
    """Writes one class into the `LANES` labels from line[place] on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        label = context.get_value_type(signature.args[1].dtype)
        kind = ir.VectorType(label, LANES)
        at = pointer(context, builder, signature.args[1], values[1], values[2], kind)
        builder.store(spread(builder, builder.trunc(values[0], label), kind), at, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, line, types.intp), generate


@intrinsic
def put_classes(_: Any, numbers: Any, line: Any, place: Any, count: Any) -> Any:
    """Writes the first classes into the labels from line[place] on, at most `LANES` and `count` of them."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        wide = ir.VectorType(_INTEGER, LANES)
        kind = ir.VectorType(context.get_value_type(signature.args[1].dtype), LANES)
        at = pointer(context, builder, signature.args[1], values[1], values[2], kind)
        found = builder.fptosi(values[0], wide)
        found = found if kind.element == _INTEGER else builder.trunc(found, kind)
        left = spread(builder, builder.trunc(values[3], _INTEGER), wide)
        inside = builder.icmp_signed("<", ir.Constant(wide, list(range(LANES))), left)
        builder.store(builder.select(inside, found, builder.load(at, align=1)), at, align=1)
        return context.get_dummy_value()

    return types.void(lanes, line, types.intp, types.intp), generate


def _fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """The sum x · y + z, rounded once."""
    return called(builder, f"llvm.fma.v{LANES}f32", [x, y, z], _FLOATS)
