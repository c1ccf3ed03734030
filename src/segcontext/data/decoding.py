"""The usual kinds of image files, decoded without the copies that Pillow makes."""

from __future__ import annotations

import struct
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segcontext.data import png

__all__ = ["quick_pixels"]

#: Above this Pillow warns of images that are made to fill the memory.
LARGEST = 2**26
ORIENTATION = 0x0112


def quick_pixels(path: Path, *, grey: bool = False, palette: bool = False) -> Tensor | None:
    """Decodes JPEG files of three channels or one, and PNG files of 8 bits in RGB or grey, that are stored upright.

    Args:
        path: any file.
        grey: whether PNG files in grey alone will do, of which one channel is returned.
        palette: whether, where `grey` is set, PNG files with a palette will do too, of which the indices are returned.

    Returns:
        uint8: RGB, (3, H, W), with the channels of a pixel side by side in memory; or grey, (H, W). `None` where the
        file is of another kind or damaged: Pillow then knows what to do, or what to say.

    Note:
        Pillow decodes JPEG with the same library, to the same pixels. It would also decode to half the size for less
        (its draft mode), but by another filter than the one that the augmentation shrinks with.
        That decoder is torchvision's, which it means to remove in a version to come; Pillow's takes its place there.
        torchvision's decoder of PNG is not used: damaged files crash it, and the process with it.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    start = data[:8].tobytes()
    if start == png.SIGNATURE:
        kinds = {png.GREY} | ({png.PALETTE} if grey and palette else set() if grey else {png.RGB})
        pixels = png.png_pixels(data.data, kinds, LARGEST)
        if pixels is None or grey:
            return None if pixels is None else torch.from_numpy(pixels)
        coloured = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        return torch.from_numpy(coloured).permute(2, 0, 1)
    if start[:3] == b"\xff\xd8\xff" and not grey and (decoders := _decoders()) and _is_plain_jpeg(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                decoded: Tensor = decoders.decode_jpeg(torch.from_numpy(data), decoders.ImageReadMode.RGB)
                return decoded
        # torchvision was built without this format, or the file is damaged.
        except RuntimeError:
            pass
    return None


@cache
def _decoders() -> ModuleType | None:
    try:
        import torchvision.io
    except ImportError:
        return None
    names = ("decode_jpeg", "ImageReadMode")
    found: ModuleType = torchvision.io
    return found if all(hasattr(found, name) for name in names) else None


def _is_plain_jpeg(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            # A very large file is left to Pillow, which warns by itself.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                plain = image.format == "JPEG" and image.mode in ("RGB", "L") and image.width * image.height <= LARGEST
                return plain and image.getexif().get(ORIENTATION, 1) == 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, struct.error):
        return False
