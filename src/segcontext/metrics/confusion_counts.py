"""A confusion matrix counted by compiled loops, on several threads."""

from __future__ import annotations

import threading

import numpy as np
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
    from segcontext.native.confusion import count_pairs, count_words

    predicted, truth = (labels.reshape(-1) for labels in plain_pair(prediction, target))
    whole = len(truth) // 8 * 8 if truth.dtype == np.uint8 else 0
    total = np.zeros(num_classes**2, dtype=np.int64)
    adding = threading.Lock()
    valid = [True]

    def count(first: int, last: int) -> None:
        counts = np.zeros_like(total)
        # In words of eight pixels, and what is left over at the end.
        start, stop = min(8 * first, whole), min(8 * last, whole)
        fine = True
        if start < stop:
            guesses, true = (labels[start:stop].view(np.uint64) for labels in (predicted, truth))
            fine = count_words(guesses, true, num_classes, ignore_index, counts)
        rest = slice(max(8 * first, whole), min(8 * last, len(truth)))
        fine = count_pairs(predicted[rest], truth[rest], num_classes, ignore_index, counts) and fine
        with adding:
            total[:] += counts
            valid[0] &= fine

    # Each part has counts of its own, which must not outweigh its pixels.
    native.split(-(-len(truth) // 8), count, grain=max(2**13, num_classes**2 // 8), parts_each=2)
    return torch.from_numpy(total).view(num_classes, num_classes) if valid[0] else None
