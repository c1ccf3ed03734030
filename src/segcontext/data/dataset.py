"""The abstract data set that every data set subclasses, and the reading of image and mask files."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torchvision import tv_tensors

from segcontext.errors import DatasetNotFound, LabelError, RecipeError, SampleError, nearest
from segcontext.types import Sample

__all__ = ["IMAGE_SUFFIXES", "MASK_SUFFIXES", "VOID", "Colour", "Dataset", "Item", "list_files", "read_image"]

logger = logging.getLogger(__name__)

VOID = 255
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
# No lossy format: compression would invent labels along every edge.
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")

Colour: TypeAlias = tuple[int, int, int]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class Item(NamedTuple):
    """Where one sample lies.

    Strings rather than `Path` objects: a hundred thousand of them travel to every worker process.

    Attributes:
        image: path of the image, relative to the data set's root (an absolute path works too).
        mask: path of the mask, likewise, or `None` where the image has no labels.
        name: a name unique in the data set, with no suffix; it may hold ``/``.
    """

    image: str
    mask: str | None
    name: str


class Dataset(torch.utils.data.Dataset[Sample], ABC):
    """Images with one class index per pixel.

    A subclass sets the attributes and writes `list_items`; that is all for a data set whose masks hold the class
    indices. Where masks hold other values it overrides `label_map`, where they hold colours it sets `colours`, and
    where samples are not files at all it overrides `__getitem__` and `read_mask`.

    Attributes:
        name: the word that chooses this data set in a recipe.
        classes: class names, in the order of their indices.
        palette: one RGB colour per class, 0..255.
        splits: the splits that can be asked for.
        expected_counts: images per split in the published release; another count is logged, not refused.
        colours: RGB colour to raw mask value, for masks that store colours; `None` refuses such masks.
        root: the folder.
        split: the split.
        items: where each sample lies.

    Args:
        root: the data set's folder.
        split: one of `splits`.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the folder is not there, is laid out otherwise, or the split is empty.
        SampleError: if an image has no mask.

    Example:
        >>> class Two(Dataset):
        ...     name, classes, palette = "two", ("wall", "door"), ((128, 0, 0), (0, 128, 0))
        ...     splits = ("train",)
        ...
        ...     def list_items(self):
        ...         return self.pairs("images", "labels")
        >>> Two("nowhere")
        Traceback (most recent call last):
        segcontext.errors.DatasetNotFound: ...
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    splits: tuple[str, ...] = ("train", "val", "test")
    expected_counts: Mapping[str, int] = {}
    colours: Mapping[Colour, int] | None = None

    def __init__(self, root: str | Path, split: str = "train") -> None:
        if split not in self.splits:
            raise RecipeError(
                f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}.{nearest(split, self.splits)}"
            )
        assert len(self.classes) == len(self.palette) <= VOID, "one colour per class, and index 255 is void"
        self.root = Path(root)
        self.split = split
        self.items = tuple(self.list_items())
        if not self.items:
            raise DatasetNotFound(
                f"The split '{split}' of {self.name} at {self.root} is empty: expected at least one image. "
                f"Choose another split ({', '.join(self.splits)}) or add images."
            )
        expected = self.expected_counts.get(split, len(self.items))
        if len(self.items) != expected:
            logger.warning(
                "%s at %s: split '%s' has %d images, the release %d; scores will not compare with published ones",
                *(self.name, self.root, split, len(self.items), expected),
            )

    @abstractmethod
    def list_items(self) -> Iterable[Item]:
        """Lists the samples of `self.split` below `self.root`, in a fixed order; it should open no image."""

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder `root` is laid out as this data set; asked when the data set is to be found out."""
        return False

    def label_map(self) -> Mapping[int, int]:
        """What each raw mask value, 0..255, means: a class index, or 255 for void. Other values are an error.

        Returns:
            By default each class index means itself and 255 is void.
        """
        return {**{index: index for index in range(len(self.classes))}, VOID: VOID}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """Reads one sample.

        Args:
            index: 0..len - 1, or negative to count from the end.

        Returns:
            The image, uint8 (3, H, W), and its mask, uint8 (H, W), or `None` where there are no labels.

        Raises:
            SampleError: if a file cannot be read or the two differ in size.
            LabelError: if the mask holds a value that is neither a class nor void.
        """
        item = self.items[index]
        image = read_image(self.root / item.image)
        mask = self.read_mask(index)
        if mask is not None and mask.shape != image.shape[-2:]:
            raise SampleError(
                f"{self.root / str(item.mask)} is {mask.shape[1]}×{mask.shape[0]} pixels, but its image "
                f"{self.root / item.image} is {image.shape[2]}×{image.shape[1]}. "
                "Image and mask must have the same size: resize the mask with nearest-neighbour, or mend the pair."
            )
        return Sample(image, mask, item.name)

    def read_mask(self, index: int) -> tv_tensors.Mask | None:
        """Reads the labels of one sample without its image.

        Args:
            index: as for indexing.

        Returns:
            uint8 class indices, (H, W), 255 for void, or `None` where there are no labels.

        Raises:
            SampleError: if the file cannot be read or does not store labels.
            LabelError: if it holds a value that is neither a class nor void.
        """
        mask = self.items[index].mask
        if mask is None:
            return None
        path = self.root / mask
        raw = _raw_labels(path, self.colours)
        known = self.label_map()
        table = np.full(256, VOID, np.uint8)
        valid = np.zeros(256, np.bool_)
        table[list(known.keys())] = list(known.values())
        valid[list(known.keys())] = True
        if raw.max() > VOID or raw.min() < 0 or not valid[raw].all():
            raise LabelError(_wrong_labels(path, raw, known, len(self.classes)))
        return tv_tensors.Mask(torch.from_numpy(table[raw]))

    def pairs(self, images: str, masks: str | None) -> list[Item]:
        """Pairs the images of one folder with the masks of another by their names; nested folders are followed.

        Args:
            images: folder of the images, relative to the root.
            masks: folder of the masks, or `None` if the images have no labels.

        Returns:
            One item per image, sorted by name. Masks without an image are logged.

        Raises:
            DatasetNotFound: if a folder is not there.
            SampleError: if an image has no mask, or two images or masks share a name.
        """
        return self.with_masks(list_files(self.root, images, IMAGE_SUFFIXES), masks)

    def with_masks(self, images: Mapping[str, str], masks: str | None) -> list[Item]:
        """Does the work of `pairs` for images that are listed already.

        Args:
            images: name to path, as `list_files` returns them.
            masks: as for `pairs`.

        Returns:
            One item per image, in their order.

        Raises:
            DatasetNotFound: if the folder of the masks is not there.
            SampleError: if an image has no mask, or two masks share a name.
        """
        if masks is None:
            return [Item(path, None, name) for name, path in images.items()]
        found = list_files(self.root, masks, MASK_SUFFIXES)
        missing = [name for name in images if name not in found]
        if missing:
            shown = ", ".join(images[name] for name in missing[:3]) + (", …" if len(missing) > 3 else "")
            expected = self.root / masks / missing[0]
            lossy = any(Path(f"{expected}{suffix}").exists() for suffix in (".jpg", ".jpeg", ".webp"))
            raise SampleError(
                f"{len(missing)} of {len(images)} images of {self.name} at {self.root} have no mask: {shown}. "
                f"Expected {expected}.png. "
                + ("The file there may be lossy, which invents labels along edges; save the labels anew as PNG."
                   if lossy else "Add the masks or move these images elsewhere.")
            )  # fmt: skip
        alone = len(found) - len(images)
        if alone > 0:
            logger.info("%d masks in %s have no image in the split '%s'", alone, self.root / masks, self.split)
        return [Item(path, found[name], name) for name, path in images.items()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {self.split!r}): {len(self)} images"


def read_image(path: str | Path) -> tv_tensors.Image:
    """Reads an image file as it is meant to be seen: its EXIF orientation is applied, alpha is dropped.

    Args:
        path: any file that Pillow reads; 16-bit greys keep their upper eight bits.

    Returns:
        uint8 RGB, (3, H, W).

    Raises:
        SampleError: if the file is missing, truncated or no image.
    """
    image = _decoded(Path(path))
    if image.mode.startswith("I"):
        image = Image.fromarray(np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "P":
        # Straight to RGB, Pillow warns of palettes that hold transparency.
        image = image.convert("RGBA")
    pixels = np.array(image.convert("RGB"))
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())


def list_files(root: Path, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Lists the files of a folder and of the folders in it, hidden ones left out.

    Args:
        root: the data set's folder.
        folder: the folder to list, relative to `root`.
        suffixes: the suffixes to keep, in lower case; files are matched in either case.

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
            if file.startswith(".") or suffix.lower() not in suffixes:
                continue
            path = f"{folder}/{prefix}{file}"
            other = found.setdefault(f"{prefix}{stem}", path)
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


def _decoded(path: Path) -> Image.Image:
    """A decoded file, turned as its EXIF orientation says; every failure is worded for users."""
    try:
        with Image.open(path) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except FileNotFoundError as error:
        raise SampleError(f"{path} does not exist. Check the path; it may have been moved or deleted.") from error
    except _UNREADABLE as error:
        raise SampleError(
            f"{path} cannot be read as an image: {error}. It may be truncated or of another format; "
            "fetch or export the file again, or remove it."
        ) from error


def _raw_labels(path: Path, colours: Mapping[Colour, int] | None) -> Integers:
    """The values that a mask stores, (H, W), before the label map."""
    image = _decoded(path)
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        pixels: Integers = np.asarray(image)
        return pixels.astype(np.uint8) if image.mode == "1" else pixels
    rgb = np.asarray(image.convert("RGB"))
    if colours is None:
        advice = "convert it by the classes' colours, or say which colour is which class: `r g b` on each line of a "
        advice += "folder's classes file, `colours` of a Dataset subclass."
        if (rgb == rgb[..., :1]).all():
            advice = "its channels are all equal, so keep the first."
        raise SampleError(
            f"{path} stores colours (mode {image.mode}). Expected one class index per pixel, in an 8-bit grey or "
            f"palette PNG: {advice}"
        )
    packed = rgb.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    labels = np.full(packed.shape, -1, np.int16)
    for (red, green, blue), value in colours.items():
        labels[packed == red * 65536 + green * 256 + blue] = value
    unknown = rgb[labels < 0]
    if len(unknown):
        raise LabelError(
            f"{path} holds {len(unknown)} pixels of colours that are no class, such as {tuple(unknown[0].tolist())}. "
            "Expected only the data set's colours; a mask that was resized or saved lossily has to be made anew."
        )
    return labels


def _wrong_labels(path: Path, raw: Integers, known: Mapping[int, int], classes: int) -> str:
    """The message for a mask with values that mean nothing."""
    values, counts = np.unique(raw, return_counts=True)
    present = dict(zip(values.tolist(), counts.tolist(), strict=True))
    wrong = {value: count for value, count in present.items() if value not in known}
    shown = ", ".join(f"{value} ({count} pixels)" for value, count in islice(wrong.items(), 5))
    expected = sorted(value for value, label in known.items() if label != VOID)
    contiguous = expected == list(range(expected[0], expected[-1] + 1))
    span = f"{expected[0]}..{expected[-1]}" if contiguous else ", ".join(map(str, expected))
    void = ", ".join(str(value) for value, label in sorted(known.items()) if label == VOID)
    hint = "Mend the mask or the list of classes."
    if len(wrong) > 20:
        hint = "So many values look like a picture or a resampled mask; labels are resized with nearest-neighbour."
    elif list(wrong) == [classes] and expected == list(range(classes)):
        hint = "Do the labels start at 1? Subtract 1, or name the class that is missing from the list."
    elif len(present) == 2 and classes == 2:
        hint = f"The mask is binary with values {values[0]} and {values[1]}: store 0 and 1 instead."
    return (
        f"{path} holds labels that are no class: {shown}{', …' if len(wrong) > 5 else ''}. "
        f"Expected {span} for the {classes} classes{f' and {void} for void' if void else ''}. {hint}"
    )
