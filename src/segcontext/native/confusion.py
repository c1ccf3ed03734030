"""Counting pairs of labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from segcontext.native.bits import bits_below, where_unlike
from segcontext.native.jit import jit

__all__ = ["count_pairs", "count_runs"]


@jit
def count_pairs(prediction: Any, target: Any, classes: int, void: int, counts: Any) -> None:
    """Counts predictions of each class by true class.

    Args:
        prediction: integers, (n,).
        target: integers, (n,).
        classes: how many there are.
        void: the target value that is not counted.
        counts: int64, (classes + 2, classes + 1), added to. Behind the classes, a column is for what is none, one row
            for void and one for what is none.
    """
    for n in range(len(target)):
        truth, guess = int(target[n]), int(prediction[n])
        row = truth if 0 <= truth < classes else classes + 1
        column = guess if 0 <= guess < classes else classes
        counts[classes if truth == void else row, column] += 1


@jit
def count_runs(prediction: Any, target: Any, columns: Any, rows: Any, counts: Any) -> None:
    """The same for labels of eight bits, run by run: neighbours are mostly alike.

    Args:
        prediction: uint8, (n,).
        target: uint8, (n,).
        columns: of each predicted value, its column in the counts, (256,).
        rows: of each target value, its row in the counts times their width, (256,).
        counts: int64, (classes + 2, classes + 1) as above but flat, added to.
    """
    n = len(target)
    # The first pixel of the run.
    begin = 0
    at = 0
    while at + 64 < n:
        ends = where_unlike(prediction, at, prediction, at + 1) | where_unlike(target, at, target, at + 1)
        while ends:
            last = at + bits_below(ends)
            counts[rows[target[last]] + columns[prediction[last]]] += last + 1 - begin
            begin = last + 1
            ends &= ends - np.uint64(1)
        at += 64
    for last in range(at, n):
        if last + 1 == n or prediction[last] != prediction[last + 1] or target[last] != target[last + 1]:
            counts[rows[target[last]] + columns[prediction[last]]] += last + 1 - begin
            begin = last + 1
