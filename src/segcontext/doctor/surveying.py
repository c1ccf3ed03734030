"""Surveys a data set: opens every split that is there, however much is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segcontext.data import DATASETS, Dataset, Folder, Scenes, dataset_class, open_dataset
from segcontext.data.masks import VOID
from segcontext.doctor.lenient import Lenient, LenientFolder, lenient
from segcontext.doctor.loose import survey_loose
from segcontext.doctor.survey import Reading, Survey, join_pairs
from segcontext.errors import DataError, DatasetNotFound, RecipeError

__all__ = ["survey_dataset"]


def survey_dataset(data: str | Path, dataset: str = "auto") -> Survey:
    """Lists the images, masks and classes of a data set, or of a folder that is meant to be one.

    Args:
        data: its folder, or ``"demo"``.
        dataset: as for `open_dataset`.

    Returns:
        The survey.

    Raises:
        RecipeError: if there is no such data set, or several lie there.
        DatasetNotFound: if there is no such folder, or nothing in it looks like a data set.
        DataError: if the folder does not hold the data set that is named.

    Example:
        >>> [split.name for split in survey_dataset("demo").splits]
        ['train', 'val', 'test']
    """
    kind = _kind(data, dataset)
    root = Path() if kind is Scenes else Path(data)
    if kind is None:
        return survey_loose(root)
    try:
        opened = _open(kind, root)
    except DataError:
        if kind is Folder and root.is_dir():
            return survey_loose(root)
        raise
    listings = [split.listing() for split in opened]
    # Published data sets are rarely there with all their splits.
    there = [place for place, split in enumerate(listings) if split.items or kind is Folder]
    if not there:
        raise DatasetNotFound(next((text for split in listings for text in split.problems), f"No {kind.name} there."))
    first = opened[there[0]]
    splits = [listings[place] for place in there]
    return Survey(
        root=root,
        name=kind.name,
        splits=splits,
        classes=tuple(first.classes),
        palette=tuple(first.palette),
        lines=first.lines if isinstance(first, LenientFolder) else (),
        pairs=join_pairs(splits, readings=range(len(there))),
        readings=[_reading(opened[place], kind) for place in there],
        # Which release it is may be known only once it is open.
        released=first.released or kind.expected_counts,
        listed=isinstance(first, LenientFolder) and first.listed,
    )


def _kind(data: str | Path, dataset: str) -> type[Dataset] | None:
    if dataset != "auto":
        return dataset_class(dataset)
    if data == "demo":
        return Scenes
    recognised = [kind for kind in DATASETS if kind.recognises(Path(data))]
    if len(recognised) > 1 or not Path(data).is_dir():
        # It has the words for these errors.
        open_dataset(data)
    return recognised[0] if recognised else None


def _open(kind: type[Dataset], root: Path) -> Sequence[Lenient]:
    """Every split that the data set may have in this folder."""
    lists = [path.stem for folder in (root / "splits", root) if folder.is_dir() for path in folder.glob("*.txt")]
    nested = [path.name for path in (root / "images").glob("*") if path.is_dir()]
    # Which splits a folder of one's own has is known once one of them is open.
    for split in dict.fromkeys((*kind.splits, "all", *sorted(lists), *sorted(nested))):
        try:
            first = lenient(kind)(root, split)
        except RecipeError:
            continue
        return [first if name == split else lenient(kind)(root, name) for name in first.splits]
    raise DatasetNotFound(f"{kind.name} at {root} has no split that can be opened.")


def _reading(split: Lenient, kind: type[Dataset]) -> Reading:
    classes = len(split.classes)
    if kind.__getitem__ is Dataset.__getitem__ and kind.read_mask in (Dataset.read_mask, Folder.read_mask):
        # A split without labels may not know what its masks would hold.
        known = split.label_map() if any(item.mask is not None for item in split.items) else {}
        return Reading(split.root, classes, dict(known), split.colours, split.palette_colours)
    # Such a data set gives class indices, whatever its files hold.
    indices = {**{index: index for index in range(classes)}, VOID: VOID}
    return Reading(split.root, classes, indices, kind=kind, split=split.split)
