"""Between which values bilinear interpolation places each pixel, and with which weights."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Places", "places"]


class Places(NamedTuple):
    """Along one side, what each pixel is made of: before · values[first] + behind · values[first + 1].

    Where there is no value behind the last, the last takes its place.

    Attributes:
        first: int32, (pixels,), never falling.
        before: float32, (pixels,).
        behind: float32, (pixels,); 1 − before.
    """

    first: npt.NDArray[np.int32]
    before: npt.NDArray[np.float32]
    behind: npt.NDArray[np.float32]


@lru_cache(maxsize=64)
def places(values: int, pixels: int, align_corners: bool) -> Places:
    """What `torch.nn.functional.interpolate` makes each pixel of, to the last bit.

    Args:
        values: how many there are along the side.
        pixels: how many are made of them.
        align_corners: whether the outermost values lie on the outermost pixels' centres, or the outer edges of both on
            each other.

    Returns:
        The places; they are shared, so nobody may write into them.

    Example:
        >>> places(2, 4, False).behind.tolist()
        [0.0, 0.25, 0.75, 0.25]
    """
    counted = np.arange(pixels, dtype=np.float64)
    # Scales are float32. The double product is exact; what follows is rounded once, as a fused multiply-add is.
    if align_corners:
        scale = np.float32(values - 1) / np.float32(pixels - 1) if pixels > 1 else np.float32(0)
        at = (scale.astype(np.float64) * counted).astype(np.float32)
    else:
        scale = np.float32(values) / np.float32(pixels)
        at = np.maximum((scale.astype(np.float64) * (counted + 0.5) - 0.5).astype(np.float32), np.float32(0))
    first = np.minimum(at.astype(np.int32), values - 1).astype(np.int32)
    behind = np.clip(at - first.astype(np.float32), np.float32(0), np.float32(1))
    found = Places(first, np.float32(1) - behind, behind)
    for part in found:
        part.setflags(write=False)
    return found
