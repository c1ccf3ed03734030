"""PASCAL Context, with 59 classes or with background as a sixtieth."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from segcontext.data.dataset import VOID, Dataset, Item
from segcontext.data.files import IMAGE_SUFFIXES, list_files
from segcontext.data.releases import join, locate, not_found, pick, read_names, steps
from segcontext.data.voc_colours import voc_colours
from segcontext.errors import DataError

__all__ = ["PascalContext", "PascalContext60", "context_labels"]

logger = logging.getLogger(__name__)

_PLACES = ("", "VOC2010", "VOCdevkit/VOC2010")
_BESIDE = ("", "pascal-context", "pascal_context", "PASCAL-Context")
_LABELS = 459

# Class name to its number among the 459 of the release's labels.txt; the Detail API lists the same numbers.
_NUMBERS = {
    **{"aeroplane": 2, "bag": 9, "bed": 18, "bedclothes": 19, "bench": 22, "bicycle": 23, "bird": 25, "boat": 31},
    **{"book": 33, "bottle": 34, "building": 44, "bus": 45, "cabinet": 46, "car": 59, "cat": 65, "ceiling": 68},
    **{"chair": 72, "cloth": 80, "computer": 85, "cow": 98, "cup": 104, "curtain": 105, "dog": 113, "door": 115},
    **{"fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189, "horse": 207},
    **{"keyboard": 220, "light": 232, "motorbike": 258, "mountain": 259, "mouse": 260, "person": 284, "plate": 295},
    **{"platform": 296, "pottedplant": 308, "road": 324, "rock": 326, "sheep": 347, "shelves": 349, "sidewalk": 354},
    **{"sign": 355, "sky": 360, "snow": 366, "sofa": 368, "table": 397, "track": 415, "train": 416, "tree": 420},
    **{"truck": 424, "tvmonitor": 427, "wall": 440, "water": 445, "window": 454, "wood": 458},
}
# The order of the release's 59_labels.txt, which its 59-class PNGs follow: VOC's classes come first.
_ORDER_OF_59 = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor", "bag", "bed", "bench", "book"),
    *("building", "cabinet", "ceiling", "cloth", "computer", "cup", "door", "fence", "floor", "flower", "food"),
    *("grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform", "sign", "plate", "road"),
    *("rock", "shelves", "sidewalk", "sky", "snow", "bedclothes", "track", "tree", "truck", "wall", "water"),
    *("window", "wood"),
)


class _Labels(NamedTuple):
    folder: str
    suffix: str


class PascalContext(Dataset):
    """The photographs of VOC 2010, labelled all over, 59 classes.

    Mottaghi, Chen, Liu, Cho, Lee, Fidler, Urtasun, Yuille, "The role of context for object detection and semantic
    segmentation in the wild", CVPR 2014. The 59 are the most frequent of its 459 labels, in alphabetical order as in
    the Detail API and in mmsegmentation. The release has no colours; these are VOC's scheme, indices 1..59.

    ```text
    root/                               VOC2010, VOCdevkit, or the folder around VOCdevkit
    ├── JPEGImages/
    ├── ImageSets/Main/                 train.txt (4,998), val.txt (5,105); or ImageSets/SegmentationContext/
    └── one of these, also beside VOC2010 or VOCdevkit, or there in a folder pascal-context
        ├── SegmentationClassContext/   PNG of mmsegmentation's converter: 0 is background, 1..59 the classes
        ├── 59_context_labels/          PNG of the release: the same, in the order of 59_labels.txt
        └── trainval/                   MATLAB files of the release, 459 labels; labels.txt with them or around them
    ```

    What is none of the 59 is void here and a class in `PascalContext60`. If several kinds of labels are there, the
    first above is read, and the log says so. Without ``labels.txt`` the numbers of the 459 labels are those that it had
    when it was published.

    Args:
        root: VOC2010, or one of the two folders around it.
        split: ``"train"``, ``"val"`` or ``"trainval"``.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the images, labels or lists are not there.
        SampleError: if a listed image is not there, or has no labels.
        DataError: if a list is wrong.
    """

    name = "pascal_context_59"
    classes: tuple[str, ...] = tuple(_NUMBERS)
    palette = voc_colours(len(_NUMBERS), first=1)
    splits = ("train", "val", "trainval")
    expected_counts: Mapping[str, int] = {"train": 4998, "val": 5105, "trainval": 10103}
    layout = "JPEGImages/ with SegmentationClassContext/, 59_context_labels/ or trainval/*.mat, in VOCdevkit/VOC2010/"
    _background = False

    def list_items(self) -> Iterable[Item]:
        """Reads the split's lists, and finds out which kind of labels is there."""
        place = locate(self.root, _PLACES, "JPEGImages")
        if place is None:
            raise not_found(
                *("VOC2010", self.root, "JPEGImages/, here, in VOC2010/ and in VOCdevkit/VOC2010/"),
                "Point to VOC2010, VOCdevkit or the folder around it.",
            )
        labels = context_labels(self.root, steps(place))
        if labels is None:
            raise not_found(
                "PASCAL Context labels",
                self.root,
                "SegmentationClassContext/, 59_context_labels/ and trainval/*.mat, here, in pascal-context/ and beside "
                "JPEGImages/",
                "Put one of them there.",
            )
        logger.info("%s: the labels are those in %s", self.name, self.root / labels.folder)
        self._raw_classes = self._numbering(labels)
        names = [name for part in self._parts() for name in read_names(self._list(place, part))]
        images = list_files(self.root, join(place, "JPEGImages"), IMAGE_SUFFIXES)
        chosen = pick(names, images, self.root / place / "JPEGImages")
        return self.with_masks(chosen, labels.folder, suffixes=(labels.suffix,))

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether images of VOC and labels of PASCAL Context lie there; background is left out unless asked for."""
        place = locate(root, _PLACES, "JPEGImages")
        return not cls._background and place is not None and context_labels(root, steps(place)) is not None

    def label_map(self) -> Mapping[int, int]:
        """Depends on the kind of labels; what is none of the 59 is void, or background where that is a class."""
        rest, first = (0, 1) if self._background else (VOID, 0)
        known = {number: first + index for index, number in enumerate(self._raw_classes)}
        if max(known) > VOID:
            return {**dict.fromkeys(range(_LABELS + 1), rest), **known}
        return {0: rest, VOID: VOID, **known}

    def _parts(self) -> tuple[str, ...]:
        return ("train", "val") if self.split == "trainval" else (self.split,)

    def _list(self, place: str, part: str) -> Path:
        lists = [self.root / place / "ImageSets" / kind / f"{part}.txt" for kind in ("SegmentationContext", "Main")]
        return next((path for path in lists if path.is_file()), lists[-1])

    def _numbering(self, labels: _Labels) -> tuple[int, ...]:
        """The raw value of each of the 59 classes."""
        names = tuple(_NUMBERS)
        if labels.folder.endswith("SegmentationClassContext"):
            return tuple(range(1, len(names) + 1))
        if labels.folder.endswith("59_context_labels"):
            return tuple(_ORDER_OF_59.index(name) + 1 for name in names)
        around = [self.root / step / "labels.txt" for step in steps(labels.folder)]
        listed = next((path for path in around if path.is_file()), None)
        numbers = _NUMBERS if listed is None else _read_labels(listed)
        missing = [name for name in names if name not in numbers]
        if missing:
            raise DataError(
                f"{listed} lacks {', '.join(missing[:3])}: expected the release's list of {_LABELS} labels, "
                "one `number: name` per line. Fetch it again."
            )
        return tuple(numbers[name] for name in names)


class PascalContext60(PascalContext):
    """PASCAL Context with 60 classes: what is none of the 59 is background, index 0.

    The layouts, splits and errors are those of `PascalContext`. Since it is recognised as that, it is chosen by its
    name, ``dataset: pascal_context_60``.

    Args:
        root: VOC2010, or one of the two folders around it.
        split: ``"train"``, ``"val"`` or ``"trainval"``.
    """

    name = "pascal_context_60"
    classes = ("background", *PascalContext.classes)
    palette = voc_colours(60)
    layout = ""
    _background = True


def context_labels(root: Path, places: Iterable[str]) -> _Labels | None:
    """Finds labels of PASCAL Context.

    Args:
        root: the folder that the user named.
        places: where to look, relative to it.

    Returns:
        The folder of the labels, relative to `root`, and their suffix, or `None`.
    """
    folders = [join(place, beside) for place in places for beside in _BESIDE]
    for kind, suffix in (("SegmentationClassContext", ".png"), ("59_context_labels", ".png"), ("trainval", ".mat")):
        for folder in (join(folder, kind) for folder in folders):
            if (root / folder).is_dir() and _holds(root / folder, suffix):
                return _Labels(folder, suffix)
    return None


def _holds(folder: Path, suffix: str) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(suffix) for entry in entries)


def _read_labels(path: Path) -> dict[str, int]:
    try:
        pairs = [line.split(":", 1) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        return {name.replace(" ", ""): int(number) for number, name in pairs}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no list of labels: {error}. Expected one `number: name` per line.") from error
