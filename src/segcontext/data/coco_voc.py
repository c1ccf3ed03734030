"""COCO with the classes of PASCAL VOC, for the stage before VOC's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from segcontext.data.coco_stuff import stuff_maps
from segcontext.data.dataset import VOID, Dataset, Item
from segcontext.data.files import IMAGE_SUFFIXES, list_files
from segcontext.data.releases import not_found
from segcontext.data.voc import VOC

__all__ = ["COCOVOC"]

# VOC's classes after background, as numbers of COCO's things (cocodataset's `categories`).
_THINGS = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)


class COCOVOC(Dataset):
    """The photographs of COCO 2017 with the 21 classes of PASCAL VOC.

    Lin, Maire, Belongie et al., "Microsoft COCO: Common objects in context", ECCV 2014. EMANet's networks for the test
    server of VOC are trained on it first. The labels are the maps of COCO-Stuff 164k, in which COCO's things are drawn
    as its ``instances_*.json`` has them, so that no mask has to be drawn from polygons while training. The layout is
    that of `COCOStuff`; since it is recognised as that, this one is chosen by its name, ``dataset: coco_voc``.

    | split | images |
    |---|---|
    | `train` | 118,287 |
    | `val` | 5,000 |
    | `trainval` | 123,287 |

    Note:
        What is none of VOC's 20 classes is background, pixels that COCO-Stuff leaves unlabelled too, as in masks
        made of the instances. All images count, those without an object of the 20 classes too; others keep only
        images with a certain area of objects, and EMANet does not say what it did.

    Args:
        root: the folder that holds ``images`` (or ``train2017``) and ``stuffthingmaps``, or the one around it.
        split: see above.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the split's folders are not there.
        SampleError: if an image has no map.
    """

    name = "coco_voc"
    classes = VOC.classes
    palette = VOC.palette
    splits = ("train", "val", "trainval")
    expected_counts: Mapping[str, int] = {"train": 118287, "val": 5000, "trainval": 123287}

    def list_items(self) -> Iterable[Item]:
        """Pairs images and maps by their names."""
        items: list[Item] = []
        for part in ("train", "val") if self.split == "trainval" else (self.split,):
            found = stuff_maps(self.root, part)
            if found is None:
                raise not_found(
                    "COCO with COCO-Stuff's maps",
                    self.root,
                    f"{part}2017/ (or images/{part}2017/) with stuffthingmaps/{part}2017/",
                    "Point to the folder that holds them.",
                )
            items += self.with_masks(list_files(self.root, found.images, IMAGE_SUFFIXES), found.maps)
        return items

    def label_map(self) -> Mapping[int, int]:
        """The things that VOC has are its classes; other things, stuff and unlabelled pixels are background."""
        background = {**dict.fromkeys(range(182), 0), VOID: 0}
        return {**background, **{number - 1: index for index, number in enumerate(_THINGS, start=1)}}
