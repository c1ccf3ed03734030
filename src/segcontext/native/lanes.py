"""Steps on sixteen neighbouring pixels at once: loops over so few are not made into vectors by the compiler."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from segcontext.native.intrinsics import called, intrinsic, pointer, spread

__all__ = ["LANES", "between", "contend"]

LANES = 16


_INTEGER = ir.IntType(32)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(_INTEGER, LANES)


@intrinsic
def between(_: Any, start: Any, end: Any, before: Any, behind: Any, into: Any, place: Any) -> Any:
    """Interpolates between two values: into[x] = start · before[x] + end · behind[x].

    Of the two products the first is not rounded, as PyTorch computes it on processors with fused multiply-adds.

    Args:
        start: float32, the value to the left.
        end: float32, the value to the right.
        before: float32, weights of the left one.
        behind: float32, weights of the right one.
        into: float32; x runs over `LANES` entries of it.
        place: the first of them.
    """
    signature = types.void(types.float32, types.float32, before, behind, into, types.intp)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        at = [pointer(context, builder, signature.args[n], values[n], values[5], _FLOATS) for n in (2, 3, 4)]
        left, right = (spread(builder, value, _FLOATS) for value in values[:2])
        before, behind = (builder.load(each, align=4) for each in at[:2])
        builder.store(_fused(builder, left, before, builder.fmul(right, behind)), at[2], align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def contend(
    _: Any,
    over: Any,
    under: Any,
    above: Any,
    below: Any,
    best: Any,
    found: Any,
    label: Any,
    place: Any,
    stop: Any,
) -> Any:
    """Interpolates a class between two rows, and keeps it where it is larger than all before it.

    value = over[x] · above + under[x] · below, the first product not rounded; where it is larger than best[x] it
    becomes best[x], and found[x] becomes `label`.

    Args:
        over: float32, of the row above.
        under: float32, of the row below.
        above: float32, the weight of the row above.
        below: float32, the weight of the row below.
        best: float32, the largest values so far.
        found: int32, whose they are.
        label: int32, the class.
        place: first x of `LANES`.
        stop: x from here on are left alone.
    """
    numbers = types.float32
    signature = types.void(over, under, numbers, numbers, best, found, types.int32, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = ((0, _FLOATS), (1, _FLOATS), (4, _FLOATS), (5, _INTEGERS))
        at = [pointer(context, builder, signature.args[n], values[n], values[7], kind) for n, kind in kinds]
        above, below = (spread(builder, value, _FLOATS) for value in values[2:4])
        over, under, best, found = (builder.load(each, align=4) for each in at)
        value = _fused(builder, over, above, builder.fmul(under, below))
        left = spread(builder, builder.trunc(builder.sub(values[8], values[7]), _INTEGER), _INTEGERS)
        inside = builder.icmp_signed("<", ir.Constant(_INTEGERS, list(range(LANES))), left)
        better = builder.and_(builder.fcmp_ordered(">", value, best), inside)
        builder.store(builder.select(better, value, best), at[2], align=4)
        builder.store(builder.select(better, spread(builder, values[6], _INTEGERS), found), at[3], align=4)
        return context.get_dummy_value()

    return signature, generate


def _fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """The sum x · y + z, rounded once."""
    return called(builder, f"llvm.fma.v{LANES}f32", [x, y, z], _FLOATS)
