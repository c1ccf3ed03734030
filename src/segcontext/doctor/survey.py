"""Which images, masks and classes a data set has, as far as its folder tells without opening an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from segcontext.data import Dataset, Folder, Item, Scenes
from segcontext.data.masks import Colour
from segcontext.doctor.classes_file import ClassLine
from segcontext.doctor.finding import Finding

__all__ = ["Pair", "Reading", "Split", "Survey", "join_pairs", "role"]


class Reading(NamedTuple):
    """How the files of a split are read.

    Attributes:
        root: the data set's folder.
        classes: how many classes there are; 0 where that is not known.
        label_map: raw mask values to class indices, 255 for void.
        colours: RGB colours to raw values, or `None`.
        palette_colours: whether the colours of palette masks count, too; otherwise their indices do.
        kind: for samples that only the data set itself can read, its class.
        split: and its split.
    """

    root: Path
    classes: int
    label_map: Mapping[int, int]
    colours: Mapping[Colour, int] | None = None
    palette_colours: bool = False
    kind: type[Dataset] | None = None
    split: str = ""


class Pair(NamedTuple):
    """An image with its mask.

    Attributes:
        name: the sample's name.
        image: path below the root, empty where the data set has no files.
        mask: likewise, or `None` where there is none.
        splits: the splits that hold it.
        reading: how it is read, as a position in the survey's `readings`.
        place: where it stands in its first split.
    """

    name: str
    image: str
    mask: str | None
    splits: tuple[str, ...]
    reading: int
    place: int


@dataclass(kw_only=True)
class Split:
    """A split as it was listed, and what was wrong with it.

    Attributes:
        name: the split's name.
        items: its samples.
        problems: why the data set's reader refuses it.
        unmasked: images that should have a mask and have none, each with the lossy file in its place, if there is one.
        offered: the masks that there were to choose from, by the names of their images.
        known: the names of all images that there were to choose from.
        wrong_lines: lines of its list that name no image.
        double_lines: lines of its list that name an image for the second time.
        clashes: pairs of files that differ by their suffix alone.
    """

    name: str
    items: Sequence[Item]
    problems: Sequence[str] = ()
    unmasked: Mapping[str, str | None] = field(default_factory=dict)
    offered: Mapping[str, str] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    wrong_lines: Sequence[str] = ()
    double_lines: Sequence[str] = ()
    clashes: Sequence[tuple[str, str]] = ()


@dataclass(kw_only=True)
class Survey:
    """What lies in a data set's folder.

    Attributes:
        root: the folder.
        name: the data set's name in a recipe.
        classes: class names; empty where they are not known.
        palette: one colour per class.
        lines: of the classes file; none where there is no such file.
        splits: the splits, in the data set's order; those that are not there are left out.
        pairs: every image once, with the splits that hold it.
        readings: how the pairs are read.
        released: images per split in the published release.
        listed: whether list files say what the splits are.
        findings: what is wrong with the layout itself, where no reader opens it.
    """

    root: Path
    name: str
    splits: Sequence[Split]
    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()
    lines: Sequence[ClassLine] = ()
    pairs: Sequence[Pair] = ()
    readings: Sequence[Reading] = ()
    released: Mapping[str, int] = field(default_factory=dict)
    listed: bool = False
    findings: Sequence[Finding] = ()

    @property
    def own_folder(self) -> bool:
        """Whether it is a folder of one's own, whose classes and lists can be written anew."""
        return self.name == Folder.name

    @property
    def place(self) -> str:
        """Where it lies, as a recipe's ``data`` says it."""
        return "demo" if self.name == Scenes.name else str(self.root)

    def label_map(self) -> Mapping[int, int]:
        """Raw mask values to class indices; empty where the classes are not known."""
        return next((reading.label_map for reading in self.readings if reading.label_map), {})


def join_pairs(splits: Iterable[Split], *, readings: Sequence[int]) -> list[Pair]:
    """Every image with its mask once, however many splits hold it.

    Args:
        splits: the splits.
        readings: how each of them is read, as positions.

    Returns:
        The pairs, in the order of the splits.

    Example:
        >>> item = Item("images/a.jpg", "masks/a.png", "a")
        >>> splits = [Split(name="train", items=[item]), Split(name="all", items=[item])]
        >>> [pair.splits for pair in join_pairs(splits, readings=[0, 1])]
        [('train', 'all')]
    """
    found: dict[tuple[str, str | None], Pair] = {}
    for split, reading in zip(splits, readings, strict=True):
        for place, item in enumerate(split.items):
            # Samples that are no files are told apart by their names.
            key = (item.image or f"\0{item.name}", item.mask)
            pair = found.get(key) or Pair(item.name, item.image, item.mask, (), reading, place)
            found[key] = pair._replace(splits=(*pair.splits, split.name))
    return list(found.values())


def role(split: str) -> str | None:
    """What a split is for: ``train``, ``val`` or ``test``; `None` for one of several uses, such as trainval or all.

    Args:
        split: its name.

    Returns:
        The role.

    Example:
        >>> [role(split) for split in ("train", "trainaug", "validation", "trainval", "all")]
        ['train', 'train', 'val', None, None]
    """
    roles = [word for word in ("train", "val", "test") if word in split.lower()]
    return roles[0] if len(roles) == 1 else None
