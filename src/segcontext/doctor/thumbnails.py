"""Small pictures of images and masks, to be put into a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from segcontext.data.files import decode, rgb_pixels
from segcontext.data.masks import VOID, raw_labels
from segcontext.doctor.examination import Examination, Record
from segcontext.doctor.finding import Example
from segcontext.doctor.probe import dataset_of
from segcontext.doctor.survey import Reading
from segcontext.errors import DataError
from segcontext.pictures import VOID_COLOUR, default_palette, overlay

__all__ = ["Thumbnail", "example_thumbnails", "sample_thumbnails"]

_SIDE = 300
#: What is neither a class nor void is drawn in this colour, which no palette has by chance.
_WRONG = (255, 0, 255)


class Thumbnail(NamedTuple):
    """A small picture.

    Attributes:
        caption: what it shows.
        uri: the picture as a ``data:`` URI, a JPEG.
    """

    caption: str
    uri: str


def sample_thumbnails(seen: Examination, count: int) -> Iterator[Thumbnail]:
    """Images with the colours of their classes over them, spread over the data set.

    Args:
        seen: what was seen in the data set.
        count: how many.

    Yields:
        The pictures.
    """
    usable = [record for record in seen.records if _overlaid(record)]
    for step in range(min(count, len(usable))):
        record = usable[step * len(usable) // min(count, len(usable))]
        try:
            image, labels = _sample(seen.survey.readings[record.pair.reading], record)
        except DataError:
            continue
        palette = seen.survey.palette or default_palette(len(seen.survey.classes))
        yield _thumbnail(f"{record.pair.splits[0]}: {record.pair.name}", overlay(image, labels, palette))


def example_thumbnails(seen: Examination, example: Example) -> Iterator[Thumbnail]:
    """The files that show a finding; those that cannot be read are left out.

    Args:
        seen: what was seen in the data set.
        example: the files.

    Yields:
        The pictures.
    """
    root = seen.survey.root
    for image, mask in ((example.image, example.mask), (example.other, example.other_mask)):
        with suppress(DataError):
            if image:
                yield _thumbnail(image, _small(Image.fromarray(_rgb(decode(root / image))), Image.Resampling.BOX))
        with suppress(DataError):
            if mask:
                yield _thumbnail(mask, _mask(seen, mask))


def _overlaid(record: Record) -> bool:
    mask, image = record.mask, record.image
    return (
        mask is not None
        and image is not None
        and (image.width, image.height) == (mask.width, mask.height)
        and mask.labelled > 0
    )


def _sample(reading: Reading, record: Record) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A small image with its labels."""
    if reading.kind is not None:
        sample = dataset_of(reading)[record.pair.place]
        assert sample.mask is not None, "only records with a mask are shown"
        image = Image.fromarray(sample.image.as_subclass(Tensor).permute(1, 2, 0).contiguous().numpy())
        labels = sample.mask.as_subclass(Tensor).numpy()
    else:
        image = Image.fromarray(_rgb(decode(reading.root / record.pair.image)))
        labels = _labels(_raw(reading, str(record.pair.mask)), reading)
    labels = np.where(labels < reading.classes, labels, VOID).astype(np.uint8)
    return (
        np.asarray(_small(image, Image.Resampling.BOX)),
        np.asarray(_small(Image.fromarray(labels), Image.Resampling.NEAREST)),
    )


def _mask(seen: Examination, mask: str) -> npt.NDArray[np.uint8]:
    """A mask in the colours of its classes, with wrong values in magenta; or its own colours, where it stores such."""
    pair = next((record.pair for record in seen.records if record.pair.mask == mask), None)
    reading = seen.survey.readings[pair.reading] if pair else seen.survey.readings[0]
    path = reading.root / mask
    try:
        labels = _labels(_raw(reading, mask), reading)
    except DataError:
        return np.asarray(_small(Image.fromarray(_rgb(decode(path))), Image.Resampling.NEAREST))
    count = max(reading.classes, 1)
    table = np.full((int(labels.max()) + 257, 3), _WRONG, np.uint8)
    table[VOID] = VOID_COLOUR
    palette = seen.survey.palette or default_palette(min(int(labels.max()) + 1, VOID) if not reading.classes else count)
    table[: len(palette)] = palette
    small = _small(Image.fromarray(labels.astype(np.int32)), Image.Resampling.NEAREST)
    shown: npt.NDArray[np.uint8] = table[np.asarray(small)]
    return shown


def _raw(reading: Reading, mask: str) -> npt.NDArray[np.integer]:
    return raw_labels(reading.root / mask, reading.colours, reading.palette_colours)


def _labels(raw: npt.NDArray[np.integer], reading: Reading) -> npt.NDArray[np.int64]:
    """Class indices and 255; 256 stands for what is neither. Where the classes are not known, the values themselves."""
    if not reading.label_map:
        return np.clip(raw.astype(np.int64), 0, VOID)
    values, places = np.unique(raw, return_inverse=True)
    meaning = np.array([reading.label_map.get(value, VOID + 1) for value in values.tolist()], np.int64)
    labels: npt.NDArray[np.int64] = meaning[places.reshape(raw.shape)]
    return labels


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = rgb_pixels(image).permute(1, 2, 0).contiguous().numpy()
    return pixels


def _small(image: Image.Image, how: Image.Resampling) -> Image.Image:
    scale = _SIDE / max(image.size)
    # Tiny pictures are enlarged, so that their pixels can be seen.
    scale = scale if scale < 1 else max(1, int(scale / 2))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, how if scale < 1 else Image.Resampling.NEAREST)


def _thumbnail(caption: str, picture: npt.NDArray[np.uint8] | Image.Image) -> Thumbnail:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, subsampling=0)
    return Thumbnail(caption, "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
