"""A confusion matrix counted by compiled loops, on several threads."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcontext import native
from segcontext.metrics.labels import Labels
from segcontext.metrics.plain import plain_pair

__all__ = ["count_natively"]


def count_natively(prediction: Labels, target: Labels, num_classes: int, ignore_index: int) -> Tensor | None:
    """The counts of `segcontext.metrics.confusion_matrix`, or `None` where a value is no class.

    Args:
        prediction: predicted classes, on the CPU.
        target: true classes, on the CPU.
        num_classes: how many classes there are.
        ignore_index: the target value that is not counted.

    Raises:
        ShapeError: the two have different shapes, or are not integers.
    """
    from segcontext.native.confusion import count_pairs, count_runs

    predicted, truth = (labels.reshape(-1) for labels in plain_pair(prediction, target))
    # Behind the classes, a column is for what is none, one row for void and one for what is none.
    total = np.zeros((num_classes + 2, num_classes + 1), dtype=np.int64)
    tables = _tables(num_classes, ignore_index) if truth.dtype == np.uint8 else None
    adding = threading.Lock()

    def count(first: int, last: int) -> None:
        counts = np.zeros_like(total)
        those = predicted[first:last], truth[first:last]
        if tables is None:
            count_pairs(*those, num_classes, ignore_index, counts)
        else:
            count_runs(*those, *tables, counts.reshape(-1))
        with adding:
            total[:] += counts

    # Each part has counts of its own, which must not outweigh its pixels, and to wake a thread takes as long as 2¹⁸.
    native.split(len(truth), count, grain=max(2**18, num_classes**2))
    wrong = total[-1].any() or total[:num_classes, -1].any()
    return None if wrong else torch.from_numpy(total[:num_classes, :num_classes].copy())


@lru_cache(maxsize=16)
def _tables(classes: int, void: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where labels of eight bits are counted: each predicted value's column, and where each true one's row begins."""
    columns = np.minimum(np.arange(256), classes)
    rows = np.where(columns < classes, columns, classes + 1)
    if 0 <= void < 256:
        rows[void] = classes
    return columns, rows * (classes + 1)
