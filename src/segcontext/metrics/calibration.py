"""Calibration: whether a network that is so sure is right so often."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchmetrics
from torch import Tensor

from segcontext.errors import RecipeError, ShapeError
from segcontext.metrics.exact import HIGH_BITS, LOW_BITS, mean, split
from segcontext.metrics.labels import Labels, as_integers, check_range
from segcontext.metrics.uncertainty import check_probabilities

__all__ = ["BINS", "CalibrationCounts", "Reliability", "calibration_counts", "reliability"]

#: The number of bins in Guo et al.
BINS = 15


class Reliability(NamedTuple):
    """What a reliability diagram shows. All shares are float64, from 0 to 1; per-bin entries are (bins,).

    Attributes:
        ece: expected calibration error: mean of |accuracy − confidence| over the bins, weighted by their pixels.
        accuracy: share of the pixels that are right; NaN without pixels.
        confidence: mean confidence; NaN without pixels.
        edges: where the bins begin and end, (bins + 1,). A bin holds its upper edge, the first one its lower one too.
        bin_accuracy: share of a bin's pixels that are right; NaN in empty bins.
        bin_confidence: mean confidence in a bin; NaN in empty bins.
        pixels: int64, pixels in a bin.
    """

    ece: float
    accuracy: float
    confidence: float
    edges: Tensor
    bin_accuracy: Tensor
    bin_confidence: Tensor
    pixels: Tensor


def calibration_counts(probabilities: Tensor, target: Labels, *, bins: int = BINS, ignore_index: int = 255) -> Tensor:
    """Sorts pixels into bins of equal width by the probability of their likeliest class, and counts the right ones.

    Args:
        probabilities: floats from 0 to 1, (B, classes, H, W) or (classes, H, W).
        target: true classes, integers (B, H, W) or (H, W); `ignore_index` for void.
        bins: how many bins there are between 0 and 1.
        ignore_index: the target value that is not counted.

    Returns:
        int64, (bins, 4): pixels, right ones among them, and the sum of their confidences in two parts that add up
        exactly: multiples of 2⁻²⁶ and of 2⁻⁵³. On the device of the probabilities.

    Raises:
        ShapeError: the shapes do not go together, or the target holds no integers.
        LabelError: a target value is neither a class nor void.
        RecipeError: there is no bin.

    Example:
        >>> probabilities = torch.tensor([[[0.9, 0.4]], [[0.1, 0.6]]])
        >>> calibration_counts(probabilities, torch.tensor([[0, 0]]), bins=2)[:, :2].tolist()
        [[0, 0], [2, 1]]
    """
    check_bins(bins)
    truth = as_integers(target, "The target").to(probabilities.device)
    if probabilities.ndim not in (3, 4) or probabilities.shape[:-3] + probabilities.shape[-2:] != truth.shape:
        raise ShapeError(
            f"Probabilities (B, classes, H, W) go with a target (B, H, W), but have shape "
            f"{tuple(probabilities.shape)} where the target has {tuple(truth.shape)}."
        )
    check_probabilities(probabilities)
    sure, predicted = probabilities.detach().max(-3)
    valid = truth != ignore_index
    truth = truth[valid]
    check_range(truth, probabilities.shape[-3], "The target", f" (or {ignore_index} for void)")
    # The softmax of float32 may exceed 1 in its last bit.
    shares = sure[valid].double().clamp_(0, 1)
    places = ((shares * bins).ceil().long() - 1).clamp_(0, bins - 1)
    right = (predicted[valid] == truth).double()
    columns = [torch.ones_like(shares), right, *split(shares).double().unbind(-1)]
    # Sums of whole numbers below 2⁵³, which float64 holds exactly in any order.
    assert shares.numel() < 2**26, "one call counts a batch, not a data set"
    return torch.stack([places.bincount(column, minlength=bins) for column in columns], -1).long()


def reliability(counts: Tensor) -> Reliability:
    """Reads the expected calibration error and the reliability diagram off the counts of `calibration_counts`.

    The expected calibration error is that of Naeini et al. (AAAI 2015) and Guo et al. (On calibration of modern neural
    networks, ICML 2017, eq. 3): Σ over the bins of their share of the pixels times |accuracy − mean confidence|.

    Args:
        counts: int64, (bins, 4), or several of them added up.

    Returns:
        The diagram, on the CPU; NaN throughout without pixels.

    Example:
        >>> probabilities = torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]])
        >>> reliability(calibration_counts(probabilities, torch.tensor([[0, 0]]))).ece
        0.25
    """
    table = counts.detach().cpu()
    pixels, right, high, low = table.unbind(-1)
    total = table.sum(0)
    # Differences of sums, not of means: all of it is integer arithmetic up to the one division.
    gaps = [
        abs((hits << (HIGH_BITS + LOW_BITS)) - ((coarse << LOW_BITS) + fine))
        for _, hits, coarse, fine in table.tolist()
    ]
    number = int(total[0])
    nothing = float("nan")
    return Reliability(
        ece=sum(gaps) / (number << (HIGH_BITS + LOW_BITS)) if number else nothing,
        accuracy=int(total[1]) / number if number else nothing,
        confidence=mean(total[[2, 3, 0]]).item(),
        edges=torch.linspace(0, 1, len(table) + 1, dtype=torch.float64),
        bin_accuracy=right.double() / pixels.double(),
        bin_confidence=mean(torch.stack([high, low, pixels], -1)),
        pixels=pixels.clone(),
    )


def check_bins(bins: int) -> int:
    """The number of bins; a `RecipeError` where there is none."""
    if bins != int(bins) or bins < 1:
        raise RecipeError(f"Calibration needs a whole number of bins from 1 up, not {bins}.")
    return int(bins)


class CalibrationCounts(torchmetrics.Metric):
    """The counts of `calibration_counts` summed over batches, and over ranks where there are several.

    Every pixel's confidence is rounded once, to a whole number of 2⁻⁵³, and whole numbers are summed, so neither the
    order of the images nor the number of ranks changes the result.

    Args:
        bins: how many bins there are between 0 and 1.
        ignore_index: the target value that is not counted.

    Example:
        >>> metric = CalibrationCounts()
        >>> metric.update(torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]]), torch.tensor([[0, 255]]))
        >>> reliability(metric.compute()).ece
        0.25
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, *, bins: int = BINS, ignore_index: int = 255) -> None:
        super().__init__()
        self.bins = check_bins(bins)
        self.ignore_index = ignore_index
        self.add_state("counts", torch.zeros(self.bins, 4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, target: Labels) -> None:
        """Adds a batch.

        Args:
            probabilities: floats from 0 to 1, (B, classes, H, W).
            target: true classes, integers (B, H, W).
        """
        found = calibration_counts(probabilities, target, bins=self.bins, ignore_index=self.ignore_index)
        self.counts += found.to(self.counts.device)

    def compute(self) -> Tensor:
        """The counts so far, over all ranks.

        Returns:
            int64, (bins, 4), for `reliability`.
        """
        return self.counts.clone()
