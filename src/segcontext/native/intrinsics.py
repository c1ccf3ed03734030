"""Functions for kernels that are written in the compiler's own instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from numba import extending

__all__ = ["intrinsic"]


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of kernels from one that says its types and generates it.

    Args:
        function: of a typing context, which kernels do not hand over, and of the arguments' types.
    """
    return cast("Callable[..., Any]", cast(Any, extending).intrinsic(function))
