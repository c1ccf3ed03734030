"""Scores inside and outside of a band along the boundaries of the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from scipy import ndimage
from torch import Tensor

from segcontext.metrics.confusion import Scores, confusion_matrix, scores
from segcontext.metrics.labels import Labels, as_integers, check_map
from segcontext.metrics.widths import check_width, width_in_pixels

__all__ = ["BandConfusionMatrix", "BandScores", "band_confusion_matrix", "band_scores", "boundary_band"]


class BandScores(NamedTuple):
    """The benchmarks' scores near the boundaries of the truth, and away from them.

    Attributes:
        inside: of the pixels in the band.
        outside: of all others.
    """

    inside: Scores
    outside: Scores


def boundary_band(target: Labels, width: float) -> Tensor:
    """The pixels along the boundaries of labels, on both sides.

    A pixel that has another label than its left, right, upper or lower neighbour is at a boundary. The band holds the
    pixels less than `width` from such a pixel's centre to theirs, Euclidean: `width` pixels on either side of a
    straight boundary. Void counts as a label, for void is often drawn where objects meet; the image's edge does not.

    Args:
        target: classes, integers (H, W) or (B, H, W); every value is a label of its own.
        width: a share of the image's diagonal below 1, rounded to the nearest whole pixel and at least one, or pixels
            from 1 up.

    Returns:
        bool, of the target's shape, on the CPU.

    Raises:
        ShapeError: the labels have another shape, or are not integers.
        RecipeError: the width is out of range.

    Example:
        >>> boundary_band(torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]), 2)[0].int().tolist()
        [0, 0, 1, 1, 1, 1, 0, 0]
    """
    check_width(width, "The width of the band")
    labels = as_integers(target, "The target").cpu()
    check_map(labels)
    height, breadth = labels.shape[-2:]
    reach = width_in_pixels(width, height, breadth)
    bands = torch.zeros(labels.shape, dtype=torch.bool)
    for band, single in zip(bands.view(-1, height, breadth), labels.reshape(-1, height, breadth), strict=True):
        band.copy_(torch.from_numpy(_band(single.numpy(), reach)))
    return bands


def band_confusion_matrix(
    prediction: Labels, target: Labels, num_classes: int, *, width: float, ignore_index: int = 255
) -> Tensor:
    """Two confusion matrices: of the pixels in a band along the true boundaries, and of all others.

    This is the trimap of Kohli et al. (Robust higher order potentials, IJCV 2009), and what is left of the image.

    Args:
        prediction: predicted classes, integers (H, W) or (B, H, W). Its values under void are not read.
        target: true classes, of the same shape; `ignore_index` for void.
        num_classes: how many classes there are.
        width: of the band on either side of a boundary, as for `boundary_band`.
        ignore_index: the target value that is not counted.

    Returns:
        int64 counts, (2, classes, classes), inside first; rows truth, columns prediction. Their sum is the confusion
        matrix of the whole. On the device of `target`.

    Raises:
        ShapeError: the two have different or other shapes, or are not integers.
        LabelError: a value is neither a class nor void.
        RecipeError: the width is out of range.

    Example:
        >>> band_confusion_matrix(torch.tensor([[1, 0, 1, 1]]), torch.tensor([[0, 0, 1, 1]]), 2, width=1).tolist()
        [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]
    """
    whole = confusion_matrix(prediction, target, num_classes, ignore_index=ignore_index)
    truth = as_integers(target, "The target")
    outside = truth.masked_fill(boundary_band(truth, width).to(truth.device), ignore_index)
    rest = confusion_matrix(prediction, outside, num_classes, ignore_index=ignore_index)
    return torch.stack([whole - rest, rest])


def band_scores(matrices: Tensor) -> BandScores:
    """Reads the scores off both confusion matrices.

    Args:
        matrices: integer counts, (2, classes, classes), inside first.

    Returns:
        The scores of either.
    """
    return BandScores(scores(matrices[0]), scores(matrices[1]))


class BandConfusionMatrix(torchmetrics.Metric):
    """Both matrices of `band_confusion_matrix` summed over batches, and over ranks where there are several.

    Args:
        num_classes: how many classes there are.
        width: of the band on either side of a boundary, as for `boundary_band`.
        ignore_index: the target value that is not counted.

    Example:
        >>> metric = BandConfusionMatrix(2, width=1)
        >>> metric.update(torch.tensor([[1, 0, 1, 1]]), torch.tensor([[0, 0, 1, 1]]))
        >>> found = band_scores(metric.compute())
        >>> found.inside.miou, found.outside.miou
        (1.0, 0.25)
    """

    full_state_update = False
    matrices: Tensor

    def __init__(self, num_classes: int, *, width: float, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = check_width(width, "The width of the band")
        self.ignore_index = ignore_index
        self.add_state("matrices", torch.zeros(2, num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Labels, target: Labels) -> None:
        """Adds a batch.

        Args:
            prediction: predicted classes, integers (H, W) or (B, H, W).
            target: true classes, of the same shape.
        """
        found = band_confusion_matrix(
            prediction, target, self.num_classes, width=self.width, ignore_index=self.ignore_index
        )
        self.matrices += found.to(self.matrices.device)

    def compute(self) -> Tensor:
        """The counts so far, over all ranks.

        Returns:
            int64, (2, classes, classes), for `band_scores`.
        """
        return self.matrices.clone()


def _band(labels: npt.NDArray[np.int64], reach: int) -> npt.NDArray[np.bool_]:
    border = np.zeros(labels.shape, dtype=np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    # Without a border there is nothing to measure the distance to.
    if reach == 1 or not border.any():
        return border
    band: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(~border) < reach
    return band
