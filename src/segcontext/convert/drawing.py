"""Objects drawn into one mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.convert.rle import decode_rle
from segcontext.convert.shapes import Patch, polygon_patch, stroke_patch
from segcontext.data.masks import VOID
from segcontext.errors import DataError

__all__ = ["Drawn", "Overlap", "draw"]

Overlap: TypeAlias = Literal["smaller", "later", "void"]


class Drawn(NamedTuple):
    """An object.

    Attributes:
        label: its class, or 255 for void.
        kind: ``polygons``, ``rle``, ``disc``, ``stroke`` or ``patch``.
        data: polygons as lists of x and y, one after the other; an encoded mask; centre and radius; points and
            thickness; or a mask with the row and column of its upper left pixel.
        crowd: whether it is drawn below all others.
    """

    label: int
    kind: Literal["polygons", "rle", "disc", "stroke", "patch"]
    data: Any
    crowd: bool = False


def draw(objects: Sequence[Drawn], height: int, width: int, *, background: int, overlap: Overlap) -> npt.NDArray[Any]:
    """Draws objects into one mask.

    Args:
        objects: in the order of their file.
        height: of the mask.
        width: of the mask.
        background: the value of pixels that no object covers.
        overlap: who has a pixel that several objects cover: the ``smaller`` object (of equally large ones the later),
            the ``later`` one, or nobody, ``void``, where their classes differ. Crowds lie below all others always.

    Returns:
        uint8 class indices, (H, W).

    Raises:
        DataError: if an object cannot be drawn.

    Example:
        >>> square = Drawn(1, "polygons", [[0, 0, 2, 0, 2, 2, 0, 2]])
        >>> draw([square], 2, 3, background=0, overlap="later").tolist()
        [[1, 1, 0], [1, 1, 0]]
    """
    order = sorted(objects, key=lambda each: not each.crowd)
    # One after the other, so that only one object's pixels are in memory.
    found: Iterable[tuple[Drawn, Patch]] = ((each, _patch(each, height, width)) for each in order)
    if overlap == "smaller":
        found = sorted(found, key=lambda pair: (not pair[0].crowd, -int(pair[1].pixels.sum())))
    labels = np.full((height, width), background, np.uint8)
    taken = np.zeros((height, width), bool)
    for each, patch in found:
        there, before = labels[patch.place], taken[patch.place]
        contested = patch.pixels & before & (there != each.label)
        there[patch.pixels] = each.label
        if overlap == "void":
            there[contested] = VOID
        if not each.crowd:
            before |= patch.pixels
    return labels


def _patch(each: Drawn, height: int, width: int) -> Patch:
    if each.kind == "polygons":
        return _joined([polygon_patch(_points(polygon), height, width) for polygon in each.data])
    if each.kind == "rle":
        mask = decode_rle(each.data)
        if mask.shape != (height, width):
            raise DataError(f"a mask is {mask.shape[1]}×{mask.shape[0]} pixels, its image {width}×{height}.")
        return _cropped(mask)
    if each.kind == "disc":
        centre, radius = each.data
        return stroke_patch(_points([centre]), 2 * radius, height, width)
    if each.kind == "stroke":
        points, thickness = each.data
        return stroke_patch(_points(points), thickness, height, width)
    pixels, top, left = each.data
    rows, columns = min(pixels.shape[0], height - top), min(pixels.shape[1], width - left)
    if min(top, left) < 0 or min(rows, columns) < 0:
        raise DataError("a mask lies outside its image.")
    return Patch(top, left, pixels[:rows, :columns])


def _joined(parts: Sequence[Patch]) -> Patch:
    """What any of the parts covers."""
    parts = [part for part in parts if part.pixels.size]
    if len(parts) < 2:
        return parts[0] if parts else Patch(0, 0, np.zeros((0, 0), bool))
    places = [part.place for part in parts]
    top, left = (min(place[axis].start for place in places) for axis in (0, 1))
    bottom, right = (max(place[axis].stop for place in places) for axis in (0, 1))
    found = np.zeros((bottom - top, right - left), bool)
    for part in parts:
        found[Patch(part.top - top, part.left - left, part.pixels).place] |= part.pixels
    return Patch(top, left, found)


def _cropped(mask: npt.NDArray[np.bool_]) -> Patch:
    """The box around what is covered; a copy, so that the whole mask is not kept."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return Patch(0, 0, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    return Patch(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


def _points(polygon: Any) -> npt.NDArray[np.float64]:
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a polygon is no list of numbers: {str(polygon)[:60]}.") from error
    if points.size % 2 or not np.isfinite(points).all():
        raise DataError(f"a polygon is no list of x and y: {str(polygon)[:60]}.")
    return points.reshape(-1, 2)
