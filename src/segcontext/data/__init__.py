"""Data sets, augmentation, and the stream of training samples."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from segcontext.data.ade20k import ADE20K
from segcontext.data.balance import Frequencies, class_frequencies, class_weights
from segcontext.data.cache import PixelCache
from segcontext.data.camvid import CamVid
from segcontext.data.cityscapes import Cityscapes
from segcontext.data.coco_stuff import COCOStuff
from segcontext.data.coco_voc import COCOVOC
from segcontext.data.dataset import Dataset, Item, list_files, read_image, what_lies_at
from segcontext.data.folder import Folder
from segcontext.data.pascal_context import PascalContext, PascalContext60
from segcontext.data.scenes import Scenes
from segcontext.data.stream import Batch, Caught, Drawn, Failure, PositionBatches, TrainingStream, training_loader
from segcontext.data.transforms import Crop, TrainTransform
from segcontext.data.voc import VOC
from segcontext.errors import DatasetNotFound, RecipeError, nearest

__all__ = [
    "ADE20K",
    "COCOVOC",
    "DATASETS",
    "VOC",
    "Batch",
    "COCOStuff",
    "CamVid",
    "Caught",
    "Cityscapes",
    "Crop",
    "Dataset",
    "Drawn",
    "Failure",
    "Folder",
    "Frequencies",
    "Item",
    "PascalContext",
    "PascalContext60",
    "PixelCache",
    "PositionBatches",
    "Scenes",
    "TrainTransform",
    "TrainingStream",
    "class_frequencies",
    "class_weights",
    "dataset_class",
    "list_files",
    "open_dataset",
    "read_image",
    "training_loader",
]

logger = logging.getLogger(__name__)

DATASETS: tuple[type[Dataset], ...] = (
    *(CamVid, Cityscapes, ADE20K, VOC, PascalContext, PascalContext60, COCOStuff, COCOVOC),
    *(Folder, Scenes),
)


def open_dataset(
    data: str | Path, split: str = "train", *, dataset: str = "auto", cache: PixelCache | None = None
) -> Dataset:
    """Opens a data set by its folder.

    Args:
        data: the folder, or ``"demo"`` for the drawn scenes (``"./demo"`` is a folder of that name).
        split: one of the data set's splits.
        dataset: ``"auto"`` finds out which data set lies there; else its name (``"camvid"``, ``"cityscapes"``,
            ``"ade20k"``, ``"voc"``, ``"pascal_context_59"``, ``"pascal_context_60"``, ``"coco_stuff"``,
            ``"coco_voc"``, ``"folder"``, ``"scenes"``) or the dotted path of a `Dataset` subclass.
        cache: where decoded pixels are kept, see `PixelCache`; by default nowhere.

    Returns:
        The data set.

    Raises:
        DatasetNotFound: if nothing that is known lies there.
        RecipeError: if there is no such data set or split, or several data sets lie there.
        DataError: if what lies there is wrong.

    Example:
        >>> open_dataset("demo", "val").classes[:3]
        ('Sky', 'Building', 'Pole')
    """
    found = _opened(data, split, dataset)
    found.cache = cache
    if cache is not None and not any(item.image for item in found.items):
        logger.warning("%s draws its samples, and reads none from files: the pixel cache stays empty", found.name)
    return found


def _opened(data: str | Path, split: str, dataset: str) -> Dataset:
    if dataset != "auto":
        return dataset_class(dataset)(data, split)
    if data == "demo":
        return Scenes(split=split)
    root = Path(data)
    recognised = [kind for kind in DATASETS if kind.recognises(root)]
    if len(recognised) > 1:
        names = ", ".join(kind.name for kind in recognised)
        raise RecipeError(
            f"Several data sets lie in {root}: {names}. Say which with dataset={recognised[0].name}, for example, or "
            "point to the folder of one of them."
        )
    if recognised:
        return recognised[0](root, split)
    if not root.is_dir():
        raise DatasetNotFound(f"No folder {root}. {what_lies_at(root)} Check the path, or use 'demo'.\n{_layouts()}")
    raise DatasetNotFound(f"No known data set in {root}. {what_lies_at(root)}\n{_layouts()}")


def _layouts() -> str:
    """What the folders of the known data sets hold, a line for each."""
    lines = [f"  {kind.name:<18}{kind.layout}" for kind in DATASETS if kind.layout]
    return (
        "These are known by themselves; docs/data.md and docs/datasets.md draw them:\n"
        + "\n".join(lines)
        + "\nFor another layout name a Dataset subclass, such as dataset=my_package.MyData."
    )


def dataset_class(dataset: str) -> type[Dataset]:
    """The class of a data set.

    Args:
        dataset: its name, such as ``"camvid"``, or the dotted path of a `Dataset` subclass.

    Returns:
        The class.

    Raises:
        RecipeError: if there is no such class.
    """
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
