"""Boundary pixels and their counterparts on a GPU, for all classes and slacks at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from segcontext.gpu.availability import obstacle

__all__ = ["Matches", "boundary_matches", "boundary_obstacle"]


class Matches(NamedTuple):
    """Numbers of boundary pixels, int64, as `segcontext.metrics.boundary_matches` counts them.

    Attributes:
        predicted: (classes,).
        true: (classes,).
        predicted_matched: (slacks, classes).
        true_matched: (slacks, classes).
    """

    predicted: Tensor
    true: Tensor
    predicted_matched: Tensor
    true_matched: Tensor


#: The largest disk that is looked through offset by offset, in pixels.
MOST_REACH = 64


def boundary_obstacle(prediction: Tensor, num_classes: int, slacks: Sequence[float]) -> str | None:
    """Why `boundary_matches` cannot run on this, in a few words; `None` where it can.

    Args:
        prediction: (H, W), int32.
        num_classes: how many classes there are.
        slacks: radii of the disk, in pixels.
    """
    if max(slacks) > MOST_REACH:
        return f"disks of more than {MOST_REACH} pixels"
    if prediction.dtype != torch.int32:
        return "labels that are not int32"
    if prediction.numel() * _words(num_classes) * 32 >= 2**31:
        return "more than 2³¹ pixels times classes"
    return obstacle(prediction.new_empty(1, dtype=torch.float32))


def boundary_matches(prediction: Tensor, truth: Tensor, num_classes: int, slacks: Sequence[float]) -> Matches:
    """Counts boundary pixels and their counterparts for all classes and slacks.

    Each pixel has one bit for each class on whose boundary it is. The boundary's pixels are listed, and around each
    those of the other side are looked up by increasing distance, so that one walk serves all slacks.

    Args:
        prediction: predicted classes, int32, (H, W), negative where there is none.
        truth: true classes, the same.
        num_classes: how many classes there are.
        slacks: radii of the disk, in pixels, in any order.

    Returns:
        The counts, on the device. Nothing waits for the host.
    """
    by_size = sorted(set(slacks))
    places = [by_size.index(slack) for slack in slacks]
    counts = _count(torch.stack([prediction, truth]), num_classes, by_size)
    reached = counts.cumsum(2)[:, :, :-1].mT
    totals, reached = counts.sum(2), reached[:, places]
    return Matches(totals[0], totals[1], reached[0], reached[1])


@torch.library.custom_op("segcontext::boundary_counts_triton", mutates_args=())
def _count(labels: Tensor, num_classes: int, slacks: list[float]) -> Tensor:
    from segcontext.gpu.kernels import boundary

    _, height, width = labels.shape
    words, pixels = _words(num_classes), height * width
    bits, entries = labels.new_empty(2, words, pixels), labels.new_empty(2, 4 * pixels)
    lengths, counts = labels.new_zeros(2), labels.new_zeros(2, 32 * words, len(slacks) + 1)
    offsets, ends = _disk(tuple(slacks), str(labels.device))
    boundary.mark[ceil(pixels / 1024), 2](labels, bits, entries, lengths, height, width, WORDS=words, BLOCK=1024)
    # How long the lists are only the GPU knows.
    boundary.match[min(ceil(pixels / 128), 2048), 2](
        *(bits, entries, lengths, offsets, ends, counts, height, width),
        **{"SLACKS": len(slacks), "WORDS": words, "BLOCK": 128},
    )
    return counts[:, :num_classes].long()


@_count.register_fake
def _(labels: Tensor, num_classes: int, slacks: list[float]) -> Tensor:
    return labels.new_empty(2, num_classes, len(slacks) + 1, dtype=torch.int64)


def _words(num_classes: int) -> int:
    return ceil(num_classes / 32)


@lru_cache(maxsize=64)
def _disk(slacks: tuple[float, ...], device: str) -> tuple[Tensor, Tensor]:
    """Offsets within the largest slack by their distance, and how many lie within each."""
    reach = int(slacks[-1])
    around = torch.arange(-reach, reach + 1)
    offsets = torch.cartesian_prod(around, around)
    # Roots, as elsewhere: the square of √3 is less than 3.
    distances = offsets.square().sum(1).double().sqrt()
    order = distances.argsort(stable=True)
    order = order[distances[order] <= slacks[-1]]
    ends = [int((distances <= slack).sum()) for slack in slacks]
    return offsets[order].int().contiguous().to(device), torch.tensor(ends, dtype=torch.int32, device=device)
