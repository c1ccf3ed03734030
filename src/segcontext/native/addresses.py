"""Arrays of any number and shape, handed to compiled loops as addresses."""

from __future__ import annotations

from typing import Any

import numba
from numba import types
from numba.extending import intrinsic as _typed_intrinsic

__all__ = ["carray", "floats_at"]

carray: Any = numba.carray

# What it makes is called without the first argument, which type checkers do not know.
intrinsic: Any = _typed_intrinsic
_POINTER: Any = types.CPointer


@intrinsic
def floats_at(_: Any, address: Any) -> Any:
    """The float32 values that lie at an address, for `carray`."""
    signature = _POINTER(types.float32)(types.int64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

    return signature, generate
