"""A window of an image as it would be at another size, from the pixels that it needs and in whole numbers."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcontext.native import split, unavailable
from segcontext.ops.implementations import choose

__all__ = ["Taps", "Window", "draw_image", "draw_labels", "taps"]

Indices: TypeAlias = npt.NDArray[np.int64]

#: Weights are counted in 2048ths, and a row that is mixed of others in quarters of a grey level.
ONE, QUARTERS = 2048, 4


class Window(NamedTuple):
    """A window of a scaled image.

    Attributes:
        size: height and width of the image once it is scaled.
        corner: the window's first row and column in it.
        extent: the window's height and width.
        mirrored: whether the window is turned left to right.
    """

    size: tuple[int, int]
    corner: tuple[int, int]
    extent: tuple[int, int]
    mirrored: bool = False


class Taps(NamedTuple):
    """The pixels of an axis that each pixel of the scaled axis is mixed of.

    Attributes:
        first: int64, (n,); k neighbours from there on are mixed.
        weights: int64, (n, k), in 2048ths; each row sums to 2048.
    """

    first: Indices
    weights: Indices


def draw_image(image: Tensor, window: Window, canvas: Tensor) -> None:
    """Draws a window of an image that is resized bilinearly: align_corners=False, antialias where it shrinks.

    Rows are mixed before columns. All numbers are whole ones, so that it comes out the same in every form and on every
    machine; from torchvision's resize of the whole image, which rounds at other places, no value is further than 1.

    Args:
        image: uint8 RGB, (3, H, W); in memory the channels of a pixel best lie side by side.
        window: what of it to draw.
        canvas: uint8, (3, at least h, at least w), contiguous; the window is drawn into its upper left corner, or the
            upper right one where it is mirrored.
    """
    height, width = window.extent
    rows, columns = (taps(image.shape[1 + axis], *(each[axis] for each in window[:3])) for axis in (0, 1))
    if window.mirrored:
        columns = Taps(columns.first[::-1], columns.weights[::-1])
    column = canvas.shape[2] - width if window.mirrored else 0
    if choose("draw_image", None, {"native": unavailable()}) == "native":
        _draw_natively(image, rows, columns, canvas, column)
    else:
        canvas[:, :height, column : column + width] = _mixed(image, rows, columns)


def draw_labels(labels: Tensor, window: Window, canvas: Tensor) -> None:
    """Draws a window of a mask whose pixels are resized to the nearest one, as "nearest-exact" does.

    Args:
        labels: uint8, (H, W).
        window: what of it to draw.
        canvas: uint8, (at least h, at least w), contiguous; drawn into like an image's.
    """
    height, width = window.extent
    # In whole numbers, since a centre that falls between two pixels is common and must not depend on rounding.
    rows, columns = (
        np.arange(2 * start + 1, 2 * (start + count), 2) * length // (2 * scaled)
        for length, scaled, start, count in zip(labels.shape, *window[:3], strict=True)
    )
    if window.mirrored:
        columns = columns[::-1]
    column = canvas.shape[1] - width if window.mirrored else 0
    if choose("draw_labels", None, {"native": unavailable()}) == "native":
        from segcontext.native.resampling import cut_labels

        cut_labels(labels.contiguous().numpy(), rows, np.ascontiguousarray(columns), canvas.numpy(), column)
    else:
        chosen = labels[torch.from_numpy(rows)][:, torch.from_numpy(columns.copy())]
        canvas[:height, column : column + width] = chosen


def taps(length: int, scaled: int, start: int, count: int) -> Taps:
    """What the pixels of a scaled axis are mixed of: a triangle around each, as wide as a pixel or wider.

    Args:
        length: pixels of the axis.
        scaled: pixels that it is scaled to.
        start: the first of those that is wanted.
        count: how many are.
    """
    step = length / scaled
    reach = max(1.0, step)
    centres = (np.arange(start, start + count) + 0.5) * step
    lowest = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    highest = np.minimum((centres + reach + 0.5).astype(np.int64), length)
    most = int((highest - lowest).max())
    first = np.minimum(lowest, length - most)
    distances = np.abs(first[:, None] + np.arange(most) + 0.5 - centres[:, None])
    shares = np.maximum(1 - distances / reach, 0)
    weights = np.rint(shares * (ONE / shares.sum(1, keepdims=True))).astype(np.int64)
    # What rounding adds or takes goes to the largest, of which it is the smallest part.
    weights[np.arange(count), weights.argmax(1)] += ONE - weights.sum(1)
    return Taps(first, weights)


def _mixed(image: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """The readable form: (3, h, w)."""
    (top, bottom), (left, right) = _span(rows), _span(columns)
    # In rows of memory, which are looked up fastest.
    pixels = image[:, top:bottom, left:right].contiguous().int()
    mixed = _sums(pixels, rows.first - top, rows.weights)
    quarters = (mixed + ONE // QUARTERS // 2) >> (ONE // QUARTERS).bit_length() - 1
    turned = quarters.transpose(1, 2).contiguous()
    values = _sums(turned, columns.first - left, columns.weights)
    return ((values + ONE * QUARTERS // 2) >> (ONE * QUARTERS).bit_length() - 1).to(torch.uint8).transpose(1, 2)


def _sums(pixels: Tensor, first: Indices, weights: Indices) -> Tensor:
    """Mixes the rows of each channel."""
    total: Tensor | None = None
    for tap, weight in enumerate(torch.from_numpy(weights.copy()).int().T):
        part = pixels.index_select(1, torch.from_numpy(first + tap)).mul_(weight[:, None])
        total = part if total is None else total.add_(part)
    assert total is not None, "at least one pixel is looked at"
    return total


def _draw_natively(image: Tensor, rows: Taps, columns: Taps, canvas: Tensor, column: int) -> None:
    from segcontext.native.resampling import mix

    (top, bottom), (left, right) = _span(rows), _span(columns)
    pixels = image.permute(1, 2, 0)
    if not pixels.is_contiguous():
        pixels = pixels[top:bottom, left:right].contiguous()
        rows, left, right = rows._replace(first=rows.first - top), 0, right - left
    flat, target = pixels.flatten(1).numpy(), canvas.numpy()
    first_columns = np.ascontiguousarray(columns.first - _span(columns)[0])
    # The loops mix two pixels at least.
    few = [((0, 0), (0, max(0, 2 - axis.weights.shape[1]))) for axis in (rows, columns)]
    row_weights = np.pad(rows.weights, few[0]).astype(np.uint32)
    column_weights = np.ascontiguousarray(np.pad(columns.weights, few[1]).T, np.uint64)

    def draw(first: int, last: int) -> None:
        arrays = rows.first, row_weights, first_columns, column_weights
        mix(flat, left, right - left, *arrays, first, last, target, column)

    split(len(rows.first), draw, grain=64)


def _span(axis: Taps) -> tuple[int, int]:
    """The first pixel that is looked at, and the one behind the last."""
    return int(axis.first.min()), int(axis.first.max()) + axis.weights.shape[1]
