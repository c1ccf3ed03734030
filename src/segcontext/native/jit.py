"""How loops are compiled; for the modules of kernels alone, because it imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["inlined", "jit"]

Function = TypeVar("Function", bound=Callable[..., Any])

#: Sums may be reordered and products fused, but infinities and NaNs mean what they mean.
REORDERED = frozenset({"reassoc", "contract", "arcp", "nsz"})


def jit(function: Function) -> Function:
    """Compiles a function of numbers and arrays at its first call, and keeps the result on disk for the next process.

    It holds no lock of the interpreter while it runs, so threads run it side by side. Indices are not checked.

    Args:
        function: in numba's part of Python.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(REORDERED)}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache can be written.
        compiled = numba.njit(**options)(function)
    return cast("Function", compiled)


def inlined(function: Function) -> Function:
    """Marks a function that other kernels call; it becomes part of them.

    Args:
        function: in numba's part of Python.
    """
    return cast("Function", numba.njit(inline="always", error_model="numpy", fastmath=set(REORDERED))(function))
