"""The abstract data set that every data set subclasses."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors

from segcontext.data.cache import PixelCache, as_pixels
from segcontext.data.files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_files, read_image, what_lies_at
from segcontext.data.masks import VOID, Colour, class_indices, raw_labels, wrong_labels
from segcontext.data.submission import Submission
from segcontext.errors import DatasetNotFound, LabelError, RecipeError, SampleError, nearest
from segcontext.types import Sample

__all__ = [
    "IMAGE_SUFFIXES",
    "MASK_SUFFIXES",
    "VOID",
    "Colour",
    "Dataset",
    "Item",
    "list_files",
    "read_image",
    "what_lies_at",
]

logger = logging.getLogger(__name__)


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
        layout: what the folder holds, in a few words, for the message that lists the known layouts.
        colours: RGB colour to raw mask value, for masks that store colours; `None` refuses such masks.
        palette_colours: whether in palette PNGs the colours count too, where `colours` is set. Otherwise their
            indices are the raw values, and a palette with the colour of another class is refused.
        submission: what the data set's test server takes; `None` where there is no server.
        cache: where the decoded pixels of images and masks are kept; `None` decodes each time.
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
    layout: str = ""
    colours: Mapping[Colour, int] | None = None
    palette_colours: bool = False
    submission: Submission | None = None
    cache: PixelCache | None = None

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
        """What each raw mask value, 0 or more, means: a class index, or 255 for void. Other values are an error.

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
        path = self.root / item.image
        if self.cache is None:
            image = read_image(path)
        else:
            pixels = self.cache.read(path, "RGB", lambda: as_pixels(read_image(path)))
            image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
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
            LabelError: if it holds a value that is neither a class nor void, or its palette contradicts `colours`.
        """
        mask = self.items[index].mask
        if mask is None:
            return None
        path = self.root / mask
        if self.cache is None:
            return tv_tensors.Mask(torch.from_numpy(self._labels(path)))
        colours = None if self.colours is None else sorted([*colour, value] for colour, value in self.colours.items())
        meaning = [sorted(self.label_map().items()), colours, self.palette_colours]
        return tv_tensors.Mask(torch.from_numpy(self.cache.read(path, meaning, lambda: self._labels(path))))

    def _labels(self, path: Path) -> npt.NDArray[np.uint8]:
        known = self.label_map()
        names = {value: "void" if label == VOID else self.classes[label] for value, label in known.items()}
        raw = raw_labels(path, self.colours, self.palette_colours, names if self.colours else None)
        labels = class_indices(raw, known)
        if labels is None:
            raise LabelError(wrong_labels(path, raw, known, len(self.classes)))
        return labels

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

    def with_masks(
        self,
        images: Mapping[str, str],
        masks: str | None,
        *,
        suffixes: tuple[str, ...] = MASK_SUFFIXES,
        ending: str = "",
    ) -> list[Item]:
        """Does the work of `pairs` for images that are listed already.

        Args:
            images: name to path, as `list_files` returns them.
            masks: as for `pairs`.
            suffixes: the suffixes that masks have.
            ending: what the names of the masks hold beyond those of the images, such as ``_L``.

        Returns:
            One item per image, in their order.

        Raises:
            DatasetNotFound: if the folder of the masks is not there.
            SampleError: if an image has no mask, or two masks share a name.
        """
        if masks is None:
            return [Item(path, None, name) for name, path in images.items()]
        found = list_files(self.root, masks, suffixes, ending=ending)
        return self.match(images, found, f"{masks}/{{}}{ending}{suffixes[0]}")

    def match(self, images: Mapping[str, str], masks: Mapping[str, str], expected: str) -> list[Item]:
        """Pairs images with masks that are both listed already.

        Args:
            images: name to path, as `list_files` returns them.
            masks: likewise.
            expected: where the mask of an image belongs, with ``{}`` for the name; for the error.

        Returns:
            One item per image, in their order. Masks without an image are logged.

        Raises:
            SampleError: if an image has no mask.
        """
        missing = [name for name in images if name not in masks]
        if missing:
            shown = ", ".join(images[name] for name in missing[:3]) + (", …" if len(missing) > 3 else "")
            place = self.root / expected.replace("{}", missing[0])
            lossy = any(place.with_suffix(suffix).exists() for suffix in (".jpg", ".jpeg", ".webp"))
            raise SampleError(
                f"{len(missing)} of {len(images)} images of {self.name} at {self.root} have no mask: {shown}. "
                f"Expected {place}. "
                + ("The file there may be lossy, which invents labels along edges; save the labels anew as PNG."
                   if lossy else "Add the masks or move these images elsewhere.")
            )  # fmt: skip
        alone = len(masks) - len(images)
        if alone > 0:
            folder = (self.root / expected).parent
            logger.info("%d masks in %s have no image in the split '%s'", alone, folder, self.split)
        return [Item(path, masks[name], name) for name, path in images.items()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {self.split!r}): {len(self)} images"
