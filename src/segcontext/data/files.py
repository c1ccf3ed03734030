"""The files of data sets: lists them, decodes them, and says what is wrong with them."""

from __future__ import annotations

import os
import struct
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from segcontext.data.decoding import quick_pixels
from segcontext.errors import DatasetNotFound, SampleError

__all__ = [
    "IMAGE_SUFFIXES",
    "MASK_SUFFIXES",
    "UNREADABLE",
    "decode",
    "list_files",
    "read_image",
    "rgb_pixels",
    "what_lies_at",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
# No lossy format: compression would invent labels along every edge.
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
#: What Pillow raises for files that it cannot decode.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_image(path: str | Path) -> tv_tensors.Image:
    """Reads an image file as it is meant to be seen: its EXIF orientation is applied, alpha is dropped.

    Args:
        path: any file that Pillow reads; 16-bit greys keep their upper eight bits.

    Returns:
        uint8 RGB, (3, H, W); in memory the channels of a pixel lie side by side.

    Raises:
        SampleError: if the file is missing, truncated or no image, or its numbers have no known range.
    """
    pixels = quick_pixels(Path(path))
    if pixels is not None:
        return tv_tensors.Image(pixels)
    picture = decode(Path(path))
    try:
        return tv_tensors.Image(rgb_pixels(picture))
    except ValueError as error:
        raise SampleError(f"{path} cannot be read as an image: {error}. Export it with 8 or 16 bits.") from error


def decode(path: Path) -> Image.Image:
    """Decodes a file and turns it as its EXIF orientation says.

    Args:
        path: any file that Pillow reads.

    Returns:
        The picture, in the mode that it is stored in.

    Raises:
        SampleError: if the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except FileNotFoundError as error:
        raise SampleError(f"{path} does not exist. Check the path; it may have been moved or deleted.") from error
    except UNREADABLE as error:
        raise SampleError(
            f"{path} cannot be read as an image: {error}. It may be truncated or of another format; "
            "fetch or export the file again, or remove it."
        ) from error


def rgb_pixels(image: Image.Image) -> Tensor:
    """The pixels of a decoded picture of any mode.

    Args:
        image: the picture; 16-bit greys keep their upper eight bits, floats are shares of white, alpha is dropped.

    Returns:
        uint8 RGB, (3, H, W); in memory the channels of a pixel lie side by side.

    Raises:
        ValueError: floats outside [0, 1], or integers beyond 16 bits.
    """
    if image.mode == "F":
        shares = np.asarray(image)
        # NaN is not between them either.
        if not np.all((shares >= 0) & (shares <= 1)):
            raise ValueError(f"its floats run from {shares.min():g} to {shares.max():g}, but must lie in [0, 1]")
        image = Image.fromarray(np.rint(255 * shares).astype(np.uint8))
    elif image.mode.startswith("I"):
        # Pillow would clip these at 255 instead of scaling them.
        numbers = np.asarray(image, np.int64)
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high > 65535:
            raise ValueError(f"its integers run from {low} to {high}, but must lie in 0..255 or 0..65535")
        # Integers of 32 bits may hold either range, those of 16 bits hold theirs.
        image = Image.fromarray((numbers >> (0 if image.mode == "I" and high < 256 else 8)).astype(np.uint8))
    elif image.mode == "P":
        # Straight to RGB, Pillow warns of palettes that hold transparency.
        image = image.convert("RGBA")
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def list_files(root: Path, folder: str, suffixes: tuple[str, ...], *, ending: str = "") -> dict[str, str]:
    """Lists the files of a folder and of the folders in it, hidden ones left out.

    Args:
        root: the data set's folder.
        folder: the folder to list, relative to `root`.
        suffixes: the suffixes to keep, in lower case; files are matched in either case.
        ending: keeps only the files whose names without suffix end so, and takes it off the names.

    Returns:
        Path relative to `folder` without its suffix, to path relative to `root`; sorted by name.

    Raises:
        DatasetNotFound: if the folder is not there.
        SampleError: if two files differ by their suffix alone.
    """
    top = root / folder
    if not top.is_dir():
        raise DatasetNotFound(f"No folder {top}. {what_lies_at(top)} Check the path and the split.")
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(top, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(parent).relative_to(top).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for file in files:
            stem, suffix = os.path.splitext(file)  # noqa: PTH122 -- a Path per file is slow for 100,000 files
            if file.startswith(".") or suffix.lower() not in suffixes or not stem.endswith(ending):
                continue
            path = f"{folder}/{prefix}{file}"
            other = found.setdefault(f"{prefix}{stem.removesuffix(ending)}", path)
            if other != path:
                raise SampleError(f"{root / other} and {root / path} have the same name; keep one of the two.")
    return dict(sorted(found.items()))


def what_lies_at(path: Path) -> str:
    """A sentence that says what is found where `path` was expected, for error messages."""
    if path.is_file():
        return f"{path} is a file, not a folder."
    while not path.is_dir() and path != path.parent:
        path = path.parent
    with os.scandir(path) as entries:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in islice(entries, 100))
    listing = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"{path.resolve()} holds: {listing or 'nothing'}."
