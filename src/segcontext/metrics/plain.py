"""Labels as arrays that compiled loops take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
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
    pair = (prediction, target)
    if not all(each.dtype in (torch.uint8, np.uint8) for each in pair):
        pair = (as_integers(prediction, "The prediction"), as_integers(target, "The target"))
    predicted, truth = (
        each.detach().as_subclass(Tensor) if isinstance(each, Tensor) else torch.from_numpy(np.ascontiguousarray(each))
        for each in pair
    )
    check_shapes(predicted, truth)
    return predicted.contiguous().numpy(), truth.contiguous().numpy()
