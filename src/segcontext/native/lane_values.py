"""Sixteen neighbouring float32 values that kernels hold in a register instead of writing sums back each time."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import datamodel, extending

from segcontext.native.intrinsics import called, intrinsic, pointer, spread

__all__ = ["LANES", "filled", "lanes", "lanes_at", "larger", "nothing", "plus", "put_lanes"]

LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)


class _Lanes(types.Type):  # type: ignore[misc, unused-ignore]
    """What kernels hold the values in."""


#: The type of such values in kernels.
lanes = _Lanes("lanes")


@extending.register_model(_Lanes)
class _LanesModel(datamodel.models.PrimitiveModel):  # type: ignore[misc, unused-ignore]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)  # type: ignore[no-untyped-call, unused-ignore]


@intrinsic
def nothing(_: Any) -> Any:
    """Zeros."""
    return lanes(), lambda context, builder, signature, values: ir.Constant(_FLOATS, [0.0] * LANES)


@intrinsic
def filled(_: Any, value: Any) -> Any:
    """One float32 everywhere."""
    return lanes(types.float32), lambda context, builder, signature, values: spread(builder, values[0], _FLOATS)


@intrinsic
def lanes_at(_: Any, values: Any, at: Any) -> Any:
    """The float32 values[at + n]."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(pointer(context, builder, signature.args[0], values[0], values[1], _FLOATS), align=4)

    return lanes(values, types.intp), generate


@intrinsic
def put_lanes(_: Any, values: Any, into: Any, at: Any) -> Any:
    """Writes into[at + n]."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[0], pointer(context, builder, signature.args[1], values[1], values[2], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(values, into, types.intp), generate


@intrinsic
def plus(_: Any, total: Any, factor: Any, weights: Any) -> Any:
    """The sum total + factor · weights, rounded once; the factor is one float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        factors = spread(builder, values[1], _FLOATS)
        return called(builder, f"llvm.fma.v{LANES}f32", [factors, values[2], values[0]], _FLOATS)

    return lanes(lanes, types.float32, lanes), generate


@intrinsic
def larger(_: Any, values: Any, others: Any) -> Any:
    """The larger one of each two values, none of which is NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *values), *values)

    return lanes(lanes, lanes), generate
