"""Colours that are easy to tell apart."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from segcontext.errors import ShapeError
from segcontext.pictures.arrays import Colour

__all__ = ["default_palette"]


def default_palette(n: int) -> tuple[Colour, ...]:
    """Colours that are easy to tell from each other, and from void's black.

    Each colour is the one farthest, in the perceptual space OKLab (Ottosson, 2020), from all colours before it and
    from black, white and grey. A shorter palette is therefore the beginning of a longer one.

    Args:
        n: how many colours; beyond about 3,000 they repeat.

    Returns:
        n colours, red, green and blue in 0..255.

    Example:
        >>> default_palette(12)[:3] == default_palette(3)
        True
    """
    if n < 0:
        raise ShapeError(f"A palette needs zero or more colours, not {n}.")
    colours = _distinct_colours(n)
    return tuple(colours[index % len(colours)] for index in range(n))


@lru_cache(maxsize=32)
def _distinct_colours(n: int) -> tuple[Colour, ...]:
    levels = np.arange(0, 256, 15)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = _oklab(candidates)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    # Pale and very dark colours vanish on photographs, and the most saturated ones drown all others.
    usable = (lab[:, 0] > 0.42) & (lab[:, 0] < 0.9) & (chroma > 0.06) & (chroma < 0.21)
    candidates, lab = candidates[usable], lab[usable]
    taken = _oklab(np.array([[0, 0, 0], [255, 255, 255], [128, 128, 128]]))
    distance = np.linalg.norm(lab[:, None] - taken[None], axis=-1).min(1)
    chosen: list[Colour] = []
    for _ in range(min(n, len(candidates))):
        farthest = int(distance.argmax())
        red, green, blue = candidates[farthest].tolist()
        chosen.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[farthest], axis=-1))
    return tuple(chosen)


def _oklab(colours: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: npt.NDArray[np.float64] = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return lab
