"""The labels of several views' answers together, without any answer at image size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcontext import native
from segcontext.gpu.fusion import View, fuse, fuse_obstacle
from segcontext.inference.protocol import Protocol
from segcontext.inference.views import Answer, resize
from segcontext.ops import label_dtype, resized_argmax
from segcontext.ops.bilinear import places
from segcontext.ops.implementations import Implementation, Site, choose
from segcontext.ops.launching import launched
from segcontext.ops.resized_argmax import argmax_in_parts

__all__ = ["fused_labels"]


class Taps(NamedTuple):
    """Along one side: pixel n is the sum over t of weights[n, t] · values[first[n] + t]."""

    first: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def fused_labels(
    views: Sequence[Answer],
    size: tuple[int, int],
    protocol: Protocol,
    *,
    implementation: Implementation | None = None,
) -> Tensor:
    """The argmax of what the views' answers are on average, each brought to the image's size.

    Args:
        views: the answers; of all of them the logits are held, at the resolution of the features.
        size: (H, W) of the image.
        protocol: says what is averaged.
        implementation: ``"reference"``, ``"native"`` (the CPU), ``"triton"`` (a GPU) or ``"auto"``; `None` is what
            `segcontext.ops.use_implementation` says.

    Returns:
        Integers as `segcontext.ops.label_dtype` has them, (B, H, W), on the device of the answers.

    Note:
        Compiled loops resize several views, or one of another scale, in one step instead of two, so sums differ in
        their last digits: by less than 10⁻⁶ of the largest logit, or 10⁻⁶ of a probability for each view. Where two
        classes are nearer to each other than that, another of the two may be named.
    """
    first = views[0]
    features = first.output.features_logits
    if len(views) == 1 and first.size == size:
        return resized_argmax(
            features,
            first.output.size,
            align_corners=first.output.align_corners,
            crop=size,
            implementation=implementation,
        )
    softmax = len(views) > 1 and protocol.average == "probabilities"
    obstacles: dict[Implementation, str | None] = {
        "triton": _triton_obstacle(views),
        "native": _obstacle(views, size),
    }
    site = Site.of(features, follows=False)
    form = choose("fused_labels", implementation, obstacles, site)
    if form == "triton":
        run, plain = (partial(each, views, size, softmax) for each in (_fuse_on_gpu, _add_up))
        found = launched("fused_labels", implementation, site, run, plain)
        if found is not None:
            return found
        form = choose("fused_labels", implementation, obstacles, site)
    if form == "native":
        return _fuse(views, size, softmax=softmax)
    return _add_up(views, size, softmax)


def _add_up(views: Sequence[Answer], size: tuple[int, int], softmax: bool) -> Tensor:
    """The argmax of the views' logits or probabilities, each of which is made at the image's size."""
    first = views[0]
    features = first.output.features_logits
    if len(views) == 1:
        labels = argmax_in_parts(features, lambda part: resize(first.logits(part), size), size[0] * size[1])
        return labels.to(label_dtype(features.shape[1]))
    total: Tensor | None = None
    for view in views:
        answer = resize(view.logits(), size)
        answer = answer.softmax(1) if softmax else answer
        answer = answer.flip(-1) if view.flipped else answer
        total = answer if total is None else total + answer
    assert total is not None, "there is at least one view"
    return total.argmax(1).to(label_dtype(features.shape[1]))


def _triton_obstacle(views: Sequence[Answer]) -> str | None:
    """Why the GPU's kernel cannot take these views, in a few words; `None` where it can."""
    if len({view.output.align_corners for view in views}) > 1:
        return "views of several kinds of upsampling"
    return fuse_obstacle([_as_view(view) for view in views])


def _as_view(answer: Answer) -> View:
    return View(answer.output.features_logits, answer.output.size, answer.size, answer.flipped)


def _fuse_on_gpu(views: Sequence[Answer], size: tuple[int, int], softmax: bool) -> Tensor:
    """`_add_up`, in the registers of a GPU."""
    output = views[0].output
    return fuse(
        [_as_view(view) for view in views],
        size,
        probabilities=softmax,
        align_corners=output.align_corners,
        dtype=label_dtype(output.features_logits.shape[1]),
    )


def _obstacle(views: Sequence[Answer], size: tuple[int, int]) -> str | None:
    """Why `_fuse` cannot take these views, in a few words; `None` where it can.

    Args:
        views: the answers.
        size: (H, W) of the image.
    """
    for view in views:
        if view.output.features_logits.device.type != "cpu":
            return f"it runs on the CPU, and the logits are on {view.output.features_logits.device.type}"
        if view.output.features_logits.dtype == torch.float64:
            return "it computes in float32, and the logits are float64"
        largest = max(abs(value.item()) for value in view.output.features_logits.aminmax())
        if not largest <= torch.finfo(torch.float32).max:
            return "logits are not finite"
    return native.unavailable() or _too_wide(views, size)


def _fuse(views: Sequence[Answer], size: tuple[int, int], *, softmax: bool) -> Tensor:
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

    classes = views[0].output.features_logits.shape[1]
    rows, columns = ([_taps(view, size, side) for view in views] for side in (0, 1))
    taps = max(each.weights.shape[1] for each in rows)
    tops, row_weights = _stack([_widened(each, taps, view) for each, view in zip(rows, views, strict=True)])
    columns = [_tiled(*pair, TILE[1]) for pair in zip(columns, views, strict=True)]
    lefts, spans = zip(*(_beginnings(each, view) for each, view in zip(columns, views, strict=True)), strict=True)
    sizes = np.array(spans, dtype=np.int64) * len(lefts[0])
    starts = np.cumsum(sizes) - sizes
    # Made in place: these are the largest tables.
    column_weights = np.zeros((int(sizes.sum()), TILE[1]), dtype=np.float32)
    for each, left, start, size_ in zip(columns, lefts, starts, sizes, strict=True):
        _blend(each, left, column_weights[start : start + size_].reshape(len(left), -1, TILE[1]))
    del columns
    shapes = np.array([view.output.features_logits.shape[-2:] for view in views], dtype=np.int64)
    labels = torch.empty(len(views[0].output.features_logits), *size, dtype=label_dtype(classes))
    lines = (tops, row_weights, np.stack(lefts), np.array(spans, dtype=np.int64), starts, column_weights.reshape(-1))
    for index, filled in enumerate(labels.numpy()):
        held = [view.output.features_logits[index].detach().float().contiguous() for view in views]
        addresses = np.array([each.data_ptr() for each in held], dtype=np.int64)
        fill = partial(label_tiles, addresses, shapes, classes, *lines, softmax, filled)
        native.split(-(-size[0] // TILE[0]), fill, parts_each=8)
    return labels


def _too_wide(views: Sequence[Answer], size: tuple[int, int]) -> str | None:
    from segcontext.native.views_argmax import MOST_ROWS, TILE

    # Rows of all views are given as many taps.
    taps = max(_taps(view, size, 0).weights.shape[1] for view in views)
    for view in views:
        height, width = view.output.features_logits.shape[-2:]
        rows, columns = (_taps(view, size, side) for side in (0, 1))
        # Of features, a pixel's, and those that lie between the first ones of a tile's pixels.
        deep = taps + _spread(rows.first, TILE[0])
        wide = columns.weights.shape[1] + _spread(columns.first, TILE[1])
        if taps > height or wide > width or deep > MOST_ROWS:
            return "the features are too small, or much larger than the image"
    return None


def _spread(first: npt.NDArray[np.int32], pixels: int) -> int:
    ends = first[min(pixels, len(first)) - 1 :]
    return int((ends - first[: len(ends)]).max())


def _taps(view: Answer, size: tuple[int, int], side: int) -> Taps:
    """Upsampling and bringing to image size, one after the other, as one sum."""
    inner = places(view.output.features_logits.shape[2 + side], view.output.size[side], view.output.align_corners)
    last = view.output.features_logits.shape[2 + side] - 1
    outer = places(view.size[side], size[side], False)
    if view.size[side] == size[side]:
        ends: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [(np.arange(size[side]), np.ones(size[side]))]
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


def _widened(taps: Taps, count: int, view: Answer) -> Taps:
    """Rows with so many weights each, none of them beyond the features."""
    first = np.minimum(taps.first, view.output.features_logits.shape[2] - count).astype(np.int32)
    weights = np.zeros((len(first), count), dtype=np.float32)
    every = np.arange(len(first))
    for tap in range(taps.weights.shape[1]):
        # What would lie beyond the last feature has no weight.
        place = np.minimum(taps.first - first + tap, count - 1)
        weights[every, place] += taps.weights[:, tap]
    return Taps(first, weights)


def _tiled(taps: Taps, view: Answer, pixels: int) -> Taps:
    """Columns by tiles: the first, (tiles, pixels), and the weights, (tiles, pixels, taps).

    Mirrored where the view is. The last tile repeats the last column where it reaches beyond the image.
    """
    step = -1 if view.flipped else 1
    first, weights = taps.first[::step], taps.weights[::step]
    beyond = -len(first) % pixels
    first, weights = np.pad(first, (0, beyond), mode="edge"), np.pad(weights, ((0, beyond), (0, 0)), mode="edge")
    return Taps(first.reshape(-1, pixels), weights.reshape(-1, pixels, weights.shape[1]))


def _beginnings(tiles: Taps, view: Answer) -> tuple[npt.NDArray[np.int32], int]:
    """The first column of features of each tile, (tiles,), and how many a tile is made of."""
    lowest = tiles.first.min(1)
    count = int((tiles.first.max(1) - lowest).max()) + tiles.weights.shape[2]
    return np.minimum(lowest, view.output.features_logits.shape[3] - count).astype(np.int32), count


def _blend(tiles: Taps, left: npt.NDArray[np.int32], into: npt.NDArray[np.float32]) -> None:
    """Fills in the weights of a tile's features in its pixels, (tiles, features, pixels), from zeros."""
    tile, column = np.ogrid[: len(left), : into.shape[2]]
    for tap in range(tiles.weights.shape[2]):
        # What would lie beyond the last feature has no weight.
        place = np.minimum(tiles.first - left[:, None] + tap, into.shape[1] - 1)
        into[tile, place, column] += tiles.weights[..., tap]


def _stack(taps: list[Taps]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    return np.stack([each.first for each in taps]), np.stack([each.weights for each in taps])
