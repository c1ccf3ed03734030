"""Functions for kernels that are written in the compiler's own instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import extending
from numba.core import cgutils

__all__ = ["called", "intrinsic", "pointer", "spread"]


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of kernels from one that says its types and generates it.

    Args:
        function: of a typing context, which kernels do not hand over, and of the arguments' types.
    """
    return cast("Callable[..., Any]", cast(Any, extending).intrinsic(function))


def pointer(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: Any) -> Any:
    """Where array[place] and what follows it lie, as a vector.

    Args:
        context: numba's, as a generator is handed it.
        builder: likewise.
        kind: the array's type.
        array: the array.
        place: the first of the vector's entries.
        vector: the vector's type.
    """
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), vector.as_pointer())


def spread(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of this type that holds one value everywhere."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, first, zeros)


def called(builder: Any, name: str, arguments: Any, result: Any) -> Any:
    """What one of LLVM's own functions makes of its arguments; the result is of this type."""
    declare: Any = cgutils.get_or_insert_function
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(declare(builder.module, kind, name), arguments)
