"""The boundary F-score: how well the boundaries of predicted masks meet those of the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from torch import Tensor

from segcontext.errors import RecipeError
from segcontext.metrics.boundary_matches import BoundaryMatches, boundary_matches, takes_gpu
from segcontext.metrics.exact import mean, tally
from segcontext.metrics.labels import LabelMap, Labels
from segcontext.metrics.maps import as_device_maps, as_maps, present
from segcontext.metrics.widths import check_width, slack_in_pixels

__all__ = ["PAPER_SLACKS", "BoundaryFScore", "BoundaryProtocol", "boundary_f_score", "boundary_tally"]

BoundaryProtocol: TypeAlias = Literal["paper", "strict"]
Shares: TypeAlias = npt.NDArray[np.float64]

#: The shares of the diagonal in GALD's Table V: 3, 5, 9 and 12 pixels at 1024 × 2048.
PAPER_SLACKS = (0.00088, 0.001875, 0.00375, 0.005)


def boundary_f_score(
    prediction: Labels,
    target: Labels,
    num_classes: int,
    slacks: Sequence[float],
    *,
    ignore_index: int = 255,
    protocol: BoundaryProtocol = "paper",
) -> Tensor:
    """The boundary F-score of each class at several slacks, averaged over the images (GALD §IV-C4, Table V).

    For each image and class the boundary of the predicted mask is held against that of the true one. Precision P is
    the share of the predicted boundary's pixels that lie within the slack of the true boundary, recall R the share of
    the true boundary's pixels that lie within the slack of the predicted one, and F = 2PR / (P + R), or 0 where both
    are 0. Within the slack means in a disk, dilation by which gives the same counts. Which pixels are boundary is
    defined at `segcontext.metrics.boundary_points`.

    Void pixels belong to no mask, neither true nor predicted, so a class has a boundary to void.

    - ``"paper"``: every image counts for every class. With a boundary in neither mask F is 1, with one in only one of
      them 0. A class that most images lack so scores high.
    - ``"strict"``: an image with the class in neither mask does not count for that class, which is NaN where no image
      counts.

    Args:
        prediction: predicted classes, integers (H, W) or (B, H, W). Its values under void are not read.
        target: true classes, of the same shape; `ignore_index` for void.
        num_classes: how many classes there are.
        slacks: shares of the image's diagonal below 1, which are rounded up to whole pixels, and pixels from 1 up.
        ignore_index: the target value of void.
        protocol: ``"paper"`` or ``"strict"``.

    Returns:
        float64, (slacks, classes), from 0 to 1, on the CPU; NaN where no image counts.

    Raises:
        ShapeError: the two have different or other shapes, or are not integers.
        LabelError: a value is neither a class nor void.
        RecipeError: a slack is out of range or none is given, or there is no such protocol.

    Note:
        A mask that fills the whole image has no boundary. ``"strict"`` gives 1 where the class fills both masks and 0
        where it fills one and the other lacks it; ``"paper"``, which looks at boundaries alone, gives 1 in both cases.

    Example:
        >>> target = torch.zeros(8, 8, dtype=torch.int64)
        >>> target[2:6, 2:6] = 1
        >>> boundary_f_score(target.roll(2, 1), target, 2, [1, 2])[:, 1].round(decimals=2).tolist()
        [0.69, 1.0]
    """
    return mean(boundary_tally(prediction, target, num_classes, slacks, ignore_index=ignore_index, protocol=protocol))


def boundary_tally(
    prediction: Labels,
    target: Labels,
    num_classes: int,
    slacks: Sequence[float],
    *,
    ignore_index: int = 255,
    protocol: BoundaryProtocol = "paper",
) -> Tensor:
    """Sums of the images' boundary F-scores in a form that adds up exactly.

    Args:
        prediction: as for `boundary_f_score`.
        target: as there.
        num_classes: as there.
        slacks: as there.
        ignore_index: as there.
        protocol: as there.

    Returns:
        int64, (slacks, classes, 3): two parts of the sum, and how many images count; `segcontext.metrics.mean` of it,
        or of several added up, is the score.
    """
    _check(slacks, protocol)
    height, width = target.shape[-2:] if target.ndim > 1 else (1, 1)
    radii = [slack_in_pixels(slack, height, width) for slack in slacks]
    predicted: LabelMap | Tensor
    truth: LabelMap | Tensor
    if takes_gpu(target, num_classes, radii):
        predicted, truth = as_device_maps(prediction, target, num_classes, ignore_index)
    else:
        predicted, truth = as_maps(_on_cpu(prediction), _on_cpu(target), num_classes, ignore_index)
    values = np.empty((len(truth), len(radii), num_classes))
    for index, (ours, theirs) in enumerate(zip(predicted, truth, strict=True)):
        counts = boundary_matches(ours, theirs, num_classes, radii)
        values[index] = _f_scores(counts)
        if protocol == "strict":
            found, wanted = (present(labels, num_classes) for labels in (ours, theirs))
            # A mask without a boundary is empty or full.
            bare = (counts.predicted == 0) & (counts.true == 0)
            values[index][:, bare & (found != wanted)] = 0
            values[index][:, ~found & ~wanted] = np.nan
    return tally(torch.from_numpy(values))


class BoundaryFScore(torchmetrics.Metric):
    """The boundary F-score summed over batches, and over ranks where there are several.

    The state is int64: every image's score, a float64 made of integer counts, is rounded once to a whole number of
    2⁻⁵³, and these are summed. The result therefore does not depend on the order of the images, on the batches, or on
    the number of ranks, to the last bit; against exact arithmetic it is off by less than 2⁻⁵². As always every sample
    must reach one rank once: take `RankSlice`, not a sampler that pads.

    Args:
        num_classes: how many classes there are.
        slacks: shares of each image's own diagonal below 1, and pixels from 1 up.
        ignore_index: the target value of void.
        protocol: ``"paper"`` or ``"strict"``, as for `boundary_f_score`.

    Raises:
        RecipeError: a slack is out of range or none is given, or there is no such protocol.

    Example:
        >>> metric = BoundaryFScore(2, [3, 0.01], protocol="strict")
        >>> metric.update(torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 4).long())
        >>> metric.compute().tolist()
        [[1.0, nan], [1.0, nan]]
    """

    full_state_update = False
    sums: Tensor

    def __init__(
        self,
        num_classes: int,
        slacks: Sequence[float],
        *,
        ignore_index: int = 255,
        protocol: BoundaryProtocol = "paper",
    ) -> None:
        super().__init__()
        _check(slacks, protocol)
        self.num_classes = num_classes
        self.slacks = tuple(float(slack) for slack in slacks)
        self.ignore_index = ignore_index
        self.protocol = protocol
        state = torch.zeros(len(self.slacks), num_classes, 3, dtype=torch.int64)
        self.add_state("sums", state, dist_reduce_fx="sum")

    def update(self, prediction: Labels, target: Labels) -> None:
        """Adds a batch.

        Args:
            prediction: predicted classes, integers (H, W) or (B, H, W).
            target: true classes, of the same shape.
        """
        found = boundary_tally(
            prediction,
            target,
            self.num_classes,
            self.slacks,
            ignore_index=self.ignore_index,
            protocol=self.protocol,
        )
        self.sums += found.to(self.sums.device)

    def compute(self) -> Tensor:
        """The score of the images so far, over all ranks.

        Returns:
            float64, (slacks, classes), on the CPU; NaN where no image counts. Its `nanmean` over the classes is the
            score of a slack.
        """
        return mean(self.sums)


def _on_cpu(labels: Labels) -> Labels:
    return labels.cpu() if isinstance(labels, Tensor) else labels


def _check(slacks: Sequence[float], protocol: str) -> None:
    if protocol not in ("paper", "strict"):
        raise RecipeError(f"The protocol of the boundary F-score is 'paper' or 'strict', not {protocol!r}.")
    if np.ndim(slacks) != 1 or len(slacks) == 0:
        raise RecipeError(
            "The boundary F-score needs a list of at least one slack, such as [3] (pixels) or [0.005] (of the "
            f"diagonal), not {slacks!r}."
        )
    for slack in slacks:
        check_width(slack, "A slack")


def _f_scores(counts: BoundaryMatches) -> Shares:
    """F of one image, (slacks, classes), as the paper's protocol has it."""
    # 2PR / (P + R) with both fractions cleared: numerator and denominator are integers.
    above = 2 * counts.predicted_matched * counts.true_matched
    below = counts.predicted_matched * counts.true + counts.true_matched * counts.predicted
    values: Shares = above / np.maximum(below, 1)
    values[:, (counts.predicted == 0) & (counts.true == 0)] = 1
    return values
