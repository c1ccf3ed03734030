"""Sums over the images of a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from segcontext.data.masks import Colour
from segcontext.doctor.mask_probe import LABELS
from segcontext.doctor.objects import BINS
from segcontext.doctor.probe import Probe

__all__ = ["MANY", "Tally"]

#: A mask with more values that are no class than that is no mask, or was resampled.
MANY = 20
# Of lossy masks more colours need not be known.
_COLOURS = 10_000


class Tally:
    """What the images of a split have in common, added up one by one.

    Args:
        classes: how many classes there are; 0 where they are not known.

    Attributes:
        images: images that were read.
        masks: masks that were read as labels.
        pixels: (classes,), pixels of each class.
        presence: (classes,), masks that show the class.
        surroundings: (classes,), labelled pixels of the masks that show the class.
        void: pixels that are void.
        objects: (classes, 32), regions of 2ᵇ to 2ᵇ⁺¹ − 1 pixels.
        values: raw mask values and their pixels, without the masks that hold many wrong ones.
        value_masks: raw mask values and how many masks hold them.
        colours: for masks that store colours, what they store and the colours with their pixels.
        histogram: (3, 256), pixels of each value of red, green and blue.
        sizes: (width, height) and how many images have it.
        modes: how images store colours, and how many do.
        mask_modes: likewise for masks.
    """

    def __init__(self, classes: int) -> None:
        self.images = self.masks = self.void = 0
        self.pixels = np.zeros(classes, np.int64)
        self.presence = np.zeros(classes, np.int64)
        self.surroundings = np.zeros(classes, np.int64)
        self.objects = np.zeros((classes, BINS), np.int64)
        self.histogram = np.zeros((3, 256), np.int64)
        self.colours: defaultdict[str, Counter[Colour]] = defaultdict(Counter)
        self.values: Counter[int] = Counter()
        self.value_masks: Counter[int] = Counter()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.modes: Counter[str] = Counter()
        self.mask_modes: Counter[str] = Counter()

    def add(self, found: Probe) -> None:
        """Adds one image with its mask.

        Args:
            found: what was found in them.
        """
        if found.image is not None:
            self.images += 1
            self.sizes[found.image.width, found.image.height] += 1
            self.modes[found.image.mode] += 1
            self.histogram += found.image.histogram
        if found.mask is None:
            return
        mask = found.mask
        self.mask_modes[mask.mode] += 1
        if mask.stores != LABELS and len(self.colours[mask.stores]) < _COLOURS:
            self.colours[mask.stores].update(mask.colours)
        if mask.stores != LABELS or mask.wrong > MANY:
            return
        self.masks += 1
        self.values.update(mask.values)
        self.value_masks.update(mask.values.keys())
        self.pixels += mask.pixels
        self.presence += mask.pixels > 0
        self.surroundings += (mask.pixels > 0) * mask.labelled
        self.void += mask.void
        for index, row in mask.objects.items():
            self.objects[index] += row

    @property
    def labelled(self) -> int:
        """Pixels that belong to a class."""
        return int(self.pixels.sum())

    def channels(self) -> Mapping[str, tuple[float, float, float]]:
        """Mean and standard deviation of red, green and blue over all pixels, as shares of 255."""
        levels = np.arange(256) / 255
        pixels = np.maximum(self.histogram.sum(1), 1)
        mean = self.histogram @ levels / pixels
        deviation = np.sqrt(np.maximum(self.histogram @ levels**2 / pixels - mean**2, 0))
        return {"mean": _three(mean), "deviation": _three(deviation)}


def _three(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue
