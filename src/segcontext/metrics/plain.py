"""Labels as arrays that compiled loops take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segcontext import native
from segcontext.metrics.labels import Labels, as_integers, check_shapes

__all__ = ["obstacle", "plain_pair"]


def obstacle(*labels: Labels) -> str | None:
    """Why compiled loops cannot take these labels, in a few words; `None` where they can."""
    for each in labels:
        if isinstance(each, Tensor) and each.device.type != "cpu":
            return f"it runs on the CPU, and labels are on {each.device.type}"
    return native.unavailable()


def plain_pair(prediction: Labels, target: Labels) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Prediction and target of one shape as arrays without gaps: uint8 where both are, int64 otherwise.

    Raises:
        ShapeError: they are not integers, or have two shapes.
    """
    narrow = [_bytes(each) for each in (prediction, target)]
    if any(each is None for each in narrow):
        narrow = [as_integers(prediction, "The prediction").numpy(), as_integers(target, "The target").numpy()]
    predicted, truth = (np.ascontiguousarray(each) for each in narrow)
    check_shapes(predicted, truth)
    return predicted, truth


def _bytes(labels: Labels) -> npt.NDArray[np.uint8] | None:
    """Labels as uint8, without a copy, where they are."""
    array = labels.detach().as_subclass(Tensor).numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    return array.view(np.uint8) if array.dtype == np.uint8 else None
