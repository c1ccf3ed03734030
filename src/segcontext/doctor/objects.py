"""How large the objects of each class are."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["BINS", "Counts", "object_sizes"]

Counts: TypeAlias = npt.NDArray[np.int64]

#: One bin per power of two: bin b counts the objects of 2ᵇ to 2ᵇ⁺¹ − 1 pixels.
BINS = 32


def object_sizes(labels: npt.NDArray[np.uint8], classes: int) -> Counts:
    """Counts the connected regions of each class by their size.

    A region is made of pixels of one class that share sides. Two objects of a class that touch are one region.

    Args:
        labels: class indices, (H, W); other values, such as 255 for void, belong to no region.
        classes: how many classes there are.

    Returns:
        (classes, 32): how many regions of 2ᵇ to 2ᵇ⁺¹ − 1 pixels each class has.

    Example:
        >>> labels = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 255]], np.uint8)
        >>> object_sizes(labels, 2)[:, :3].tolist()
        [[0, 0, 1], [1, 1, 0]]
    """
    found = np.zeros((classes, BINS), np.int64)
    if not classes:
        return found
    # Every class is searched in its bounding box alone, which costs little however many classes there are.
    places = ndimage.find_objects(np.where(labels < classes, labels, classes).astype(np.int32) + 1, classes)
    for index, place in enumerate(places):
        if place is None:
            continue
        regions, count = ndimage.label(labels[place] == index)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
        # frexp is exact where a logarithm may round down: size = m · 2ᵉ with m from ½ to 1.
        found[index] = np.bincount(np.frexp(sizes)[1] - 1, minlength=BINS)
    return found
