"""Boundary IoU: intersection over union of the pixels just inside the masks' contours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from scipy import ndimage
from torch import Tensor

from segcontext.metrics.labels import NOTHING, LabelMap, Labels
from segcontext.metrics.maps import as_maps
from segcontext.metrics.widths import check_width, width_in_pixels

__all__ = ["BoundaryIoU", "boundary_iou", "boundary_iou_counts", "iou_of_counts"]

#: The share of the diagonal that Boundary IoU's authors take for COCO and LVIS.
WIDTH = 0.02


def boundary_iou(
    prediction: Labels, target: Labels, num_classes: int, *, width: float = WIDTH, ignore_index: int = 255
) -> Tensor:
    """IoU of the pixels near the contours of the masks (Cheng et al., Boundary IoU, CVPR 2021, eq. 4), per class.

    Of each mask only the pixels are kept that lie in it and within `width` of its contour; the IoU is that of what
    is left of both. The image's edge is a contour too. Intersections and unions are summed over the images first, as
    for mIoU.

    Args:
        prediction: predicted classes, integers (H, W) or (B, H, W). Its values under void are not read.
        target: true classes, of the same shape; `ignore_index` for void, whose pixels belong to no mask.
        num_classes: how many classes there are.
        width: a share of the image's diagonal below 1, rounded to the nearest whole pixel and at least one, or pixels
            from 1 up. The authors take 0.02 for COCO and LVIS, 0.005 for the larger images of Cityscapes.
        ignore_index: the target value of void.

    Returns:
        float64, (classes,), on the CPU; NaN where the class is neither in the truth nor predicted.

    Raises:
        ShapeError: the two have different or other shapes, or are not integers.
        LabelError: a value is neither a class nor void.
        RecipeError: the width is out of range.

    Note:
        "Within" is meant as in the authors' code, which erodes by squares: a pixel is kept if the square of side
        2 · width + 1 around it holds a pixel outside of the mask or the image. Their paper does not say which distance.

    Example:
        >>> target = torch.zeros(9, 9, dtype=torch.int64)
        >>> target[2:7, 2:7] = 1
        >>> boundary_iou(target, target, 2, width=1).tolist(), boundary_iou(target.roll(1, 1), target, 2, width=1)[1]
        ([1.0, 1.0], tensor(0.3333, dtype=torch.float64))
    """
    return iou_of_counts(boundary_iou_counts(prediction, target, num_classes, width=width, ignore_index=ignore_index))


def boundary_iou_counts(
    prediction: Labels, target: Labels, num_classes: int, *, width: float = WIDTH, ignore_index: int = 255
) -> Tensor:
    """The pixel counts behind `boundary_iou`, which takes the same arguments.

    Args:
        prediction: predicted classes.
        target: true classes.
        num_classes: how many classes there are.
        width: of the band inside the contours.
        ignore_index: the target value of void.

    Returns:
        int64, (classes, 3): pixels in both bands, in the band of the predicted mask, in that of the true one.
    """
    check_width(width, "The width of boundary IoU")
    predicted, truth = as_maps(prediction, target, num_classes, ignore_index)
    reach = width_in_pixels(width, *truth.shape[-2:])
    counts = np.zeros((num_classes, 3), dtype=np.int64)
    for ours, theirs in zip(predicted, truth, strict=True):
        near, wanted = _rim(ours, reach), _rim(theirs, reach)
        kept = (near & wanted & (ours == theirs), near, wanted)
        for column, (labels, chosen) in enumerate(zip((ours, ours, theirs), kept, strict=True)):
            counts[:, column] += np.bincount(labels[chosen], minlength=num_classes)
    return torch.from_numpy(counts)


class BoundaryIoU(torchmetrics.Metric):
    """Boundary IoU summed over batches, and over ranks where there are several; its state is int64 pixel counts.

    Args:
        num_classes: how many classes there are.
        width: as for `boundary_iou`.
        ignore_index: the target value of void.

    Example:
        >>> metric = BoundaryIoU(2, width=1)
        >>> metric.update(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
        >>> metric.compute().tolist()
        [0.5, 0.0]
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, *, width: float = WIDTH, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = check_width(width, "The width of boundary IoU")
        self.ignore_index = ignore_index
        self.add_state("counts", torch.zeros(num_classes, 3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Labels, target: Labels) -> None:
        """Adds a batch.

        Args:
            prediction: predicted classes, integers (H, W) or (B, H, W).
            target: true classes, of the same shape.
        """
        found = boundary_iou_counts(
            prediction, target, self.num_classes, width=self.width, ignore_index=self.ignore_index
        )
        self.counts += found.to(self.counts.device)

    def compute(self) -> Tensor:
        """The score of the pixels so far, over all ranks.

        Returns:
            float64, (classes,), on the CPU; NaN where the class is neither in the truth nor predicted.
        """
        return iou_of_counts(self.counts)


def iou_of_counts(counts: Tensor) -> Tensor:
    """Boundary IoU of the counts of `boundary_iou_counts`, or of several of them added up, float64, on the CPU."""
    both, predicted, true = counts.detach().cpu().unbind(-1)
    return both.double() / (predicted + true - both).double()


def _rim(labels: LabelMap, reach: int) -> npt.NDArray[np.bool_]:
    """Pixels of a class with another label, or the image's end, in the square of side 2 · reach + 1 around them."""
    # One pass serves all classes: a pixel is inside its own mask where its square holds a single label.
    outside = NOTHING - 1
    low, high = (
        sift(labels, size=2 * reach + 1, mode="constant", cval=outside)
        for sift in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    rim: npt.NDArray[np.bool_] = (low != high) & (labels != NOTHING)
    return rim
