"""The usual kinds of image files, decoded without the copies that Pillow makes."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

__all__ = ["quick_pixels"]

Pixels: TypeAlias = npt.NDArray[np.uint8]

#: Above this Pillow warns of images that are made to fill the memory.
LARGEST = 2**26
ORIENTATION = 0x0112


def quick_pixels(path: Path, *, grey: bool = False) -> Tensor | None:
    """Decodes JPEG files of three channels or one, and PNG files of 8 bits in RGB or grey, that are stored upright.

    Args:
        path: any file.
        grey: whether PNG files in grey alone will do, of which one channel is returned.

    Returns:
        uint8: RGB, (3, H, W), with the channels of a pixel side by side in memory; or grey, (H, W). `None` where the
        file is of another kind or damaged: Pillow then knows what to do, or what to say.

    Note:
        Pillow decodes JPEG with the same library, to the same pixels. It would also decode to half the size for less
        (its draft mode), but by another filter than the one that the augmentation shrinks with.
        The decoders are torchvision's, which it means to remove in a version to come; Pillow's take their place there.
    """
    decoders = _decoders()
    if decoders is None:
        return None
    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    start = data[:29].tobytes()
    try:
        if start[:3] == b"\xff\xd8\xff" and not grey and _is_plain_jpeg(path):
            return _decoded(decoders.decode_jpeg, data, decoders.ImageReadMode.RGB)
        if _is_plain_png(start, data, grey=grey):
            mode = decoders.ImageReadMode.GRAY if grey else decoders.ImageReadMode.RGB
            decoded = _decoded(decoders.decode_png, data, mode)
            return decoded[0] if grey else decoded
    # torchvision was built without these formats, or the file is damaged.
    except RuntimeError:
        pass
    return None


@cache
def _decoders() -> ModuleType | None:
    try:
        import torchvision.io
    except ImportError:
        return None
    names = ("decode_jpeg", "decode_png", "ImageReadMode")
    found: ModuleType = torchvision.io
    return found if all(hasattr(found, name) for name in names) else None


def _decoded(decoder: Callable[..., Tensor], data: Pixels, mode: object) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return decoder(torch.from_numpy(data), mode)


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


def _is_plain_png(start: bytes, data: Pixels, *, grey: bool) -> bool:
    if len(start) < 29 or start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR":
        return False
    width, height, bits, kind = struct.unpack(">IIBB", start[16:26])
    if bits != 8 or kind not in ((0,) if grey else (0, 2)) or width * height > LARGEST:
        return False
    # Marks of an orientation, which stands in several places; by chance one turns up in pixels, and costs a detour.
    contents = data.tobytes()
    return not any(mark in contents for mark in (b"eXIf", b"exif", b"XML:com.adobe.xmp"))
