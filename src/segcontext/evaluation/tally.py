"""Counts of an evaluation, summed over the images of a rank and then over all ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from segcontext.data.dataset import VOID
from segcontext.errors import DataError, LabelError, ShapeError
from segcontext.evaluation.measures import Measures
from segcontext.metrics import Scores, confusion_matrix, scores
from segcontext.types import Sample

__all__ = ["ImageScore", "Tally", "image_matrix"]


class ImageScore(NamedTuple):
    """How well one image was segmented.

    Attributes:
        name: the sample's name.
        miou: mIoU within this image; NaN where all of it is void.
        pixel_accuracy: share of its valid pixels that are right.
        position: its place in what was evaluated.
    """

    name: str
    miou: float
    pixel_accuracy: float
    position: int


class Tally:
    """Counts, which are integers and therefore add up to the same on any number of ranks.

    Args:
        measures: what is counted besides the confusion matrix.
        classes: how many classes there are.
        device: where the sums are.
    """

    def __init__(self, measures: Measures, classes: int, device: torch.device) -> None:
        self.measures = measures
        self.classes = classes
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self.totals = {name: counts.to(device) for name, counts in measures.zeros(classes).items()}
        self.images: list[ImageScore] = []

    def add(self, sample: Sample, labels: Tensor, probabilities: Tensor | None, position: int) -> None:
        """Counts one image.

        Args:
            sample: the image, with labels.
            labels: what was predicted for it, (H, W).
            probabilities: of all classes, (classes, H, W), where calibration is measured.
            position: its place in what is evaluated.
        """
        matrix = image_matrix(sample, labels, self.classes)
        self.matrix += matrix.to(self.matrix.device)
        values = scores(matrix)
        self.images.append(ImageScore(sample.name, values.miou, values.pixel_accuracy, position))
        if not self.measures.any:
            return
        assert sample.mask is not None, "it was scored before"
        answers = None if probabilities is None else probabilities[None]
        found = self.measures.count(labels[None], sample.mask[None], answers, self.classes)
        for name, counts in found.items():
            self.totals[name] += counts.to(self.totals[name].device)

    @property
    def scores(self) -> Scores:
        """The scores of the images so far."""
        return scores(self.matrix)

    def sum_over_ranks(self, world: int) -> None:
        """Gives every rank the counts of all, and the images' scores from the worst to the best.

        Args:
            world: how many ranks there are.
        """
        if world > 1:
            for counts in (self.matrix, *self.totals.values()):
                torch.distributed.all_reduce(counts)
            parts: list[list[ImageScore]] = [[] for _ in range(world)]
            torch.distributed.all_gather_object(parts, self.images)
            self.images = [image for part in parts for image in part]
        # NaN compares with nothing; images without a score go last.
        self.images.sort(key=lambda image: (image.miou != image.miou, image.miou, image.position))


def image_matrix(sample: Sample, labels: Tensor, classes: int) -> Tensor:
    """The confusion matrix of one image, with the image's name in the errors.

    Args:
        sample: the image, with labels.
        labels: what was predicted for it, (H, W).
        classes: how many classes there are.

    Raises:
        DataError: the image has no labels.
        LabelError: its labels hold a value that is neither a class nor void.
    """
    if sample.mask is None:
        raise DataError(f"{sample.name} has no labels, without which there are no scores. Choose a split with masks.")
    try:
        return confusion_matrix(labels, sample.mask.to(labels.device), classes, ignore_index=VOID)
    except (LabelError, ShapeError) as error:
        raise type(error)(f"{sample.name}: {error}") from error
