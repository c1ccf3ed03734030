"""CamVid, as released with SegNet and as released in Cambridge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from segcontext.data.dataset import VOID, Colour, Dataset, Item
from segcontext.data.files import IMAGE_SUFFIXES, list_files, what_lies_at
from segcontext.data.releases import pick, read_names
from segcontext.errors import DatasetNotFound

__all__ = ["CamVid"]

_STILLS, _APPROVED = "701_StillsRaw_full", "LabeledApproved_full"

# The colours of the 32 classes (label_colors.txt of the Cambridge release), each with its class among the 11.
_COLOURS: Mapping[str, tuple[Colour, ...]] = {
    "Sky": ((128, 128, 128),),
    # Archway, Bridge, Building, Tunnel, Wall
    "Building": ((192, 0, 128), (0, 128, 64), (128, 0, 0), (64, 0, 64), (64, 192, 0)),
    # Column_Pole, TrafficCone
    "Pole": ((192, 192, 128), (0, 0, 64)),
    # Road, LaneMkgsDriv, LaneMkgsNonDriv
    "Road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    # Sidewalk, ParkingBlock, RoadShoulder
    "Pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    # Tree, VegetationMisc
    "Tree": ((128, 128, 0), (192, 192, 0)),
    # SignSymbol, Misc_Text, TrafficLight
    "SignSymbol": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "Fence": ((64, 64, 128),),
    # Car, OtherMoving, SUVPickupTruck, Train, Truck_Bus
    "Car": ((64, 0, 128), (128, 64, 64), (64, 128, 192), (192, 64, 128), (192, 128, 192)),
    # Pedestrian, Animal, CartLuggagePram, Child
    "Pedestrian": ((64, 64, 0), (64, 128, 64), (64, 0, 192), (192, 128, 64)),
    # Bicyclist, MotorcycleScooter
    "Bicyclist": ((0, 128, 192), (192, 0, 192)),
}


class CamVid(Dataset):
    """Driving scenes of Cambridge, 11 classes.

    Brostow, Fauqueur, Cipolla, "Semantic object classes in video: A high-definition ground truth database", 2009;
    the reduction of its 32 classes to 11 and the 367 / 101 / 233 split are those of SegNet (arXiv:1511.00561).

    ```text
    SegNet's release, 480×360               the Cambridge release, 960×720
    root/                                   root/
    ├── train/  trainannot/                 ├── 701_StillsRaw_full/     0001TP_006690.png, …
    ├── val/    valannot/                   ├── LabeledApproved_full/   0001TP_006690_L.png, …
    └── test/   testannot/                  └── train.txt  val.txt  test.txt     may be left out
    ```

    In SegNet's release a label is one index per pixel, 11 is void, and only the folders of the split that is asked for
    need to be there. In the Cambridge release labels are colours, in palette PNGs too, black is void, and the split
    follows from the sequence and the number of a frame unless there are lists: of ``0001TP`` the frames up to 8520 are
    for training and the later ones for testing, of ``0016E5`` those from 7959 to 8159 for validation and the others for
    training, all of ``0006R0`` for training, and all of ``Seq05VD`` for testing.

    Args:
        root: the folder that holds ``train`` and ``trainannot``, or ``701_StillsRaw_full``.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the split's folders are not there.
        SampleError: if an image has no mask, or a listed one is not there.
        DataError: if a list is wrong.
    """

    name = "camvid"
    classes = tuple(_COLOURS)
    palette = (
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
        *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    )
    expected_counts: Mapping[str, int] = {"train": 367, "val": 101, "test": 233}
    palette_colours = True
    layout = f"train/ with trainannot/ (480×360), or {_STILLS}/ with {_APPROVED}/ (960×720)"

    def list_items(self) -> Iterable[Item]:
        """Pairs ``train`` with ``trainannot``, and so on, or the frames of the split with their colour labels."""
        images, masks = self.root / self.split, self.root / f"{self.split}annot"
        if images.is_dir() and masks.is_dir():
            return self.pairs(self.split, f"{self.split}annot")
        if not ((self.root / _STILLS).is_dir() and (self.root / _APPROVED).is_dir()):
            raise DatasetNotFound(
                f"No split '{self.split}' of CamVid at {self.root}: expected the folders {images.name}/ and "
                f"{masks.name}/ in it, or {_STILLS}/ and {_APPROVED}/. {what_lies_at(self.root)} "
                "Point to the folder that holds them, or choose a split whose folders are there."
            )
        self.colours = {
            **{colour: index for index, colours in enumerate(_COLOURS.values()) for colour in colours},
            (0, 0, 0): VOID,
        }
        frames = list_files(self.root, _STILLS, IMAGE_SUFFIXES)
        listing = self.root / f"{self.split}.txt"
        names = read_names(listing) if listing.is_file() else [name for name in frames if _split(name) == self.split]
        return self.with_masks(pick(names, frames, self.root / _STILLS), _APPROVED, ending="_L")

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether an image folder and its ``annot`` folder lie in `root`, or the two of the Cambridge release."""
        pairs = [(split, f"{split}annot") for split in cls.splits]
        return any(
            (root / images).is_dir() and (root / masks).is_dir() for images, masks in (*pairs, (_STILLS, _APPROVED))
        )

    def label_map(self) -> Mapping[int, int]:
        """Each class index means itself; 255 is void, and in SegNet's release 11 is."""
        return super().label_map() if self.colours else {**super().label_map(), len(self.classes): VOID}


def _split(frame: str) -> str | None:
    """The split that SegNet put a frame in, or `None` for a frame of another sequence."""
    sequence, _, place = frame.partition("_")
    number = int(place.removeprefix("f")) if place.removeprefix("f").isdecimal() else -1
    if number < 0:
        return None
    if sequence == "0001TP":
        return "train" if number <= 8520 else "test"
    if sequence == "0016E5":
        return "val" if 7959 <= number <= 8159 else "train"
    return {"0006R0": "train", "Seq05VD": "test"}.get(sequence)
