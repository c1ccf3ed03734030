"""Shapes as pixels: what covers a pixel's centre covers the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Patch", "Points", "fill_disc", "fill_polygon", "fill_stroke", "polygon_patch", "stroke_patch"]

Points: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class Patch(NamedTuple):
    """A part of a mask, so that a small thing in a large image takes little memory.

    Attributes:
        top: row of its first pixels.
        left: column of its first pixels.
        pixels: (rows, columns); pixels of the mask beyond it are not covered.
    """

    top: int
    left: int
    pixels: Mask

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns in the mask."""
        rows, columns = self.pixels.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)

    def whole(self, height: int, width: int) -> Mask:
        """The mask.

        Args:
            height: of the mask.
            width: of the mask.

        Returns:
            (H, W).
        """
        found = np.zeros((height, width), bool)
        found[self.place] = self.pixels
        return found


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
    return polygon_patch(points, height, width).whole(height, width)


def polygon_patch(points: npt.ArrayLike, height: int, width: int) -> Patch:
    """The box of what `fill_polygon` fills.

    Args:
        points: see there.
        height: of the mask.
        width: of the mask.

    Returns:
        The polygon, as far as it lies in the mask.
    """
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    if len(corners) < 3:
        return Patch(0, 0, np.zeros((0, 0), bool))
    left, top, right, bottom = _box(corners, 0, height, width)
    return Patch(top, left, _inside(corners - (left, top), bottom - top, right - left))


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
    return stroke_patch(points, thickness, height, width).whole(height, width)


def stroke_patch(points: npt.ArrayLike, thickness: float, height: int, width: int) -> Patch:
    """The box of what `fill_stroke` fills.

    Args:
        points: see there.
        thickness: of the line, in pixels.
        height: of the mask.
        width: of the mask.

    Returns:
        The line, as far as it lies in the mask.
    """
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    if not len(corners):
        return Patch(0, 0, np.zeros((0, 0), bool))
    left, top, right, bottom = _box(corners, thickness / 2 + 1, height, width)
    found = Patch(top, left, np.zeros((max(bottom - top, 0), max(right - left, 0)), bool))
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
    # Small numbers that run over keep what matters, whether they are odd.
    crossings = np.zeros((height, width + 1), np.uint8)
    np.add.at(crossings, (row, column), 1)
    inside: Mask = (np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :width] & 1).astype(bool)
    return inside


def _box(corners: Points, margin: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom around points, within the mask."""
    left, top = np.clip(np.floor(corners.min(0) - margin), 0, (width, height)).astype(np.int64).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0) + margin), 0, (width, height)).astype(np.int64).tolist()
    return left, top, right, bottom


def _near_segment(found: Patch, start: Points, end: Points, distance: float) -> None:
    """Marks the pixels whose centre is no farther from the segment than that."""
    rows, columns = found.place
    left, top, right, bottom = _box(np.stack([start, end]), distance + 1, rows.stop, columns.stop)
    left, top = max(left, columns.start), max(top, rows.start)
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right) + 0.5 - start[0], np.arange(top, bottom)[:, None] + 0.5 - start[1]
    along = end - start
    length = float(along @ along)
    share = np.clip((x * along[0] + y * along[1]) / length, 0, 1) if length else np.zeros(1)
    near = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 <= distance**2
    found.pixels[top - found.top : bottom - found.top, left - found.left : right - found.left] |= near
