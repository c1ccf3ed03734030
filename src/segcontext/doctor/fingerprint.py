"""A few numbers per image by which copies of it are found."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["THUMBNAIL", "Fingerprint", "fingerprint"]

#: Side of the thumbnails, in pixels.
THUMBNAIL = 8
_SIDE = 32


class Fingerprint(NamedTuple):
    """What is kept of an image to compare it with others.

    Attributes:
        bits: the perceptual hash, 64 bits.
        thumbnail: 8×8 pixels, RGB, as 192 bytes.
        contrast: standard deviation of the grey image at 32×32; near 0 the picture is a single tone.
    """

    bits: int
    thumbnail: bytes
    contrast: float


def fingerprint(image: Image.Image) -> Fingerprint:
    """Describes an image so that copies that were resized, recompressed or slightly changed stay close.

    The hash is the usual one of the discrete cosine transform (Zauner, "Implementation and benchmarking of perceptual
    image hash functions", 2010): the grey image at 32×32, its 8×8 lowest frequencies, and one bit for each that says
    whether it is above their median. The first one, the mean, always is.

    Args:
        image: RGB.

    Returns:
        The fingerprint.

    Example:
        >>> photograph = Image.effect_mandelbrot((256, 256), (-1.5, -1.2, 0.3, 0.4), 60).convert("RGB")
        >>> (fingerprint(photograph).bits ^ fingerprint(photograph.resize((120, 90))).bits).bit_count() < 8
        True
    """
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"), np.float64)
    basis = _cosines()
    low = (basis @ grey @ basis.T).ravel()
    bits = int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
    thumbnail = small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Fingerprint(bits, thumbnail.tobytes(), float(grey.std()))


@lru_cache(maxsize=1)
def _cosines() -> npt.NDArray[np.float64]:
    """The cosines of frequency 0 to 7 over 32 places, (8, 32)."""
    places, frequencies = np.arange(_SIDE), np.arange(8)
    return np.cos(np.pi * frequencies[:, None] * (2 * places + 1) / (2 * _SIDE))
