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
    "as_maps",
    "check_map",
    "check_range",
    "check_shapes",
    "present",
]

Labels: TypeAlias = Tensor | npt.NDArray[np.integer]
LabelMap: TypeAlias = npt.NDArray[np.int32]

#: What void pixels hold in the maps of `as_maps`: no class.
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


def check_shapes(predicted: Tensor, truth: Tensor) -> None:
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


def as_maps(prediction: Labels, target: Labels, num_classes: int, ignore_index: int) -> tuple[LabelMap, LabelMap]:
    """Checked label maps on the CPU, without their void pixels.

    Args:
        prediction: predicted classes, integers (H, W) or (B, H, W). Its values under void are not read.
        target: true classes, of the same shape; `ignore_index` for void.
        num_classes: how many classes there are.
        ignore_index: the target value of void.

    Returns:
        Prediction and truth, int32, (B, H, W); pixels that are void in the truth hold `NOTHING` in both.

    Raises:
        ShapeError: the two have different or other shapes, or are not integers.
        LabelError: a value is neither a class nor void.
    """
    truth = as_integers(target, "The target").cpu()
    predicted = as_integers(prediction, "The prediction").cpu()
    check_shapes(predicted, truth)
    check_map(truth)
    valid = truth != ignore_index
    check_range(truth[valid], num_classes, "The target", f" (or {ignore_index} for void)")
    check_range(predicted[valid], num_classes, "The prediction", "")
    height, width = truth.shape[-2:]
    first, second = (
        torch.where(valid, labels, NOTHING).to(torch.int32).reshape(-1, height, width).numpy()
        for labels in (predicted, truth)
    )
    return first, second


def present(labels: LabelMap, num_classes: int) -> npt.NDArray[np.bool_]:
    """Whether each class has a pixel in a map, (classes,)."""
    return np.bincount(labels.ravel() + 1, minlength=num_classes + 1)[1:] > 0
