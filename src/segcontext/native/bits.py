"""Where the bits of a word are, and words of comparisons."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from segcontext.native.intrinsics import intrinsic, pointer, spread

__all__ = ["bits_above", "bits_below", "bits_set", "where_equal", "where_unlike"]


_DEFINED = ir.Constant(ir.IntType(1), 0)


@intrinsic
def bits_below(_: Any, word: Any) -> Any:
    """How many zeros are below the lowest set bit of a uint64; 64 where none is set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], _DEFINED)

    return types.int64(types.uint64), generate


@intrinsic
def bits_above(_: Any, word: Any) -> Any:
    """How many zeros are above the highest set bit of a uint64; 64 where none is set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctlz(values[0], _DEFINED)

    return types.int64(types.uint64), generate


@intrinsic
def bits_set(_: Any, word: Any) -> Any:
    """How many bits of a uint64 are set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.int64(types.uint64), generate


@intrinsic
def where_equal(_: Any, line: Any, at: Any, value: Any) -> Any:
    """A uint64 whose bit n says whether line[at + n] is the value, which has the line's type."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        labels = _64_at(context, builder, signature.args[0], *values[:2])
        return _word(builder, "==", labels, spread(builder, values[2], labels.type))

    return types.uint64(line, types.intp, line.dtype), generate


@intrinsic
def where_unlike(_: Any, line: Any, at: Any, other: Any, place: Any) -> Any:
    """A uint64 whose bit n says whether line[at + n] and other[place + n], of one type, differ."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        labels, others = (_64_at(context, builder, signature.args[n], values[n], values[n + 1]) for n in (0, 2))
        return _word(builder, "!=", labels, others)

    return types.uint64(line, types.intp, other, types.intp), generate


def _64_at(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    vector = ir.VectorType(context.get_value_type(kind.dtype), 64)
    return builder.load(pointer(context, builder, kind, array, place, vector), align=kind.dtype.bitwidth // 8)


def _word(builder: Any, relation: str, labels: Any, others: Any) -> Any:
    return builder.bitcast(builder.icmp_unsigned(relation, labels, others), ir.IntType(64))
