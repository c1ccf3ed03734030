"""IoU by the size of the objects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from scipy import ndimage
from torch import Tensor

from segcontext.errors import RecipeError
from segcontext.metrics.labels import LabelMap, Labels
from segcontext.metrics.maps import as_maps, present

__all__ = ["AREAS", "SizeCounts", "SizeScores", "check_areas", "size_counts", "size_scores"]

#: COCO's areas, in pixels, from which objects are medium and large.
AREAS = (32**2, 96**2)

WITH_CORNERS = np.ones((3, 3), dtype=np.bool_)


class SizeScores(NamedTuple):
    """How well objects of each size are segmented. Sizes run from the smallest to the largest.

    Attributes:
        iou: right / (right + missed + wrong) pixels, float64, (sizes, classes); NaN where there are none of them, and
            0, which counts in the mean as it does for mIoU, where all of them are wrong.
        accuracy: right / (right + missed) pixels, float64, (sizes, classes); NaN where no object has the size.
        pixels: true pixels, int64, (sizes, classes).
        objects: true objects, int64, (sizes, classes).
        miou: mean of `iou` over the classes, float64, (sizes,).
        mean_accuracy: mean of `accuracy` over the classes, float64, (sizes,).
    """

    iou: Tensor
    accuracy: Tensor
    pixels: Tensor
    objects: Tensor
    miou: Tensor
    mean_accuracy: Tensor


def size_counts(
    prediction: Labels,
    target: Labels,
    num_classes: int,
    *,
    areas: Sequence[int] = AREAS,
    ignore_index: int = 255,
) -> Tensor:
    """Counts right, missed and wrong pixels by the size of the object they belong to.

    An object is a connected region of one class in the truth; pixels that touch at a corner are connected. Its size is
    its number of pixels: small below COCO's 32², medium below 96², large from there up. Masks of classes do not tell
    objects that touch from each other, so a crowd is one large object.

    The pixels of an object are right where the prediction has its class, and missed elsewhere. A wrong pixel, predicted
    as a class that it does not have, belongs to no true object. It is charged to the object that its own region of the
    prediction overlaps most (the first one in reading order where several are overlapped as much), and so to that
    object's size; if the region overlaps no object of its class, to the size of the region. Over the sizes the counts
    add up to those of the whole confusion matrix.

    Args:
        prediction: predicted classes, integers (H, W) or (B, H, W). Its values under void are not read.
        target: true classes, of the same shape; `ignore_index` for void, which parts regions in both.
        num_classes: how many classes there are.
        areas: numbers of pixels from which an object has the next size, ascending.
        ignore_index: the target value of void.

    Returns:
        int64, (sizes, classes, 4): right, missed and wrong pixels, and true objects.

    Raises:
        ShapeError: the two have different or other shapes, or are not integers.
        LabelError: a value is neither a class nor void.
        RecipeError: the areas do not ascend.

    Example:
        >>> target = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
        >>> prediction = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
        >>> size_counts(prediction, target, 2, areas=[2])[:, 1].tolist()
        [[0, 1, 0, 1], [3, 0, 1, 1]]
    """
    bounds = check_areas(areas)
    predicted, truth = as_maps(prediction, target, num_classes, ignore_index)
    counts = np.zeros((len(bounds) + 1, num_classes, 4), dtype=np.int64)
    for ours, theirs in zip(predicted, truth, strict=True):
        for index in np.flatnonzero(present(ours, num_classes) | present(theirs, num_classes)).tolist():
            counts[:, index] += _count(*_cut(ours, theirs, index), np.asarray(bounds))
    return torch.from_numpy(counts)


def size_scores(counts: Tensor) -> SizeScores:
    """Reads scores off the counts of `size_counts`, or off several of them added up.

    Args:
        counts: int64, (sizes, classes, 4).

    Returns:
        The scores, on the CPU.
    """
    right, missed, wrong, objects = counts.detach().cpu().unbind(-1)
    true = right + missed
    iou, accuracy = right.double() / (true + wrong).double(), right.double() / true.double()
    return SizeScores(iou, accuracy, true, objects, iou.nanmean(1), accuracy.nanmean(1))


class SizeCounts(torchmetrics.Metric):
    """The counts of `size_counts` summed over batches, and over ranks where there are several.

    Args:
        num_classes: how many classes there are.
        areas: numbers of pixels from which an object has the next size, ascending.
        ignore_index: the target value of void.

    Example:
        >>> metric = SizeCounts(2)
        >>> metric.update(torch.zeros(40, 40).long(), torch.zeros(40, 40).long())
        >>> size_scores(metric.compute()).miou.tolist()
        [nan, 1.0, nan]
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, *, areas: Sequence[int] = AREAS, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.areas = check_areas(areas)
        self.ignore_index = ignore_index
        state = torch.zeros(len(self.areas) + 1, num_classes, 4, dtype=torch.int64)
        self.add_state("counts", state, dist_reduce_fx="sum")

    def update(self, prediction: Labels, target: Labels) -> None:
        """Adds a batch.

        Args:
            prediction: predicted classes, integers (H, W) or (B, H, W).
            target: true classes, of the same shape.
        """
        found = size_counts(prediction, target, self.num_classes, areas=self.areas, ignore_index=self.ignore_index)
        self.counts += found.to(self.counts.device)

    def compute(self) -> Tensor:
        """The counts so far, over all ranks.

        Returns:
            int64, (sizes, classes, 4), for `size_scores`.
        """
        return self.counts.clone()


def check_areas(areas: Sequence[int]) -> tuple[int, ...]:
    """The areas as a tuple; a `RecipeError` unless they are whole numbers from 1 up that ascend."""
    bounds = tuple(int(area) for area in areas)
    ascending = all(first < second for first, second in itertools.pairwise(bounds))
    if not bounds or bounds[0] < 1 or not ascending or bounds != tuple(areas):
        raise RecipeError(
            "The areas are numbers of pixels from 1 up, each larger than the one before, such as (1024, 9216) for "
            f"small, medium and large; not {tuple(areas)}."
        )
    return bounds


def _cut(prediction: LabelMap, truth: LabelMap, index: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Both masks of a class, cut to the box that holds them, for most classes fill a small part of an image."""
    ours, theirs = prediction == index, truth == index
    either = ours | theirs
    rows, columns = (np.flatnonzero(either.any(axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return ours[box], theirs[box]


def _count(
    ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The counts of one class in one image, (sizes, 4)."""
    regions, _ = ndimage.label(ours, WITH_CORNERS)
    objects, number = ndimage.label(theirs, WITH_CORNERS)
    region_areas, object_areas = (np.bincount(labels.ravel()) for labels in (regions, objects))
    # Entry 0 stands for what is outside of the mask, and is never looked up.
    object_sizes = np.searchsorted(bounds, object_areas, side="right")
    charged = np.searchsorted(bounds, region_areas, side="right")
    shared = regions.astype(np.int64)[ours & theirs] * (number + 1) + objects[ours & theirs]
    pairs, overlaps = np.unique(shared, return_counts=True)
    owners, owned = np.divmod(pairs, number + 1)
    # Of each region's pairs, the largest overlap first, and the earlier object among equals.
    order = np.lexsort((owned, -overlaps, owners))
    overlapping, firsts = np.unique(owners[order], return_index=True)
    charged[overlapping] = object_sizes[owned[order][firsts]]
    sizes = len(bounds) + 1
    right = np.bincount(object_sizes[objects[ours & theirs]], minlength=sizes)
    missed = np.bincount(object_sizes[objects[theirs & ~ours]], minlength=sizes)
    wrong = np.bincount(charged[regions[ours & ~theirs]], minlength=sizes)
    return np.stack([right, missed, wrong, np.bincount(object_sizes[1:], minlength=sizes)], axis=-1)
