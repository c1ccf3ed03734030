"""Data sets, augmentation, and the stream of training samples."""

from __future__ import annotations

import importlib
from pathlib import Path

from segcontext.data.balance import Frequencies, class_frequencies, class_weights
from segcontext.data.camvid import CamVid
from segcontext.data.dataset import Dataset, Item, list_files, read_image, what_lies_at
from segcontext.data.folder import Folder
from segcontext.data.scenes import Scenes
from segcontext.data.stream import Batch, Caught, Drawn, Failure, PositionBatches, TrainingStream, training_loader
from segcontext.data.transforms import Crop, TrainTransform
from segcontext.errors import DatasetNotFound, RecipeError, nearest

__all__ = [
    "DATASETS",
    "Batch",
    "CamVid",
    "Caught",
    "Crop",
    "Dataset",
    "Drawn",
    "Failure",
    "Folder",
    "Frequencies",
    "Item",
    "PositionBatches",
    "Scenes",
    "TrainTransform",
    "TrainingStream",
    "class_frequencies",
    "class_weights",
    "list_files",
    "open_dataset",
    "read_image",
    "training_loader",
]

DATASETS: tuple[type[Dataset], ...] = (CamVid, Folder, Scenes)

_LAYOUTS = """Two layouts are known by themselves:
  CamVid (SegNet release)         your own folder
  ├── train/  trainannot/         ├── classes.txt   one class name per line
  ├── val/    valannot/           ├── images/       a.jpg, b.jpg, …
  └── test/   testannot/          └── masks/        a.png, b.png, … one class index per pixel
For another layout name a Dataset subclass, such as dataset=my_package.MyData."""


def open_dataset(data: str | Path, split: str = "train", *, dataset: str = "auto") -> Dataset:
    """Opens a data set by its folder.

    Args:
        data: the folder, or ``"demo"`` for the drawn scenes (``"./demo"`` is a folder of that name).
        split: one of the data set's splits.
        dataset: ``"auto"`` finds out which data set lies there; else its name (``"camvid"``, ``"folder"``,
            ``"scenes"``) or the dotted path of a `Dataset` subclass.

    Returns:
        The data set.

    Raises:
        DatasetNotFound: if nothing that is known lies there.
        RecipeError: if there is no such data set or split.
        DataError: if what lies there is wrong.

    Example:
        >>> open_dataset("demo", "val").classes[:3]
        ('Sky', 'Building', 'Pole')
    """
    if dataset != "auto":
        return _dataset_class(dataset)(data, split)
    if data == "demo":
        return Scenes(split=split)
    root = Path(data)
    for kind in DATASETS:
        if kind.recognises(root):
            return kind(root, split)
    if not root.is_dir():
        raise DatasetNotFound(f"No folder {root}. {what_lies_at(root)} Check the path, or use 'demo'.\n{_LAYOUTS}")
    raise DatasetNotFound(f"No known data set in {root}. {what_lies_at(root)}\n{_LAYOUTS}")


def _dataset_class(dataset: str) -> type[Dataset]:
    named = {kind.name: kind for kind in DATASETS}
    if dataset in named:
        return named[dataset]
    module, _, attribute = dataset.rpartition(".")
    choices = ("auto", *named)
    if not module:
        raise RecipeError(
            f"No data set '{dataset}'; expected {', '.join(choices)}, or the dotted path of a Dataset subclass."
            f"{nearest(dataset, choices)}"
        )
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(
            f"dataset={dataset}: cannot import '{module}' ({error}). Install it, or put its folder on PYTHONPATH."
        ) from error
    kind = getattr(found, attribute, None)
    if kind is None:
        raise RecipeError(f"dataset={dataset}: '{module}' has no '{attribute}'.{nearest(attribute, vars(found))}")
    if not (isinstance(kind, type) and issubclass(kind, Dataset)):
        raise RecipeError(f"dataset={dataset}: '{attribute}' is no subclass of segcontext.data.Dataset.")
    return kind
