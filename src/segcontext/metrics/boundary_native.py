"""Boundary pixels and their counterparts, counted by compiled loops on several threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from segcontext import native
from segcontext.metrics.labels import LabelMap

__all__ = ["count_matches", "obstacle"]

Counts = npt.NDArray[np.int64]


def obstacle(shape: tuple[int, ...]) -> str | None:
    """Why `count_matches` cannot take maps of this shape, in a few words; `None` where it can."""
    return (
        "it numbers rows in 15 bits and columns in 16" if shape[0] > 2**15 or shape[1] > 2**16 else native.unavailable()
    )


def count_matches(
    prediction: LabelMap, truth: LabelMap, num_classes: int, slacks: Sequence[float]
) -> tuple[Counts, Counts, Counts, Counts]:
    """The counts of `segcontext.metrics.BoundaryMatches`.

    One class after the other has its boundary pixels set as bits in a plane. From each pixel of the other map's
    boundary the rows of the plane are visited by their distance, until none can hold a nearer bit: where boundaries
    nearly meet, few are. Planes take a bit for each pixel, two for each thread, however many classes there are.

    Args:
        prediction: predicted classes, int32, (H, W), `NOTHING` where the truth is void.
        truth: true classes, likewise.
        num_classes: how many classes there are.
        slacks: radii, in pixels.
    """
    from segcontext.native.boundary import match_classes

    starts, places = zip(*(_by_class(labels, num_classes) for labels in (prediction, truth)), strict=True)
    begins = np.stack(starts)
    sizes = np.diff(begins)
    height, width = truth.shape
    farthest = height**2 + width**2
    limits = np.array([_largest_square(slack, farthest) for slack in slacks], dtype=np.int64)
    matched = np.zeros((2, len(limits), num_classes), dtype=np.int64)
    # The largest first, or one thread might end with a large one alone.
    shared = np.flatnonzero(sizes.min(0))
    order = shared[np.argsort(-sizes.sum(0)[shared], kind="stable")]
    planes: SimpleQueue[npt.NDArray[np.uint64]] = SimpleQueue()

    def match(first: int, last: int) -> None:
        if planes.empty():
            planes.put(np.zeros((2, height * (-(-width // 64) + 2) + 2), dtype=np.uint64))
        pair = planes.get()
        match_classes(begins, places, limits, pair, (height, width), order, first, last, matched)
        planes.put(pair)

    native.split(len(order), match, parts_each=max(1, len(order)))
    return sizes[0], sizes[1], matched[0], matched[1]


def _by_class(labels: LabelMap, num_classes: int) -> tuple[Counts, npt.NDArray[np.int32]]:
    """Where each class's boundary pixels begin, (classes + 1,), and their places y · 2¹⁶ + x, by class."""
    from segcontext.native.boundary import boundary_rows, group

    parts: dict[int, tuple[npt.NDArray[np.int32], Counts]] = {}
    labels = np.ascontiguousarray(labels)

    def find(first: int, last: int) -> None:
        counts = np.zeros(1 + num_classes, dtype=np.int64)
        parts[first] = boundary_rows(labels, first, last, counts), counts[1:]

    native.split(len(labels), find, grain=16)
    ordered = [parts[first] for first in sorted(parts)]
    each = np.stack([counts for _, counts in ordered])
    starts = np.concatenate([[0], np.cumsum(each.sum(0))])
    # Within a class, parts follow one another.
    begins = starts[:-1] + np.cumsum(each, 0) - each
    places = np.empty(int(starts[-1]), dtype=np.int32)
    for (found, _), begin in zip(ordered, begins, strict=True):
        group(found, begin, places)
    return starts, places


def _largest_square(slack: float, farthest: int) -> int:
    """The largest whole number whose root, as a float, is at most the slack."""
    if slack >= math.sqrt(farthest):
        return farthest
    square = int(slack * slack) + 1
    while math.sqrt(square) > slack:
        square -= 1
    return square
