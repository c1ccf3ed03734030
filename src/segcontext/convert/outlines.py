"""The outlines of a region, along the edges of its pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["trace_outlines"]


def trace_outlines(mask: npt.ArrayLike) -> list[list[tuple[int, int]]]:
    """Traces the outer outline and the holes of a region whose pixels are joined by their sides.

    Args:
        mask: (H, W); what is not zero belongs to the region.

    Returns:
        Closed polygons of (x, y) corners; outer outlines go clockwise as they are seen, holes the other way. Filled by
        `fill_polygon`, one without holes gives the region back, pixel by pixel.

    Example:
        >>> trace_outlines([[1, 1], [1, 0]])
        [[(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]]
    """
    framed = np.pad(np.asarray(mask).astype(bool), 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Every side that parts the region from what is outside, with the region on its right hand.
    for (down, right), start, end in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        outside = ~np.roll(framed, (-down, -right), (0, 1))
        for row, column in zip(*(places.tolist() for places in np.nonzero(framed & outside)), strict=True):
            x, y = column - 1, row - 1
            following.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    outlines = []
    for first in sorted(following, key=lambda corner: (corner[1], corner[0])):
        while following.get(first):
            outlines.append(_close(first, following))
    return outlines


def _close(first: tuple[int, int], following: dict[tuple[int, int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Follows the sides from the highest corner until it is reached again, and keeps the corners where they turn."""
    outline = [first]
    corner = following[first].pop()
    while corner != first:
        before = outline[-1]
        ahead = (corner[0] - before[0], corner[1] - before[1])
        choices = following[corner]
        # Where two pixels touch at a corner, a turn to the right stays with the pixel that is being followed.
        right = (corner[0] - _sign(ahead[1]), corner[1] + _sign(ahead[0]))
        chosen = right if right in choices else choices[0]
        choices.remove(chosen)
        turned = (chosen[0] - corner[0]) * ahead[1] != (chosen[1] - corner[1]) * ahead[0]
        if turned:
            outline.append(corner)
        corner = chosen
    return outline


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
