"""Images from wherever they are: files, Pillow, arrays, tensors."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from segcontext.data.files import UNREADABLE, read_image, rgb_pixels
from segcontext.errors import SampleError, ShapeError

__all__ = ["ImageSource", "read_source"]

ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor


def read_source(source: ImageSource) -> Tensor:
    """Reads an image from wherever it is.

    Args:
        source: what `Predictor` takes.

    Returns:
        RGB, (3, H, W): uint8, or float32 in [0, 1] where floats came.

    Raises:
        SampleError: the file cannot be read.
        ShapeError: an array or tensor has another shape or type.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source)
    if isinstance(source, Tensor):
        pixels = source.detach().as_subclass(Tensor)
        if pixels.dtype == torch.uint16:
            pixels = (pixels.int() >> 8).to(torch.uint8)
        return _as_rgb(pixels, channels_first=True)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | os.PathLike):
        image: Tensor = read_image(os.fspath(source)).as_subclass(Tensor)
        return image
    raise ShapeError(f"An image is a path, a Pillow image, an array or a tensor, not {type(source).__name__}.")


def _from_array(array: npt.NDArray[Any]) -> Tensor:
    # PyTorch takes the machine's own byte order alone.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8 and array.dtype not in (np.float16, np.float32, np.float64):
        raise ShapeError(
            f"An image array holds uint8, uint16 or floats in [0, 1] of 16, 32 or 64 bits, not {array.dtype}."
        )
    # A copy: PyTorch takes neither negative strides nor read-only memory.
    return _as_rgb(torch.from_numpy(array.copy()), channels_first=False)


def _from_pillow(image: Image.Image) -> Tensor:
    try:
        return rgb_pixels(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise SampleError(f"The Pillow image cannot be decoded: {error}. Fetch or export its file again.") from error


def _as_rgb(pixels: Tensor, *, channels_first: bool) -> Tensor:
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and not channels_first:
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
        shape = "(3, H, W), (4, H, W), (1, H, W)" if channels_first else "(H, W, 3), (H, W, 4), (H, W, 1)"
        raise ShapeError(f"An image has shape {shape} or (H, W), in RGB order; got {tuple(pixels.shape)}.")
    return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels[:3]
