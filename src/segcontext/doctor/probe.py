"""Examines one image with its mask; this is the part of the work that is shared out to processes."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from segcontext.data import Dataset
from segcontext.data.files import UNREADABLE, rgb_pixels
from segcontext.doctor.fingerprint import Fingerprint, fingerprint
from segcontext.doctor.lenient import lenient
from segcontext.doctor.mask_probe import MaskFacts, probe_labels, probe_mask
from segcontext.doctor.survey import Pair, Reading
from segcontext.errors import DataError

__all__ = ["ImageFacts", "Probe", "dataset_of", "probe"]


class ImageFacts(NamedTuple):
    """What an image file tells.

    Attributes:
        width: in pixels, as it is meant to be seen.
        height: likewise.
        mode: Pillow's name for how it stores colours.
        orientation: the EXIF orientation, 1 for none.
        digest: of the file's bytes.
        fingerprint: to find copies by.
        histogram: (3, 256), pixels of each value of red, green and blue.
    """

    width: int
    height: int
    mode: str
    orientation: int
    digest: bytes
    fingerprint: Fingerprint
    histogram: npt.NDArray[np.int64]


class Probe(NamedTuple):
    """What was found in an image and its mask.

    Attributes:
        image: of the image; `None` where it cannot be read.
        mask: of the mask; `None` where there is none or it cannot be read.
        image_error: why the image cannot be read.
        mask_error: why the mask cannot be read.
    """

    image: ImageFacts | None
    mask: MaskFacts | None
    image_error: str = ""
    mask_error: str = ""


def probe(readings: Sequence[Reading], pair: Pair) -> Probe:
    """Reads an image and its mask and notes down what is in them.

    Args:
        readings: how the files of each split are read.
        pair: the image and the mask.

    Returns:
        What was found. Files that cannot be read are no error here.
    """
    reading = readings[pair.reading]
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which harms nothing here.
        warnings.simplefilter("ignore")
        if not pair.image:
            return _probe_sample(reading, pair)
        image, image_error = _probe_image(reading.root / pair.image)
        if pair.mask is None:
            return Probe(image, None, image_error)
        if reading.kind is not None:
            mask, mask_error = _probe_own_mask(reading, pair)
        else:
            mask, mask_error = probe_mask(reading.root / pair.mask, reading)
        return Probe(image, mask, image_error, mask_error)


def _probe_image(path: Path) -> tuple[ImageFacts | None, str]:
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
            ImageOps.exif_transpose(image, in_place=True)
            mode = image.mode
            upright = image if mode == "RGB" else Image.fromarray(_rgb(image))
    except UNREADABLE as error:
        return None, str(error) or type(error).__name__
    return _facts(upright, mode, orientation, hashlib.blake2b(content, digest_size=16).digest()), ""


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = rgb_pixels(image).permute(1, 2, 0).contiguous().numpy()
    return pixels


def _facts(image: Image.Image, mode: str, orientation: int, digest: bytes) -> ImageFacts:
    histogram = np.array(image.histogram(), np.int64).reshape(3, 256)
    return ImageFacts(*image.size, mode, orientation, digest, fingerprint(image), histogram)


def _probe_sample(reading: Reading, pair: Pair) -> Probe:
    """Examines a sample that is no file."""
    try:
        sample = dataset_of(reading)[pair.place]
    except DataError as error:
        return Probe(None, None, str(error))
    pixels = np.ascontiguousarray(sample.image.as_subclass(Tensor).permute(1, 2, 0).numpy())
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
    image = _facts(Image.fromarray(pixels), "RGB", 1, digest)
    if sample.mask is None:
        return Probe(image, None)
    return Probe(image, probe_labels(_integers(sample.mask), reading))


def _probe_own_mask(reading: Reading, pair: Pair) -> tuple[MaskFacts | None, str]:
    """Examines a mask that only the data set itself can read."""
    try:
        mask = dataset_of(reading).read_mask(pair.place)
    except DataError as error:
        return None, str(error)
    return (None, "") if mask is None else (probe_labels(_integers(mask), reading), "")


def _integers(mask: Tensor) -> npt.NDArray[Any]:
    return mask.as_subclass(Tensor).numpy()


def dataset_of(reading: Reading) -> Dataset:
    """The data set that reads samples which are no files; it is opened once per process.

    Args:
        reading: how they are read, with `kind`.

    Returns:
        The data set, which opens although something is wrong with it.
    """
    assert reading.kind is not None, "other samples are files"
    return _opened(reading.kind, reading.root, reading.split)


@lru_cache(maxsize=16)
def _opened(kind: type[Dataset], root: Path, split: str) -> Dataset:
    return lenient(kind)(root, split)
