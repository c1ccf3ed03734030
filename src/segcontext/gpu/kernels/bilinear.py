"""Where the pixels of a large map lie in a small one, as bilinear resizing without antialiasing has it."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["corners", "unless_copied"]


@triton.jit
def corners(place, size, step, ALIGNED: tl.constexpr):
    """The two neighbours in the small map, and the weight of the second.

    Args:
        place: rows or columns of the large map.
        size: rows or columns of the small map.
        step: small pixels to a large one.
        ALIGNED: whether the corner pixels' centres coincide, or their outer edges.
    """
    if ALIGNED:
        source = place.to(tl.float32) * step
    else:
        source = tl.maximum((place.to(tl.float32) + 0.5) * step - 0.5, 0.0)
    first = tl.minimum(source.to(tl.int32), size - 1)
    return first, tl.minimum(first + 1, size - 1), source - first.to(tl.float32)


@triton.jit
def unless_copied(second, weight, first, copied):
    """Another pixel's second neighbour and weight, so that a map that is not resized comes out as it is.

    PyTorch copies such maps; a weight of 0 would make no number of an infinity beside a pixel.

    Args:
        second: of `corners`.
        weight: of that.
        first: the neighbour that is the pixel itself.
        copied: whether the map is not resized.
    """
    return tl.where(copied, first, second), tl.where(copied, 0.5, weight)
