"""Labels and pictures as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcontext.errors import OutputExists
from segcontext.files import atomic_path
from segcontext.pictures.arrays import VOID, VOID_COLOUR, Palette, as_labels
from segcontext.pictures.painting import colourise

__all__ = ["save_labels", "save_picture"]


def save_labels(
    path: str | os.PathLike[str], labels: npt.ArrayLike, palette: Palette, *, overwrite: bool = True
) -> None:
    """Writes labels as a PNG of class indices, which picture viewers show in the classes' colours.

    Args:
        path: the file to write.
        labels: class indices, (H, W), 255 for void.
        palette: one colour per class. With more than 256 classes the file is a 16-bit PNG without colours.
        overwrite: whether a file of that name may be replaced.

    Raises:
        LabelError: a label is neither a class of the palette nor void.
        OutputExists: the file is there and `overwrite` is False.
    """
    indices = as_labels(labels)
    colourise(indices, palette)
    if len(palette) > 256:
        save_picture(path, Image.fromarray(indices.astype(np.uint16)), overwrite=overwrite)
        return
    picture = Image.fromarray(indices.astype(np.uint8))
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[VOID] = VOID_COLOUR
    colours[: len(palette)] = np.array(palette, dtype=np.uint8).reshape(-1, 3)
    picture.putpalette(colours.tobytes())
    save_picture(path, picture, overwrite=overwrite)


def save_picture(path: str | os.PathLike[str], picture: npt.ArrayLike | Image.Image, *, overwrite: bool = True) -> None:
    """Writes a picture in the format that its suffix names; the file appears whole or not at all.

    Args:
        path: the file to write; missing folders are made.
        picture: uint8 array, (H, W, 3) or (H, W), or a Pillow image.
        overwrite: whether a file of that name may be replaced.

    Raises:
        OutputExists: the file is there and `overwrite` is False.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputExists(f"{target} is already there. Choose another name, or allow overwriting.")
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.asarray(picture, dtype=np.uint8))
    jpeg = target.suffix.lower() in {".jpg", ".jpeg"}
    # Chroma subsampling smears the borders between class colours.
    options: dict[str, Any] = {"quality": 92, "subsampling": 0} if jpeg else {}
    with atomic_path(target) as temporary:
        picture.save(temporary, **options)
