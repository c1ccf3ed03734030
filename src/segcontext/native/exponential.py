"""The exponential function for loops that are vectorised; imports numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.jit import inlined

__all__ = ["exp"]


@inlined
def exp(x: Any) -> Any:
    """The exponential of a float32, to within 2⁻²²; as at -86 below it, as at 86 above, and NaN for NaN."""
    turns = x * np.float32(1.4426950408889634)
    turns = turns if not turns < np.float32(-125.0) else np.float32(-125.0)
    turns = turns if not turns > np.float32(125.0) else np.float32(125.0)
    whole = np.floor(turns + np.float32(0.5))
    rest = (turns - whole) * np.float32(0.6931471805599453)
    series = rest * np.float32(1 / 720) + np.float32(1 / 120)
    series = series * rest + np.float32(1 / 24)
    series = series * rest + np.float32(1 / 6)
    series = series * rest + np.float32(0.5)
    series = series * rest + np.float32(1)
    series = series * rest + np.float32(1)
    return series * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
