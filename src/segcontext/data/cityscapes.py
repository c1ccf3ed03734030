"""Cityscapes, with its fine and its coarse labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from segcontext.data.dataset import VOID, Dataset, Item
from segcontext.data.files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_files
from segcontext.data.releases import join, locate, not_found
from segcontext.data.submission import Submission
from segcontext.errors import DatasetNotFound

__all__ = ["Cityscapes"]

logger = logging.getLogger(__name__)

_PLACES = ("", "cityscapes", "Cityscapes")
_IMAGES = ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit", "leftImg8bit_trainextra/leftImg8bit")
_LABELS = {"gtFine": ("gtFine", "gtFine_trainvaltest/gtFine"), "gtCoarse": ("gtCoarse", "gtCoarse/gtCoarse")}
# labelId of each of the 19 classes, in the order of their trainIds.
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_ALL_IDS = 34
# The release speaks of 20,000 images with coarse labels and has 19,998.
_UNLABELLED = 2


class _Part(NamedTuple):
    folder: str
    labels: str


_FINE = {split: _Part(split, "gtFine") for split in ("train", "val")}
_EXTRA = _Part("train_extra", "gtCoarse")
_PARTS: Mapping[str, tuple[_Part, ...]] = {
    "train": (_FINE["train"],),
    "val": (_FINE["val"],),
    "trainval": (_FINE["train"], _FINE["val"]),
    "test": (_Part("test", ""),),
    "coarse": (_EXTRA,),
    "train_extra": (_EXTRA,),
    "coarse_train": (_Part("train", "gtCoarse"),),
    "coarse_val": (_Part("val", "gtCoarse"),),
    "train+coarse": (_FINE["train"], _EXTRA),
    "trainval+coarse": (_FINE["train"], _FINE["val"], _EXTRA),
}


class Cityscapes(Dataset):
    """Street scenes of 50 cities at 2048×1024, 19 classes.

    Cordts, Omran, Ramos, Rehfeld, Enzweiler, Benenson, Franke, Roth, Schiele, "The Cityscapes dataset for semantic
    urban scene understanding", CVPR 2016. Names, colours and numbers are those of its ``labels.py``
    (mcordts/cityscapesScripts).

    ```text
    root/                                       or root/cityscapes/
    ├── leftImg8bit/                            also as leftImg8bit_trainvaltest/leftImg8bit/, and so on
    │   ├── train/  val/  test/                 aachen/aachen_000000_000019_leftImg8bit.png, …
    │   └── train_extra/
    ├── gtFine/                                 also as gtFine_trainvaltest/gtFine/
    │   └── train/  val/                        aachen/aachen_000000_000019_gtFine_labelIds.png, …
    └── gtCoarse/                               also as gtCoarse/gtCoarse/
        └── train/  val/  train_extra/          …_gtCoarse_labelIds.png
    ```

    | split | images | labels |
    |---|---|---|
    | `train`, `val`, `trainval` | 2,975, 500, 3,475 | fine |
    | `test` | 1,525 | none (those in ``gtFine/test`` are dummies) |
    | `coarse`, also as `train_extra` | 19,998 | coarse, the images that have no others |
    | `coarse_train`, `coarse_val` | 2,975, 500 | coarse, the images of `train` and `val` |
    | `train+coarse`, `trainval+coarse` | 22,973, 23,473 | fine where there are any, else coarse |

    ``labelIds`` are mapped in memory: the 15 labels that are not evaluated, and 255, are void. Where there are no
    ``labelIds``, ``labelTrainIds`` are read.

    Note:
        Up to two images of ``train_extra`` without labels are left out and logged; any other image without labels is
        an error. ``troisdorf_000000_000073`` is known to be a damaged frame; it is kept as it was released.

    Args:
        root: the folder that holds ``leftImg8bit``, or the one around it.
        split: see above.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the split's folders or labels are not there.
        SampleError: if an image has no labels.
    """

    name = "cityscapes"
    classes = (
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
        *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    )
    palette = (
        *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)),
        *((250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60)),
        *((255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
    )
    splits = tuple(_PARTS)
    expected_counts: Mapping[str, int] = {
        **{"train": 2975, "val": 500, "trainval": 3475, "test": 1525},
        **{"coarse": 19998, "train_extra": 19998, "coarse_train": 2975, "coarse_val": 500},
        **{"train+coarse": 22973, "trainval+coarse": 23473},
    }
    layout = "leftImg8bit/ with gtFine/ or gtCoarse/"
    # The server matches files by city, sequence and frame, and takes labelIds.
    submission = Submission("{stem}_pred_labelIds.png", _IDS, "zip", "Cityscapes: Submit, Pixel-Level")

    def list_items(self) -> Iterable[Item]:
        """Joins the parts of the split, each with its kind of labels."""
        parts = _PARTS[self.split]
        images = [
            list_files(self.root, self._folder(_IMAGES, part.folder), IMAGE_SUFFIXES, ending="_leftImg8bit")
            for part in parts
        ]
        if self.split == "test":
            return self.with_masks(images[0], None)
        folders = [self._folder(_LABELS[part.labels], part.folder) for part in parts]
        for kind in ("labelIds", "labelTrainIds"):
            endings = [f"_{part.labels}_{kind}" for part in parts]
            found = [
                list_files(self.root, folder, MASK_SUFFIXES, ending=ending)
                for folder, ending in zip(folders, endings, strict=True)
            ]
            if all(found):
                break
        else:
            raise DatasetNotFound(
                f"No labels of Cityscapes' split '{self.split}' at {self.root}: expected *_labelIds.png (or "
                f"*_labelTrainIds.png) in each of {', '.join(folders)}. Unpack the label archives again, or make them "
                "of the polygons with Cityscapes' own csCreateTrainIdLabelImgs."
            )
        self._ids = _IDS if kind == "labelIds" else tuple(range(len(_IDS)))
        items: list[Item] = []
        for part, some, masks, folder, ending in zip(parts, images, found, folders, endings, strict=True):
            labelled = self._labelled(some, masks) if part == _EXTRA else some
            items += self.match(labelled, masks, f"{folder}/{{}}{ending}.png")
        return items

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a split's images lie there."""
        folders = [join(place, images) for place in _PLACES for images in _IMAGES]
        return any(locate(root, folders, part.folder) is not None for parts in _PARTS.values() for part in parts)

    def label_map(self) -> Mapping[int, int]:
        """Depends on the kind of labels: 19 of the labelIds 0..33, or 0..18; the others and 255 are void."""
        known = {number: index for index, number in enumerate(self._ids)}
        if self._ids == _IDS:
            return {VOID: VOID, **dict.fromkeys(range(_ALL_IDS), VOID), **known}
        return {VOID: VOID, **known}

    def _folder(self, kinds: tuple[str, ...], part: str) -> str:
        found = locate(self.root, [join(place, kind) for place in _PLACES for kind in kinds], part)
        if found is None:
            raise not_found(
                *(f"split '{self.split}' of Cityscapes", self.root, f"{kinds[0]}/{part}/"),
                "Point to the folder that holds leftImg8bit/ and the labels, or choose another split.",
            )
        return join(found, part)

    def _labelled(self, images: Mapping[str, str], masks: Mapping[str, str]) -> Mapping[str, str]:
        missing = [name for name in images if name not in masks]
        if not 0 < len(missing) <= _UNLABELLED:
            return images
        logger.warning("%s: left out, since there are no coarse labels for them: %s", self.name, ", ".join(missing))
        return {name: path for name, path in images.items() if name in masks}
