"""Small charts as SVG, for a page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

__all__ = ["bars", "curves", "dots"]


def bars(counts: Sequence[int], titles: Sequence[str], *, width: int = 160, height: int = 32) -> str:
    """A row of bars, one for each bin; the highest fills the height.

    Args:
        counts: one per bin.
        titles: what is said of each bin when the mouse rests on it.
        width: in pixels.
        height: in pixels.

    Returns:
        An ``svg`` element.
    """
    highest = max([*counts, 1])
    step = width / max(len(counts), 1)
    drawn = []
    for place, (count, title) in enumerate(zip(counts, titles, strict=True)):
        # A bin that is not empty can be seen.
        tall = max(1.5, height * count / highest) if count else 0
        drawn.append(
            f'<rect x="{place * step:.1f}" y="{height - tall:.1f}" width="{max(step - 1, 1):.1f}" height="{tall:.1f}">'
            f"<title>{escape(title)}</title></rect>"
        )
    return f'<svg class="bars" width="{width}" height="{height}" role="img">{"".join(drawn)}</svg>'


def curves(series: Mapping[str, npt.ArrayLike], *, width: int = 360, height: int = 110) -> str:
    """Curves over a common axis, each in the colour that is its name.

    Args:
        series: colour to values; all of one length.
        width: in pixels.
        height: in pixels.

    Returns:
        An ``svg`` element.
    """
    arrays = {colour: np.asarray(values, np.float64) for colour, values in series.items()}
    highest = max([*(float(values.max()) for values in arrays.values() if len(values)), 1.0])
    drawn = []
    for colour, values in arrays.items():
        across = np.linspace(0, width, len(values))
        points = " ".join(
            f"{x:.1f},{height - 4 - (height - 8) * y / highest:.1f}" for x, y in zip(across, values, strict=True)
        )
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5" opacity="0.8"/>')
    return f'<svg class="curves" width="{width}" height="{height}" role="img">{"".join(drawn)}</svg>'


def dots(counts: Mapping[tuple[int, int], int], *, side: int = 150) -> str:
    """Image sizes: width to the right, height upwards, and a dot whose area grows with the number of images.

    Args:
        counts: (width, height) in pixels to number.
        side: of the chart, in pixels.

    Returns:
        An ``svg`` element.
    """
    largest = max([*(max(size) for size in counts), 1])
    most = max([*counts.values(), 1])
    drawn = []
    for (wide, tall), count in counts.items():
        radius = 2 + 6 * (count / most) ** 0.5
        x, y = 8 + (side - 16) * wide / largest, side - 8 - (side - 16) * tall / largest
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{wide}×{tall}: {count:,}</title></circle>'
        )
    frame = f'<rect x="0.5" y="0.5" width="{side - 1}" height="{side - 1}" class="frame"/>'
    return f'<svg class="dots" width="{side}" height="{side}" role="img">{frame}{"".join(drawn)}</svg>'
