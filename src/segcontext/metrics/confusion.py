"""The benchmarks' scores, all from one confusion matrix, which is counted in integers and so is exact."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchmetrics
from torch import Tensor

from segcontext.errors import ShapeError
from segcontext.metrics.confusion_counts import count_natively
from segcontext.metrics.labels import Labels, as_integers, check_range, check_shapes
from segcontext.metrics.plain import obstacle
from segcontext.ops.implementations import Implementation, choose

__all__ = ["ConfusionMatrix", "Scores", "confusion_matrix", "scores"]


def confusion_matrix(
    prediction: Labels,
    target: Labels,
    num_classes: int,
    *,
    ignore_index: int = 255,
    implementation: Implementation | None = None,
) -> Tensor:
    """Counts how many pixels of each true class were predicted as each class.

    Args:
        prediction: predicted classes 0..num_classes − 1, integers of any shape. Its values under void are not read.
        target: true classes, of the same shape; `ignore_index` for void.
        num_classes: how many classes there are.
        ignore_index: the target value that is not counted.
        implementation: ``"reference"``, ``"native"`` (the CPU), or ``"auto"``; `None` is what
            `segcontext.ops.use_implementation` says.

    Returns:
        int64 counts, (classes, classes): the row is the truth, the column the prediction. On the device of `target`.

    Raises:
        ShapeError: the two have different shapes, or are not integers.
        LabelError: a value is neither a class nor void.

    Note:
        On the CPU compiled loops count, on all of PyTorch's threads.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 255]), 2).tolist()
        [[1, 1], [0, 0]]
    """
    if choose("confusion_matrix", implementation, {"native": obstacle(prediction, target)}) == "native":
        counts = count_natively(prediction, target, num_classes, ignore_index)
        if counts is not None:
            return counts
    truth = as_integers(target, "The target")
    predicted = as_integers(prediction, "The prediction").to(truth.device)
    check_shapes(predicted, truth)
    valid = truth != ignore_index
    truth, predicted = truth[valid], predicted[valid]
    check_range(truth, num_classes, "The target", f" (or {ignore_index} for void)")
    check_range(predicted, num_classes, "The prediction", "")
    counts = torch.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


class Scores(NamedTuple):
    """What one confusion matrix says. All shares are float64, from 0 to 1; per-class entries are (classes,).

    A class without any pixel in question is NaN and left out of the means: IoU where the class is neither in the truth
    nor predicted, accuracy where it is not in the truth, precision where it is never predicted.

    Attributes:
        miou: mean of `iou`. A class that is predicted but never true has IoU 0 and counts.
        pixel_accuracy: share of the valid pixels that are right.
        mean_accuracy: mean of `accuracy`, so over the classes in the truth.
        frequency_weighted_iou: mean of `iou` weighted by `pixels`.
        iou: right pixels / (true or predicted pixels).
        accuracy: right pixels / true pixels (recall).
        precision: right pixels / predicted pixels.
        pixels: int64, true pixels.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    iou: Tensor
    accuracy: Tensor
    precision: Tensor
    pixels: Tensor


def scores(matrix: Tensor) -> Scores:
    """Reads the benchmarks' scores off a confusion matrix.

    Args:
        matrix: integer counts, (classes, classes), rows truth, columns prediction.

    Returns:
        The scores, on the CPU; NaN throughout for a matrix without pixels.

    Raises:
        ShapeError: the matrix is not square.

    Example:
        >>> round(scores(torch.tensor([[3, 1], [0, 4]])).miou, 3)
        0.775
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"A confusion matrix has shape (classes, classes), not {tuple(matrix.shape)}.")
    counts = matrix.detach().cpu()
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    union = true + predicted - right
    # Integers up to here: a float sum over a large data set would lose single pixels.
    iou, accuracy, precision = (right.double() / whole.double() for whole in (union, true, predicted))
    return Scores(
        miou=iou.nanmean().item(),
        pixel_accuracy=(right.sum().double() / true.sum().double()).item(),
        mean_accuracy=accuracy.nanmean().item(),
        frequency_weighted_iou=((true.double() * iou).nansum() / true.sum().double()).item(),
        iou=iou,
        accuracy=accuracy,
        precision=precision,
        pixels=true.long(),
    )


class ConfusionMatrix(torchmetrics.Metric):
    """A confusion matrix summed over batches, and over ranks where there are several.

    The state is one int64 sum, so neither partial last batches nor the number of ranks changes a count. The sum is
    exact only if every sample reaches exactly one rank once: take `RankSlice`, not a sampler that pads.

    Args:
        num_classes: how many classes there are.
        ignore_index: the target value that is not counted.

    Example:
        >>> metric = ConfusionMatrix(2)
        >>> metric.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
        >>> metric.compute().tolist()
        [[1, 1], [0, 0]]
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, *, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Labels, target: Labels) -> None:
        """Adds a batch.

        Args:
            prediction: predicted classes, integers of any shape.
            target: true classes, of the same shape.
        """
        counts = confusion_matrix(prediction, target, self.num_classes, ignore_index=self.ignore_index)
        self.matrix += counts.to(self.matrix.device)

    def compute(self) -> Tensor:
        """The counts so far, over all ranks.

        Returns:
            int64, (classes, classes), rows truth, columns prediction.
        """
        return self.matrix.clone()
