"""What labels are to the metrics, and the checks that they are."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcontext.errors import LabelError, ShapeError

__all__ = [
    "NOTHING",
    "LabelMap",
    "Labels",
    "as_integers",
    "check_map",
    "check_range",
    "check_shapes",
]

Labels: TypeAlias = Tensor | npt.NDArray[np.integer]
LabelMap: TypeAlias = npt.NDArray[np.int32]

#: What void pixels hold in the maps of `segcontext.metrics.maps.as_maps`: no class.
NOTHING = -1


def as_integers(labels: Labels, what: str) -> Tensor:
    """Labels as int64, on the device they are on.

    Args:
        labels: integers of any shape.
        what: how a message names them, with a capital.

    Raises:
        ShapeError: they are not integers.
    """
    if not isinstance(labels, Tensor):
        array = np.asarray(labels)
        if not np.issubdtype(array.dtype, np.integer):
            raise ShapeError(f"{what} must hold integers, not {array.dtype}.")
        # PyTorch has no arithmetic for most unsigned types; int64 holds every label.
        return torch.from_numpy(array.astype(np.int64))
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ShapeError(f"{what} must hold integers, not {labels.dtype}. Scores need an argmax over the classes.")
    # A plain tensor: subclasses such as tv_tensors only slow the counting down.
    return labels.detach().as_subclass(Tensor).long()


def check_shapes(predicted: Labels, truth: Labels) -> None:
    """Refuses labels of two shapes with a `ShapeError`."""
    if predicted.shape != truth.shape:
        raise ShapeError(
            f"Prediction and target must have one shape, but have {tuple(predicted.shape)} and {tuple(truth.shape)}. "
            "Bring the prediction to the size of the labels first."
        )


def check_range(labels: Tensor, num_classes: int, what: str, besides: str) -> None:
    """Refuses labels that are no class with a `LabelError`; `besides` is what else the message allows."""
    if labels.numel() == 0:
        return
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise LabelError(
            f"{what} may hold 0..{num_classes - 1}{besides}, but holds {wrong}. "
            "Check the number of classes, and how the labels are encoded."
        )


def check_map(labels: Tensor) -> None:
    """Refuses labels that are no maps, (H, W) or (B, H, W), with a `ShapeError`."""
    if labels.ndim not in (2, 3) or 0 in labels.shape[-2:]:
        raise ShapeError(f"Boundaries and objects need label maps (H, W) or (B, H, W), not {tuple(labels.shape)}.")
