"""Arrays of any number and shape, handed to compiled loops as addresses."""

from __future__ import annotations

from typing import Any, cast

import numba
from numba import types

from segcontext.native.intrinsics import intrinsic

__all__ = ["carray", "floats_at"]

carray = cast(Any, numba).carray

_POINTER: Any = types.CPointer


@intrinsic
def floats_at(_: Any, address: Any) -> Any:
    """The float32 values that lie at an address, for `carray`."""
    signature = _POINTER(types.float32)(types.int64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

    return signature, generate
