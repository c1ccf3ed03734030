"""Label maps as the metrics of boundaries and objects take them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcontext import native
from segcontext.metrics.labels import NOTHING, LabelMap, Labels, as_integers, check_map, check_range, check_shapes
from segcontext.metrics.plain import obstacle, plain_pair
from segcontext.ops.implementations import choose

__all__ = ["as_device_maps", "as_maps", "present"]


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
    if choose("as_maps", None, {"native": obstacle(prediction, target)}) == "native":
        maps = _natively(prediction, target, num_classes, ignore_index)
        if maps is not None:
            return maps
    truth = as_integers(target, "The target").cpu()
    predicted = as_integers(prediction, "The prediction").cpu()
    first, second = (labels.numpy() for labels in as_device_maps(predicted, truth, num_classes, ignore_index))
    return first, second


def as_device_maps(prediction: Labels, target: Labels, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The same as tensors on the device of the target.

    Args:
        prediction: as for `as_maps`.
        target: as there.
        num_classes: as there.
        ignore_index: as there.
    """
    truth = as_integers(target, "The target")
    predicted = as_integers(prediction, "The prediction").to(truth.device)
    check_shapes(predicted, truth)
    check_map(truth)
    valid = truth != ignore_index
    check_range(truth[valid], num_classes, "The target", f" (or {ignore_index} for void)")
    check_range(predicted[valid], num_classes, "The prediction", "")
    height, width = truth.shape[-2:]
    first, second = (
        torch.where(valid, labels, NOTHING).to(torch.int32).reshape(-1, height, width) for labels in (predicted, truth)
    )
    return first, second


def present(labels: LabelMap | Tensor, num_classes: int) -> npt.NDArray[np.bool_]:
    """Whether each class has a pixel in a map, (classes,)."""
    if isinstance(labels, Tensor):
        found: npt.NDArray[np.bool_] = (
            (torch.bincount(labels.ravel() + 1, minlength=num_classes + 1)[1:] > 0).cpu().numpy()
        )
        return found
    if choose("present", None, {"native": native.unavailable()}) == "native":
        from segcontext.native.maps import count_labels

        counts = np.zeros(num_classes + 1, dtype=np.int64)
        count_labels(labels.ravel(), counts)
    else:
        counts = np.bincount(labels.ravel() + 1, minlength=num_classes + 1)
    return np.asarray(counts[1:] > 0)


def _natively(
    prediction: Labels, target: Labels, num_classes: int, ignore_index: int
) -> tuple[LabelMap, LabelMap] | None:
    """The maps, or `None` where a value is neither a class nor void."""
    from segcontext.native.maps import clear_void

    ours, theirs = plain_pair(prediction, target)
    check_map(torch.from_numpy(theirs))
    predicted, truth = np.empty(theirs.shape, dtype=np.int32), np.empty(theirs.shape, dtype=np.int32)
    flat = [labels.reshape(-1) for labels in (ours, theirs, predicted, truth)]
    valid: list[bool] = []

    def clear(first: int, last: int) -> None:
        guess, true, mine, other = (labels[first:last] for labels in flat)
        valid.append(clear_void(guess, true, num_classes, ignore_index, NOTHING, mine, other))

    native.split(theirs.size, clear, grain=2**15)
    height, width = theirs.shape[-2:]
    return (predicted.reshape(-1, height, width), truth.reshape(-1, height, width)) if all(valid) else None
