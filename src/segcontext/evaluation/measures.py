"""What an evaluation measures besides the scores of the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segcontext.errors import RecipeError
from segcontext.metrics import (
    BoundaryProtocol,
    band_confusion_matrix,
    boundary_iou_counts,
    boundary_tally,
    calibration_counts,
    size_counts,
)
from segcontext.metrics.calibration import check_bins
from segcontext.metrics.sizes import check_areas
from segcontext.metrics.widths import check_width

__all__ = ["Measures"]


@dataclass(frozen=True)
class Measures:
    """What `evaluate` measures besides the scores of the confusion matrix; by default nothing.

    Widths and slacks are shares of the image's diagonal below 1, or pixels from 1 up.

    Args:
        boundary: slacks of the boundary F-score, such as `segcontext.metrics.PAPER_SLACKS`; empty does not measure it.
        boundary_protocol: ``"paper"`` or ``"strict"``, as for `segcontext.metrics.boundary_f_score`.
        boundary_iou: the width for Boundary IoU, 0.02 in its paper.
        sizes: areas from which objects are medium and large, such as `segcontext.metrics.AREAS`; empty does not score
            by size.
        band: the width of the band along true boundaries, inside and outside of which scores are taken.
        calibration: number of bins of the reliability diagram, such as `segcontext.metrics.BINS`; 0 leaves it out. It
            needs the probabilities of all classes at image size, which take time and memory.

    Raises:
        RecipeError: a value is out of range.

    Example:
        >>> Measures(boundary=(3, 0.005), band=5).boundary
        (3.0, 0.005)
    """

    boundary: tuple[float, ...] = ()
    boundary_protocol: BoundaryProtocol = "paper"
    boundary_iou: float | None = None
    sizes: tuple[int, ...] = ()
    band: float | None = None
    calibration: int = 0

    def __post_init__(self) -> None:
        # Lists could not be hashed.
        object.__setattr__(self, "boundary", tuple(check_width(slack, "A slack") for slack in self.boundary))
        object.__setattr__(self, "sizes", check_areas(self.sizes) if self.sizes else ())
        if self.boundary_protocol not in ("paper", "strict"):
            raise RecipeError(f"The boundary protocol is 'paper' or 'strict', not {self.boundary_protocol!r}.")
        for width, what in ((self.boundary_iou, "The width of boundary IoU"), (self.band, "The width of the band")):
            if width is not None:
                check_width(width, what)
        if self.calibration:
            check_bins(self.calibration)

    @property
    def any(self) -> bool:
        """Whether anything is measured."""
        return bool(self.boundary or self.boundary_iou or self.sizes or self.band or self.calibration)

    def count(self, labels: Tensor, truth: Tensor, probabilities: Tensor | None, classes: int) -> dict[str, Tensor]:
        """The counts of images, which add up over images and ranks.

        Args:
            labels: predicted classes, (B, H, W).
            truth: true classes, (B, H, W), 255 for void.
            probabilities: of all classes, (B, classes, H, W), where calibration is measured.
            classes: how many classes there are.

        Returns:
            int64 counts of each measure, by its name.
        """
        found: dict[str, Tensor] = {}
        if self.boundary:
            protocol = self.boundary_protocol
            there = truth.to(labels.device)
            found["boundary"] = boundary_tally(labels, there, classes, self.boundary, protocol=protocol)
        # The others are counted on the CPU.
        labels, truth = labels.cpu(), truth.cpu()
        if self.boundary_iou is not None:
            found["boundary_iou"] = boundary_iou_counts(labels, truth, classes, width=self.boundary_iou)
        if self.sizes:
            found["sizes"] = size_counts(labels, truth, classes, areas=self.sizes)
        if self.band is not None:
            found["band"] = band_confusion_matrix(labels, truth, classes, width=self.band)
        if self.calibration:
            assert probabilities is not None, "calibration needs them"
            found["calibration"] = calibration_counts(probabilities, truth, bins=self.calibration)
        return found

    def zeros(self, classes: int) -> dict[str, Tensor]:
        """The counts of no image, for ranks that get none.

        Args:
            classes: how many classes there are.

        Returns:
            int64 zeros, by the measure's name.
        """
        nothing = torch.zeros(0, 1, 1, dtype=torch.int64)
        return self.count(nothing, nothing, torch.zeros(0, classes, 1, 1), classes)
