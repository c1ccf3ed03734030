"""CamVid, as released with SegNet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from segcontext.data.dataset import VOID, Dataset, Item, what_lies_at
from segcontext.errors import DatasetNotFound

__all__ = ["CamVid"]


class CamVid(Dataset):
    """Driving scenes of Cambridge at 480×360, 11 classes (SegNet release).

    Brostow, Fauqueur, Cipolla, "Semantic object classes in video: A high-definition ground truth database", 2009;
    the reduction to 11 classes and the 367 / 101 / 233 split are those of SegNet (arXiv:1511.00561).

    ```text
    root/
    ├── train/  trainannot/     images, PNG or JPEG, and labels, 8-bit PNG, one index per pixel
    ├── val/    valannot/
    └── test/   testannot/
    ```

    Raw label 11 is void. Only the folders of the split that is asked for need to be there.

    Args:
        root: the folder that holds ``train`` and ``trainannot``.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        RecipeError: if there is no such split.
        DatasetNotFound: if the split's folders are not there.
        SampleError: if an image has no mask.
    """

    name = "camvid"
    classes = (
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
        *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    )
    palette = (
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
        *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    )
    expected_counts: Mapping[str, int] = {"train": 367, "val": 101, "test": 233}

    def list_items(self) -> Iterable[Item]:
        """Pairs ``train`` with ``trainannot``, and so on."""
        images, masks = self.root / self.split, self.root / f"{self.split}annot"
        if not (images.is_dir() and masks.is_dir()):
            raise DatasetNotFound(
                f"No split '{self.split}' of CamVid at {self.root}: expected the folders {images.name}/ and "
                f"{masks.name}/ in it. {what_lies_at(self.root)} Point to the folder that holds them, or choose a "
                "split whose folders are there."
            )
        return self.pairs(self.split, f"{self.split}annot")

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether an image folder and its ``annot`` folder lie in `root`."""
        return any((root / split).is_dir() and (root / f"{split}annot").is_dir() for split in cls.splits)

    def label_map(self) -> Mapping[int, int]:
        """Each class index means itself; 11 and 255 are void."""
        return {**super().label_map(), len(self.classes): VOID}
