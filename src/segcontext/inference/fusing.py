"""The labels of several views' answers together, without any answer at image size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcontext import native
from segcontext.ops import label_dtype
from segcontext.ops.bilinear import places

__all__ = ["View", "fuse", "obstacle"]


class View(NamedTuple):
    """What the network says of one view, at the resolution of its features.

    Attributes:
        logits: (B, classes, h, w).
        whole: (height, width) that they are upsampled to, padding and all.
        size: (height, width) of the upper left part of it that is the view.
        align_corners: of the upsampling; the view is brought to the image's size without.
        flip: whether the view is a mirror image.
    """

    logits: Tensor
    whole: tuple[int, int]
    size: tuple[int, int]
    align_corners: bool
    flip: bool


class Taps(NamedTuple):
    """Along one side: pixel n is the sum over t of weights[n, t] · values[first[n] + t]."""

    first: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def obstacle(views: list[View], size: tuple[int, int]) -> str | None:
    """Why `fuse` cannot take these views, in a few words; `None` where it can.

    Args:
        views: the answers.
        size: (H, W) of the image.
    """
    for view in views:
        if view.logits.device.type != "cpu":
            return f"it runs on the CPU, and the logits are on {view.logits.device.type}"
        if view.logits.dtype == torch.float64:
            return "it computes in float32, and the logits are float64"
        largest = max(abs(value.item()) for value in view.logits.aminmax())
        if not largest <= torch.finfo(torch.float32).max:
            return "logits are not finite"
    return native.unavailable() or _too_wide(views, size)


def fuse(views: list[View], size: tuple[int, int], *, softmax: bool) -> Tensor:
    """The argmax of the views' logits or probabilities, each brought to the image's size, added up.

    Args:
        views: the answers; of all of them the logits are held, at the resolution of the features.
        size: (H, W) of the image.
        softmax: whether probabilities are added up, or logits.

    Returns:
        Integers as `segcontext.ops.label_dtype` has them, (B, H, W).

    Note:
        Both resizings are done in one, so the sums differ from those of the plain way in their last digits: by less
        than 1e-6 of the largest logit, and 1e-6 of probabilities. Where two classes are nearer to each other than
        that, another of the two may be named.
    """
    from segcontext.native.views_argmax import TILE, label_tiles

    classes = views[0].logits.shape[1]
    rows, columns = ([_taps(view, size, side) for view in views] for side in (0, 1))
    taps = max(each.weights.shape[1] for each in (*rows, *columns))
    tops, row_weights = _stack([_widened(each, taps, views[n], 0) for n, each in enumerate(rows)])
    lefts, column_weights = _stack([_widened(each, taps, views[n], 1) for n, each in enumerate(columns)])
    # The last tile may reach beyond the image, where the last column repeats.
    beyond = ((0, 0), (0, TILE[1]))
    lefts = np.pad(lefts, beyond, mode="edge")
    column_weights = np.ascontiguousarray(np.pad(column_weights, (*beyond, (0, 0)), mode="edge").transpose(0, 2, 1))
    shapes = np.array([view.logits.shape[-2:] for view in views], dtype=np.int64)
    labels = torch.empty(len(views[0].logits), *size, dtype=label_dtype(classes))
    for index, filled in enumerate(labels.numpy()):
        held = [view.logits[index].detach().float().contiguous() for view in views]
        addresses = np.array([each.data_ptr() for each in held], dtype=np.int64)

        def fill(first: int, last: int) -> None:
            label_tiles(
                addresses, shapes, classes, tops, row_weights, lefts, column_weights, softmax, filled, first, last
            )

        native.split(-(-size[0] // TILE[0]), fill, parts_each=8)
    return labels


def _too_wide(views: list[View], size: tuple[int, int]) -> str | None:
    for side in (0, 1):
        taps = max(_taps(view, size, side).weights.shape[1] for view in views)
        if taps > 8 or any(view.logits.shape[2 + side] < taps for view in views):
            return "the features are too small, or larger than the image"
    return None


def _taps(view: View, size: tuple[int, int], side: int) -> Taps:
    """Upsampling and bringing to image size, one after the other, as one sum."""
    inner = places(view.logits.shape[2 + side], view.whole[side], view.align_corners)
    last = view.logits.shape[2 + side] - 1
    outer = places(view.size[side], size[side], False)
    if view.size[side] == size[side]:
        ends = [(np.arange(size[side]), np.ones(size[side]))]
    else:
        after = np.minimum(outer.first + 1, view.size[side] - 1)
        ends = [(outer.first, outer.before.astype(np.float64)), (after, outer.behind.astype(np.float64))]
    first = inner.first[ends[0][0]]
    span = int((np.minimum(inner.first[ends[-1][0]] + 1, last) - first).max()) + 1
    weights = np.zeros((size[side], span))
    every = np.arange(size[side])
    for pixels, share in ends:
        for offset, weight in ((0, inner.before), (1, inner.behind)):
            at = np.minimum(inner.first[pixels] + offset, last) - first
            np.add.at(weights, (every, at), share * weight[pixels])
    return Taps(first.astype(np.int32), weights.astype(np.float32))


def _widened(taps: Taps, count: int, view: View, side: int) -> Taps:
    """So many weights for each pixel, none of them beyond the features; mirrored where the view is."""
    values = view.logits.shape[2 + side]
    first = np.minimum(taps.first, values - count)
    weights = np.zeros((len(first), count), dtype=np.float32)
    for tap in range(taps.weights.shape[1]):
        place = taps.first - first + tap
        inside = place < count
        weights[np.flatnonzero(inside), place[inside]] = taps.weights[inside, tap]
    if side == 1 and view.flip:
        first, weights = first[::-1], weights[::-1]
    return Taps(np.ascontiguousarray(first), np.ascontiguousarray(weights))


def _stack(taps: list[Taps]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    return np.stack([each.first for each in taps]), np.stack([each.weights for each in taps])
