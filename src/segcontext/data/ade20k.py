"""ADE20K, the 150 classes of the scene parsing challenge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from segcontext.data.dataset import VOID, Dataset, Item
from segcontext.data.files import IMAGE_SUFFIXES, list_files
from segcontext.data.releases import join, locate, not_found
from segcontext.data.submission import Submission

__all__ = ["ADE20K"]

_PLACES = ("", "ADEChallengeData2016", "ade/ADEChallengeData2016")
_FOLDERS = {"train": "training", "val": "validation"}


class ADE20K(Dataset):
    """Scenes of all kinds, 150 classes.

    Zhou, Zhao, Puig, Fidler, Barriuso, Torralba, "Scene parsing through ADE20K dataset", CVPR 2017; the release of
    the scene parsing challenge 2016. Names are the first word of each line of its ``objectInfo150.txt``, colours those
    of its ``color150.mat`` (CSAILVision/sceneparsing). Road and skyscraper share one.

    ```text
    root/                       or root/ADEChallengeData2016/
    ├── images/
    │   ├── training/           ADE_train_00000001.jpg, …   20,210
    │   ├── validation/         ADE_val_00000001.jpg, …      2,000
    │   └── testing/            ADE_test_00000001.jpg, …     3,352, without labels; or root/release_test/testing/
    └── annotations/
        ├── training/           the same names, .png
        └── validation/
    ```

    Raw label 0, "other objects", is void; 1..150 are the classes.

    Args:
        root: the folder that holds ``images`` and ``annotations``, or the one around it.
        split: ``"train"``, ``"val"``, or ``"test"``, which has no labels.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the split's folders are not there.
        SampleError: if an image has no mask.
    """

    name = "ade20k"
    classes = (
        *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet"),
        *("sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water"),
        *("painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk"),
        *("rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard"),
        *("chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand"),
        *("path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge"),
        *("bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove"),
        *("palm", "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus"),
        *("towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth"),
        *("television receiver", "airplane"),
        *("dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster"),
        *("stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool"),
        *("stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food"),
        *("step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen"),
        *("blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier"),
        *("crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag"),
    )
    palette = (
        *((120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80)),
        *((140, 140, 140), (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7)),
        *((150, 5, 61), (120, 120, 70), (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4)),
        *((255, 51, 7), (204, 70, 3), (0, 102, 200), (61, 230, 250), (255, 6, 51), (11, 102, 255)),
        *((255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220), (255, 9, 92), (112, 9, 255)),
        *((8, 255, 214), (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10), (7, 255, 255)),
        *((224, 255, 8), (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20)),
        *((255, 8, 41), (255, 5, 153), (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255)),
        *((140, 140, 140), (250, 10, 15), (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0)),
        *((153, 255, 0), (0, 0, 255), (255, 71, 0), (0, 235, 255), (0, 173, 255), (31, 0, 255)),
        *((11, 200, 200), (255, 82, 0), (0, 255, 245), (0, 61, 255), (0, 255, 112), (0, 255, 133)),
        *((255, 0, 0), (255, 163, 0), (255, 102, 0), (194, 255, 0), (0, 143, 255), (51, 255, 0)),
        *((0, 82, 255), (0, 255, 41), (0, 255, 173), (10, 0, 255), (173, 255, 0), (0, 255, 153)),
        *((255, 92, 0), (255, 0, 255), (255, 0, 245), (255, 0, 102), (255, 173, 0), (255, 0, 20)),
        *((255, 184, 184), (0, 31, 255), (0, 255, 61), (0, 71, 255), (255, 0, 204), (0, 255, 194)),
        *((0, 255, 82), (0, 10, 255), (0, 112, 255), (51, 0, 255), (0, 194, 255), (0, 122, 255)),
        *((0, 255, 163), (255, 153, 0), (0, 255, 10), (255, 112, 0), (143, 255, 0), (82, 0, 255)),
        *((163, 255, 0), (255, 235, 0), (8, 184, 170), (133, 0, 255), (0, 255, 92), (184, 0, 255)),
        *((255, 0, 31), (0, 184, 255), (0, 214, 255), (255, 0, 112), (92, 255, 0), (0, 224, 255)),
        *((112, 224, 255), (70, 184, 160), (163, 0, 255), (153, 0, 255), (71, 255, 0), (255, 0, 163)),
        *((255, 204, 0), (255, 0, 143), (0, 255, 235), (133, 255, 0), (255, 0, 235), (245, 0, 255)),
        *((255, 0, 122), (255, 245, 0), (10, 190, 212), (214, 255, 0), (0, 204, 255), (20, 0, 255)),
        *((255, 255, 0), (0, 153, 255), (0, 41, 255), (0, 255, 204), (41, 0, 255), (41, 255, 0)),
        *((173, 0, 255), (0, 245, 255), (71, 0, 255), (122, 0, 255), (0, 255, 184), (0, 92, 255)),
        *((184, 255, 0), (0, 133, 255), (255, 214, 0), (25, 194, 194), (102, 255, 0), (92, 0, 255)),
    )
    expected_counts: Mapping[str, int] = {"train": 20210, "val": 2000, "test": 3352}
    submission = Submission("{stem}.png", tuple(range(1, 151)), "zip", "MIT Scene Parsing Benchmark, Evaluation server")
    layout = "images/training/ with annotations/training/, in ADEChallengeData2016/"

    def list_items(self) -> Iterable[Item]:
        """Pairs the split's images and annotations by their names."""
        if self.split == "test":
            folders = [join(place, "images/testing") for place in _PLACES]
            folders += [join(place, "release_test/testing") for place in ("", "ade")]
            folder = next((folder for folder in folders if (self.root / folder).is_dir()), None)
            if folder is None:
                raise not_found(
                    *("test images of ADE20K", self.root, "images/testing/ and release_test/testing/"),
                    "They come in an archive of their own; point to the folder that holds it.",
                )
            return self.pairs(folder, None)
        folder = _FOLDERS[self.split]
        marks = (f"images/{folder}", f"annotations/{folder}")
        place = locate(self.root, _PLACES, *marks)
        if place is None:
            raise not_found(
                *("ADE20K", self.root, f"{marks[0]}/ with {marks[1]}/, here and in ADEChallengeData2016/"),
                "Point to ADEChallengeData2016.",
            )
        return self.with_masks(list_files(self.root, join(place, marks[0]), IMAGE_SUFFIXES), join(place, marks[1]))

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the images and annotations of a split lie in `root` or in ADEChallengeData2016."""
        return any(
            locate(root, _PLACES, f"images/{folder}", f"annotations/{folder}") is not None
            for folder in _FOLDERS.values()
        )

    def label_map(self) -> Mapping[int, int]:
        """1..150 are the classes, 0 is void."""
        return {0: VOID, **{index + 1: index for index in range(len(self.classes))}}
