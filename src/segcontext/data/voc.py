"""PASCAL VOC 2012, with the additional annotations of SBD."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from segcontext.data.dataset import Dataset, Item
from segcontext.data.files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_files
from segcontext.data.pascal_context import context_labels
from segcontext.data.releases import join, locate, not_found, pick, read_names, steps
from segcontext.data.submission import Submission
from segcontext.data.voc_colours import voc_colours

__all__ = ["VOC"]

logger = logging.getLogger(__name__)

_PLACES = ("", "VOC2012", "VOCdevkit/VOC2012")
_MARKS = ("JPEGImages", "ImageSets/Segmentation")
_SBD = ("benchmark_RELEASE/dataset", "benchmark/benchmark_RELEASE/dataset", "VOCaug/dataset", "sbd", "SBD")


class VOC(Dataset):
    """Photographs of everyday objects, 20 classes and background.

    Everingham, Eslami, Van Gool, Williams, Winn, Zisserman, "The PASCAL visual object classes challenge: A
    retrospective", IJCV 2015. The additional annotations are those of Hariharan, Arbeláez, Bourdev, Maji, Malik,
    "Semantic contours from inverse detectors" (SBD), ICCV 2011. Names and colours are those of the development kit.

    ```text
    root/                               VOC2012, VOCdevkit, or the folder around VOCdevkit
    ├── JPEGImages/                     2007_000032.jpg, …
    ├── SegmentationClass/              2007_000032.png, …   palette PNG, 255 is void
    ├── ImageSets/Segmentation/         train.txt, val.txt, trainval.txt, test.txt
    └── for the splits with aug, one of
        ├── SegmentationClassAug/       2007_000032.png, …   SBD as PNG, also beside VOC2012 or VOCdevkit
        └── benchmark_RELEASE/dataset/  SBD as released: cls/*.mat, img/, train.txt, val.txt; also beside VOCdevkit
    ```

    | split | images | |
    |---|---|---|
    | `train`, `val`, `trainval` | 1,464, 1,449, 2,913 | |
    | `test` | 1,456 | without labels |
    | `trainaug` | 10,582 | (SBD's train and val, and VOC's train) less VOC's val |
    | `trainvalaug` | 12,031 | `trainaug` and VOC's val |

    An image that has a mask in ``SegmentationClass`` is read with that one in the splits with aug too: SBD has no
    void along the outlines. If there is an ``ImageSets/Segmentation/trainaug.txt`` (or ``train_aug.txt``), it says what
    `trainaug` is.

    Args:
        root: VOC2012, or one of the two folders around it.
        split: see above.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the images, masks or lists of the split are not there.
        SampleError: if a listed image is not there, or has no mask.
        DataError: if a list is wrong.
    """

    name = "voc"
    classes = (
        *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    )
    palette = voc_colours(21)
    splits = ("train", "val", "trainval", "test", "trainaug", "trainvalaug")
    expected_counts: Mapping[str, int] = {
        **{"train": 1464, "val": 1449, "trainval": 2913, "test": 1456},
        **{"trainaug": 10582, "trainvalaug": 12031},
    }
    # comp6 is the competition for networks trained on any data, comp5 that for VOC's own.
    submission = Submission(
        *("results/VOC2012/Segmentation/comp6_test_cls/{stem}.png", tuple(range(21)), "gztar"),
        *("PASCAL VOC Evaluation Server, Segmentation (comp6)", True),
    )
    layout = "JPEGImages/ with SegmentationClass/ and ImageSets/, in VOCdevkit/VOC2012/"

    def list_items(self) -> Iterable[Item]:
        """Reads the split's list, or joins those of VOC and SBD."""
        place = locate(self.root, _PLACES, *_MARKS)
        if place is None:
            raise not_found(
                "VOC2012",
                self.root,
                "JPEGImages/ with ImageSets/Segmentation/, here, in VOC2012/ and in VOCdevkit/VOC2012/",
                "Point to VOC2012, VOCdevkit or the folder around it.",
            )
        images = list_files(self.root, join(place, "JPEGImages"), IMAGE_SUFFIXES)
        if self.split.endswith("aug"):
            return self._augmented(place, images)
        chosen = pick(self._names(place, self.split), images, self.root / place / "JPEGImages")
        if self.split == "test":
            return self.with_masks(chosen, None)
        # Some keep SegmentationClassAug alone, which holds the masks of all splits.
        aug = self._aug_folder(place)
        own = join(place, "SegmentationClass")
        return self.with_masks(chosen, own if (self.root / own).is_dir() or aug is None else aug)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether images and lists of a segmentation task lie there, and no labels of PASCAL Context with them."""
        place = locate(root, _PLACES, *_MARKS)
        return place is not None and context_labels(root, [place]) is None

    def _augmented(self, place: str, images: Mapping[str, str]) -> list[Item]:
        aug = self._aug_folder(place)
        sbd = next((found for step in steps(place) if (found := self._sbd_folder(step)) is not None), None)
        if aug is not None:
            masks = list_files(self.root, aug, MASK_SUFFIXES)
            added, expected = list(masks), f"{aug}/{{}}.png"
        elif sbd is not None:
            masks = list_files(self.root, join(sbd, "cls"), (".mat",))
            lists = [self.root / sbd / file for file in ("train.txt", "val.txt")]
            added = [name for path in lists for name in read_names(path)] if lists[0].is_file() else list(masks)
            expected = join(sbd, "cls/{}.mat")
            if (self.root / sbd / "img").is_dir():
                images = {**list_files(self.root, join(sbd, "img"), IMAGE_SUFFIXES), **images}
        else:
            raise not_found(
                *("SBD labels", self.root, "SegmentationClassAug/ and benchmark_RELEASE/dataset/cls/, here and below"),
                "Put one of the two there, or point to the folder that holds both it and VOCdevkit.",
            )
        logger.info("%s: the additional labels of the split '%s' are those in %s", self.name, self.split, aug or sbd)
        own = join(place, "SegmentationClass")
        if (self.root / own).is_dir():
            masks = {**masks, **list_files(self.root, own, MASK_SUFFIXES)}
        held_out = self._names(place, "val")
        lists_of_aug = [join(place, "ImageSets/Segmentation", file) for file in ("trainaug.txt", "train_aug.txt")]
        listed = next((path for path in lists_of_aug if (self.root / path).is_file()), None)
        if listed is not None:
            names = read_names(self.root / listed)
        else:
            names = sorted({*self._names(place, "train"), *added} - {*held_out})
        if self.split == "trainvalaug":
            names = sorted({*names, *held_out})
        return self.match(pick(names, images, self.root / place / "JPEGImages"), masks, expected)

    def _names(self, place: str, split: str) -> list[str]:
        return read_names(self.root / place / "ImageSets/Segmentation" / f"{split}.txt")

    def _aug_folder(self, place: str) -> str | None:
        step = locate(self.root, steps(place), "SegmentationClassAug")
        return None if step is None else join(step, "SegmentationClassAug")

    def _sbd_folder(self, step: str) -> str | None:
        return locate(self.root, [join(step, folder) for folder in _SBD], "cls")
