"""Boundary pixels and their counterparts, counted by compiled loops on several threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from segcontext import native
from segcontext.metrics.labels import LabelMap

__all__ = ["count_matches"]

Counts = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

#: Larger radii are not looked through by disks: they would reach beyond the neighbouring words.
LARGEST_DISK = 63
#: Squared radii after which it pays to see whether any pixels are left.
STEPS = (4**2, 8**2, 16**2, 32**2, LARGEST_DISK**2)


def count_matches(
    prediction: LabelMap, truth: LabelMap, num_classes: int, slacks: Sequence[float]
) -> tuple[Counts, Counts, Counts, Counts]:
    """The counts of `segcontext.metrics.BoundaryMatches`.

    One class after the other has its boundary pixels set as bits in a plane for either map, with 64 columns in a word.
    Eight such words, one below the other, are matched at once: all of the other plane's that a disk reaches, moved by
    the disk's offsets, are joined and taken away from them. A pixel that is farther from the other boundary than the
    largest disk has its distance looked for on its own. Planes take a bit for each pixel, two for each thread, however
    many classes there are.

    Args:
        prediction: predicted classes, int32, (H, W), `NOTHING` where the truth is void.
        truth: true classes, likewise.
        num_classes: how many classes there are.
        slacks: radii, in pixels.
    """
    from segcontext.native.boundary_blocks import match_classes
    from segcontext.native.word_rows import ROWS

    height, width = truth.shape
    farthest = height**2 + width**2
    wanted = [_largest_square(slack, farthest) for slack in slacks]
    limits = _limits(wanted)
    spans = _spans(limits)
    above = -(-(spans.shape[1] - 1) // ROWS) * ROWS
    stride = above + -(-height // ROWS) * ROWS
    layout = (stride + above, stride)
    begins, words, pixels = zip(
        *(_by_class(labels, num_classes, layout) for labels in (prediction, truth)), strict=True
    )
    starts = np.stack(begins)
    sizes = np.diff(starts)
    matched = np.zeros((2, len(limits), num_classes), dtype=np.int64)
    # The largest first, or one thread might end with a large one alone.
    shared = np.flatnonzero(sizes.min(0))
    order = shared[np.argsort(-sizes.sum(0)[shared], kind="stable")]
    planes: SimpleQueue[Words] = SimpleQueue()

    def match(first: int, last: int) -> None:
        if planes.empty():
            planes.put(np.zeros((2, (-(-width // 64) + 2) * stride + above), dtype=np.uint64))
        pair = planes.get()
        match_classes(starts, words, limits, spans, pair, (height, width), layout, order, first, last, matched)
        planes.put(pair)

    native.split(len(order), match, parts_each=max(1, len(order)))
    chosen = matched[:, np.searchsorted(limits, wanted)]
    return pixels[0], pixels[1], chosen[0], chosen[1]


def _by_class(labels: LabelMap, num_classes: int, layout: tuple[int, int]) -> tuple[Counts, Words, Counts]:
    """Where each class's words begin, (classes + 1,), words and their places by class, and pixels, (classes,)."""
    from segcontext.native.boundary import boundary_words, group

    parts: dict[int, tuple[Words, Counts]] = {}
    labels = np.ascontiguousarray(labels)
    small = num_classes < 256
    nothing = np.uint8(255) if small else np.int32(-1)

    def find(first: int, last: int) -> None:
        counts = np.zeros((2, num_classes), dtype=np.int64)
        lines = np.empty((2, (-(-labels.shape[1] // 64) + 1) * 64), dtype=nothing.dtype)
        parts[first] = boundary_words(labels, first, last, lines, nothing, layout, counts), counts

    native.split(len(labels), find, grain=16)
    ordered = [parts[first] for first in sorted(parts)]
    each, pixels = np.stack([counts for _, counts in ordered], axis=1)
    starts = np.concatenate([[0], np.cumsum(each.sum(0))])
    # Within a class, parts follow one another.
    begins = starts[:-1] + np.cumsum(each, 0) - each
    words = np.empty((int(starts[-1]), 2), dtype=np.uint64)
    for (found, _), begin in zip(ordered, begins, strict=True):
        group(found, begin, words)
    return starts, words, pixels.sum(0)


def _limits(wanted: Sequence[int]) -> Counts:
    """Squared radii, increasing: those wanted, and steps between those that are far from each other."""
    largest = max(wanted)
    steps = [step for step in STEPS if step < largest and not any(step // 4 <= limit <= step for limit in wanted)]
    return np.array(sorted({*wanted, *steps}), dtype=np.int64)


def _spans(limits: Counts) -> Counts:
    """How many columns the disks reach in each row from the middle on, (disks, rows); 0 beyond."""
    disks = [int(limit) for limit in limits if limit < (LARGEST_DISK + 1) ** 2]
    spans = np.zeros((len(disks), math.isqrt(disks[-1]) + 1), dtype=np.int64)
    for row, limit in zip(spans, disks, strict=True):
        reach = math.isqrt(limit)
        row[: reach + 1] = [math.isqrt(limit - down**2) for down in range(reach + 1)]
    return spans


def _largest_square(slack: float, farthest: int) -> int:
    """The largest whole number whose root, as a float, is at most the slack."""
    if slack >= math.sqrt(farthest):
        return farthest
    square = int(slack * slack) + 1
    while math.sqrt(square) > slack:
        square -= 1
    return square
