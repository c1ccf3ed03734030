"""Shapes as pixels: what covers a pixel's centre covers the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Points", "fill_disc", "fill_polygon", "fill_stroke"]

Points: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


def fill_polygon(points: npt.ArrayLike, height: int, width: int) -> Mask:
    """Fills a polygon; places that its outline goes around twice are outside.

    The pixel in row i and column j is the square from (j, i) to (j + 1, i + 1), so that a rectangle from (2, 1) to
    (4, 3) covers four pixels, and polygons that share an edge neither overlap nor leave a gap.

    Note:
        Pillow paints each pixel that the outline touches, which makes every object half a pixel larger all around.
        COCO's own code follows the rule here, on coordinates rounded to fifths of a pixel.

    Args:
        points: (n, 2), x and y of the corners in pixels; the last one is joined to the first.
        height: of the mask.
        width: of the mask.

    Returns:
        (H, W).

    Example:
        >>> fill_polygon([(0, 0), (2, 0), (2, 1), (0, 1)], 2, 3).astype(int).tolist()
        [[1, 1, 0], [0, 0, 0]]
    """
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    found = np.zeros((height, width), bool)
    if len(corners) < 3:
        return found
    left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(np.int64).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, (width, height)).astype(np.int64).tolist()
    found[top:bottom, left:right] = _inside(corners - (left, top), bottom - top, right - left)
    return found


def fill_stroke(points: npt.ArrayLike, thickness: float, height: int, width: int) -> Mask:
    """Fills a line of some thickness, with round ends and corners.

    Args:
        points: (n, 2), x and y along the line in pixels; a single point is a disc.
        thickness: of the line, in pixels.
        height: of the mask.
        width: of the mask.

    Returns:
        (H, W).

    Example:
        >>> fill_stroke([(0, 1.5), (3, 1.5)], 1, 3, 3).astype(int).tolist()
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    """
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    found = np.zeros((height, width), bool)
    for start, end in zip(corners, corners[1:] if len(corners) > 1 else corners, strict=False):
        _near_segment(found, start, end, thickness / 2)
    return found


def fill_disc(centre: Sequence[float], radius: float, height: int, width: int) -> Mask:
    """Fills a disc.

    Args:
        centre: x and y in pixels.
        radius: in pixels.
        height: of the mask.
        width: of the mask.

    Returns:
        (H, W).

    Example:
        >>> int(fill_disc((8, 8), 7, 16, 16).sum())
        156
    """
    return fill_stroke([tuple(centre)], 2 * radius, height, width)


def _inside(corners: Points, height: int, width: int) -> Mask:
    """Which pixels' centres lie inside, (height, width), for corners that may lie anywhere."""
    starts, ends = corners, np.roll(corners, -1, axis=0)
    upwards = starts[:, 1] > ends[:, 1]
    starts, ends = np.where(upwards[:, None], ends, starts), np.where(upwards[:, None], starts, ends)
    # Centres lie at i + ½; an edge crosses their lines from its upper end on, up to but without its lower end.
    first = np.clip(np.ceil(starts[:, 1] - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(ends[:, 1] - 0.5), 0, height).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(corners)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    slope = (ends[edge, 0] - starts[edge, 0]) / (ends[edge, 1] - starts[edge, 1])
    across = starts[edge, 0] + (row + 0.5 - starts[edge, 1]) * slope
    column = np.clip(np.ceil(across - 0.5), 0, width).astype(np.int64)
    # Each crossing changes the side for all pixels to the right of it.
    crossings = np.zeros((height, width + 1), np.int32)
    np.add.at(crossings, (row, column), 1)
    inside: Mask = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return inside


def _near_segment(found: Mask, start: Points, end: Points, distance: float) -> None:
    """Marks the pixels whose centre is no farther from the segment than that."""
    height, width = found.shape
    low, high = np.minimum(start, end) - distance - 1, np.maximum(start, end) + distance + 1
    left, top = np.clip(np.floor(low), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(high), 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right) + 0.5 - start[0], np.arange(top, bottom)[:, None] + 0.5 - start[1]
    along = end - start
    length = float(along @ along)
    share = np.clip((x * along[0] + y * along[1]) / length, 0, 1) if length else np.zeros(1)
    found[top:bottom, left:right] |= (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 <= distance**2
