"""What pictures and labels are, and the check that they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.errors import ShapeError

__all__ = ["VOID", "VOID_COLOUR", "Colour", "Palette", "Pixels", "as_image", "as_labels"]

Colour: TypeAlias = tuple[int, int, int]
Palette: TypeAlias = Sequence[Colour]
Pixels: TypeAlias = npt.NDArray[np.uint8]

VOID = 255
VOID_COLOUR: Colour = (0, 0, 0)


def as_labels(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Labels as int64, (H, W); a `ShapeError` for anything else."""
    array = np.asarray(labels)
    if array.ndim != 2 or not (np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_):
        raise ShapeError(f"Labels are integers of shape (H, W); got {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64)


def as_image(image: npt.ArrayLike, size: tuple[int, ...] | None = None) -> Pixels:
    """A uint8 picture as RGB, (H, W, 3), of the height and width asked for; a `ShapeError` for anything else."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ShapeError(f"An image is uint8 of shape (H, W, 3) or (H, W); got {array.dtype} of shape {array.shape}.")
    if size is not None and array.shape[:2] != size:
        raise ShapeError(f"Image and labels must have one size, but have {array.shape[:2]} and {size}.")
    return array
