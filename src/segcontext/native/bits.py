"""Where the bits of a word are."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from segcontext.native.intrinsics import intrinsic

__all__ = ["bits_above", "bits_below"]


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
