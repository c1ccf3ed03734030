"""What the values of a mask mean, looked up in one pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segcontext.native.jit import jit

__all__ = ["look_up"]


@jit
def look_up(raw: npt.NDArray[np.uint8], table: npt.NDArray[np.int16], labels: npt.NDArray[np.uint8]) -> bool:
    """Looks up every value.

    Args:
        raw: (N,).
        table: (256,), what each value means; -1 for nothing.
        labels: (N,), written to.

    Returns:
        Whether every value means something.
    """
    found = np.int16(0)
    for index in range(len(raw)):
        label = table[raw[index]]
        found |= label
        labels[index] = np.uint8(label)
    return bool(found >= 0)
