"""Label maps for the metrics of boundaries and objects."""

from __future__ import annotations

from typing import Any

from segcontext.native.jit import jit

__all__ = ["clear_void", "count_labels"]


@jit
def clear_void(prediction: Any, target: Any, classes: int, void: int, nothing: int, predicted: Any, truth: Any) -> bool:
    """Copies labels, void left out of both.

    Args:
        prediction: integers, (n,).
        target: integers, (n,).
        classes: how many there are.
        void: the target's value for it.
        nothing: what takes its place in both.
        predicted: int32, (n,), to be filled.
        truth: int32, (n,), to be filled.

    Returns:
        Whether all other values were classes.
    """
    wrong = 0
    for n in range(len(target)):
        theirs, ours = int(target[n]), int(prediction[n])
        valid = theirs != void
        wrong += valid & ((theirs < 0) | (theirs >= classes) | (ours < 0) | (ours >= classes))
        truth[n] = theirs if valid else nothing
        predicted[n] = ours if valid else nothing
    return wrong == 0


@jit
def count_labels(labels: Any, counts: Any) -> None:
    """Counts the pixels of each class.

    Args:
        labels: int32, (n,), -1 where no class is.
        counts: int64, (1 + classes,), added to.
    """
    for n in range(len(labels)):
        counts[labels[n] + 1] += 1
