"""Objects drawn into one mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.convert.rle import decode_rle
from segcontext.convert.shapes import fill_disc, fill_polygon, fill_stroke
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
    masks = [(each, _fill(each, height, width)) for each in objects]
    if overlap == "smaller":
        masks.sort(key=lambda pair: -int(pair[1].sum()))
    labels = np.full((height, width), background, np.uint8)
    taken = np.zeros((height, width), bool)
    for each, mask in sorted(masks, key=lambda pair: not pair[0].crowd):
        contested = mask & taken & (labels != each.label)
        labels[mask] = each.label
        if overlap == "void":
            labels[contested] = VOID
        if not each.crowd:
            taken |= mask
    return labels


def _fill(each: Drawn, height: int, width: int) -> npt.NDArray[np.bool_]:
    if each.kind == "polygons":
        found = np.zeros((height, width), bool)
        for polygon in each.data:
            found |= fill_polygon(_points(polygon), height, width)
        return found
    if each.kind == "rle":
        found = decode_rle(each.data)
        if found.shape != (height, width):
            raise DataError(f"a mask is {found.shape[1]}×{found.shape[0]} pixels, its image {width}×{height}.")
        return found
    if each.kind == "disc":
        centre, radius = each.data
        return fill_disc(centre, radius, height, width)
    if each.kind == "stroke":
        points, thickness = each.data
        return fill_stroke(points, thickness, height, width)
    patch, top, left = each.data
    found = np.zeros((height, width), bool)
    rows, columns = min(patch.shape[0], height - top), min(patch.shape[1], width - left)
    if min(top, left) < 0 or min(rows, columns) < 0:
        raise DataError("a mask lies outside its image.")
    found[top : top + rows, left : left + columns] = patch[:rows, :columns]
    return found


def _points(polygon: Any) -> npt.NDArray[np.float64]:
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a polygon is no list of numbers: {str(polygon)[:60]}.") from error
    if points.size % 2 or not np.isfinite(points).all():
        raise DataError(f"a polygon is no list of x and y: {str(polygon)[:60]}.")
    return points.reshape(-1, 2)
