"""COCO-Stuff, the release of 10,000 images and that of all of COCO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from segcontext.data.dataset import VOID, Dataset, Item
from segcontext.data.files import IMAGE_SUFFIXES, list_files
from segcontext.data.releases import join, locate, not_found, pick, read_names
from segcontext.data.voc_colours import voc_colours
from segcontext.errors import RecipeError

__all__ = ["COCOStuff", "stuff_maps"]

_PLACES_10K = ("", "cocostuff-10k-v1.1", "coco_stuff10k", "dataset")
_LISTS = ("imageLists", "imagesLists")
_PLACES_164K = ("", "dataset", "coco_stuff164k", "coco", "coco2017")
_IMAGES = ("images", "")
_MAPS = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations", "annotations/stuffthingmaps")
# COCO's numbers of things for which it has no masks: street sign, hat, shoe, eye glasses, plate, mirror, window, desk,
# door, blender, hair brush.
_WITHOUT_MASKS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
_NUMBERS = tuple(number for number in range(1, 183) if number not in _WITHOUT_MASKS)


class COCOStuff(Dataset):
    """Photographs of scenes, 171 classes: 80 things and 91 kinds of stuff.

    Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and stuff classes in context", CVPR 2018. Names are those of the
    authors' ``labels.txt`` (nightrome/cocostuff), less the eleven things for which COCO has no masks. The release has
    no colours; these are VOC's scheme, indices 1..171.

    ```text
    COCO-Stuff 10k v1.1                         COCO-Stuff 164k
    root/  (or root/cocostuff-10k-v1.1/)        root/  (or root/coco/, root/dataset/)
    ├── images/       COCO_train2014_….jpg      ├── images/train2017/ images/val2017/, or train2017/ val2017/
    ├── annotations/  COCO_train2014_….mat      └── stuffthingmaps/train2017/ …/val2017/, or annotations/train2017/ …
    └── imageLists/   train.txt, test.txt
    ```

    | split | 10k | 164k |
    |---|---|---|
    | `train` | 9,000 | 118,287 |
    | `val` | 1,000, the release's `test.txt` | 5,000 |

    Raw labels of the 10k release are 1..182 with 0 for void, those of the 164k release 0..181 with 255 for void. The
    papers' figures are of the 10k release.

    Args:
        root: see above.
        split: ``"train"`` or ``"val"``.

    Raises:
        RecipeError: if there is no such split, or both releases lie in folders of `root`.
        DatasetNotFound: if the split's folders or lists are not there.
        SampleError: if an image is not there, or has no labels.
    """

    name = "coco_stuff"
    classes = (
        *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
        *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
        *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
        *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
        *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
        *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
        *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
        *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors"),
        *("teddy bear", "hair drier", "toothbrush"),
        *("banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet"),
        *("ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain"),
        *("desk-stuff", "dirt", "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile"),
        *("floor-wood", "flower", "fog", "food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other"),
        *("hill", "house", "leaves", "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin"),
        *("net", "paper", "pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing"),
        *("railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf", "sky-other"),
        *("skyscraper", "snow", "solid-other", "stairs", "stone", "straw", "structural-other", "table", "tent"),
        *("textile-other", "towel", "tree", "vegetable", "wall-brick", "wall-concrete", "wall-other", "wall-panel"),
        *("wall-stone", "wall-tile", "wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood"),
    )
    palette = voc_colours(171, first=1)
    splits = ("train", "val")
    layout = "images/ with imageLists/ (10k), or train2017/ with stuffthingmaps/train2017/ (164k)"

    def list_items(self) -> Iterable[Item]:
        """Finds out which release it is, and lists that."""
        small, large = _find_10k(self.root), stuff_maps(self.root, self.split)
        if small is not None and large is not None:
            if (small.place == "") == (large.place == ""):
                raise RecipeError(
                    f"Both releases of COCO-Stuff lie in {self.root}: the 10k one with {small.images}/, the 164k one "
                    f"with {large.images}/. Point to the folder of one of them."
                )
            # A folder that is a release itself goes before one that lies in it.
            small, large = (small, None) if small.place == "" else (None, large)
        if large is not None:
            self._void, self._offset = VOID, 1
            self.expected_counts = {"train": 118287, "val": 5000}
            return self.with_masks(list_files(self.root, large.images, IMAGE_SUFFIXES), large.maps)
        if small is None:
            raise not_found(
                "COCO-Stuff",
                self.root,
                f"images/, annotations/ and imageLists/ (10k), or {self.split}2017/ with "
                f"stuffthingmaps/{self.split}2017/ (164k)",
                "Point to the folder that holds them.",
            )
        self._void, self._offset = 0, 0
        self.expected_counts = {"train": 9000, "val": 1000}
        images = list_files(self.root, small.images, IMAGE_SUFFIXES)
        names = read_names(self.root / small.lists / ("train.txt" if self.split == "train" else "test.txt"))
        return self.with_masks(pick(names, images, self.root / small.images), small.maps, suffixes=(".mat",))

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a release lies there; of the larger one, a split is enough."""
        return _find_10k(root) is not None or any(stuff_maps(root, split) is not None for split in cls.splits)

    def label_map(self) -> Mapping[int, int]:
        """Depends on the release: 171 of 1..182 and void 0, or all of that one lower and void 255."""
        return {
            self._void: VOID,
            **{number - self._offset: index for index, number in enumerate(_NUMBERS)},
        }


class _Place(NamedTuple):
    place: str
    images: str
    maps: str
    lists: str = ""


def stuff_maps(root: Path, split: str) -> _Place | None:
    """Finds a split of COCO with the label maps of COCO-Stuff 164k.

    Args:
        root: the folder that the user named.
        split: ``"train"`` or ``"val"``.

    Returns:
        The folders of the images and of the maps, relative to `root`, and the folder in which both lie; or `None`.
    """
    for place in _PLACES_164K:
        images = locate(root, [join(place, folder) for folder in _IMAGES], f"{split}2017")
        maps = locate(root, [join(place, folder) for folder in _MAPS], f"{split}2017")
        if images is not None and maps is not None:
            return _Place(place, join(images, f"{split}2017"), join(maps, f"{split}2017"))
    return None


def _find_10k(root: Path) -> _Place | None:
    for lists in _LISTS:
        place = locate(root, _PLACES_10K, "images", "annotations", lists)
        if place is not None:
            return _Place(place, join(place, "images"), join(place, "annotations"), join(place, lists))
    return None
