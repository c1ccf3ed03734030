"""Data sets that open although something is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import cast

from segcontext.data import Dataset, Folder, Item
from segcontext.data.class_entries import read_classes
from segcontext.data.files import IMAGE_SUFFIXES, MASK_SUFFIXES
from segcontext.doctor.classes_file import ClassLine
from segcontext.doctor.listing import lossy_twin, read_list, scan
from segcontext.doctor.survey import Split
from segcontext.errors import DataError

__all__ = ["Lenient", "LenientFolder", "lenient"]

_NONE = Item("", None, "")


class Lenient(Dataset):
    """Mixed into a data set's class: notes down what the class refuses, and keeps the samples that are left.

    Attributes:
        released: images per split in the published release.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.released: Mapping[str, int] = {}
        self._problems: list[str] = []
        self._unmasked: dict[str, str | None] = {}
        self._offered: dict[str, str] = {}
        self._known: set[str] = set()
        super().__init__(root, split)
        self.items = tuple(item for item in self.items if item != _NONE)

    @property
    def expected_counts(self) -> Mapping[str, int]:
        """Nothing, so that opening a split warns of nothing; the counts are compared later, for all splits."""
        return {}

    @expected_counts.setter
    def expected_counts(self, counts: Mapping[str, int]) -> None:
        self.released = counts

    def list_items(self) -> Iterable[Item]:
        """As the class does; where it refuses, what can be salvaged. It is never empty, so that the split opens."""
        try:
            # The class after this one is a complete data set, which a type checker cannot know.
            items = list(super().list_items())  # type: ignore[safe-super]
        except DataError as error:
            self._problems.append(str(error))
            items = list(self.salvage())
        return items or [_NONE]

    def salvage(self) -> Iterable[Item]:
        """The samples that are left after the class refused the split."""
        return ()

    def match(self, images: Mapping[str, str], masks: Mapping[str, str], expected: str) -> list[Item]:
        """As the class does, but images without a mask are noted down and kept."""
        self._known.update(images)
        self._offered.update(masks)
        for name, path in images.items():
            if name not in masks:
                self._unmasked[path] = lossy_twin(self.root, expected.replace("{}", name))
        return [Item(path, masks.get(name), name) for name, path in images.items()]

    def listing(self) -> Split:
        """What the split holds, and what was wrong with it."""
        return Split(
            name=self.split,
            items=self.items,
            problems=self._problems,
            unmasked=self._unmasked,
            offered=self._offered,
            known=frozenset(self._known),
        )


class LenientFolder(Lenient, Folder):
    """A folder of one's own, although lists name images that are not there, or files share their names.

    Attributes:
        lines: what the classes file says, void included.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self._wrong: tuple[tuple[str, ...], tuple[str, ...]] = (), ()
        self._clashes: tuple[tuple[str, str], ...] = ()
        super().__init__(root, split)
        self.lines = tuple(
            ClassLine(entry.value, entry.name, entry.name not in self.classes, entry.colour)
            for entry in read_classes(self.root)
        )

    @property
    def listed(self) -> bool:
        """Whether list files say what the splits are."""
        return bool(self._lists)

    def salvage(self) -> Iterable[Item]:
        """Pairs what lies there: by the list, as far as it is right, or the whole split."""
        below = f"/{self.split}" if self._nested else ""
        images = scan(self.root, f"images{below}", IMAGE_SUFFIXES)
        masks = scan(self.root, f"masks{below}", MASK_SUFFIXES)
        self._clashes = images.clashes + masks.clashes
        chosen = images.files
        if self._lists:
            chosen, *wrong = read_list(self._lists[self.split], images.files)
            self._wrong = (wrong[0], wrong[1])
        elif not self._nested and self.split != "all":
            # Which image is in which of these two is not decided here; "all" has every one of them.
            return ()
        return self.match(chosen, masks.files, f"masks{below}/{{}}.png")

    def listing(self) -> Split:
        """As for every data set, with the wrong lines of the list."""
        split = super().listing()
        split.wrong_lines, split.double_lines = self._wrong
        split.clashes = self._clashes
        if self._lists:
            # An image that no list names is still the image of its mask.
            split.known |= frozenset(scan(self.root, "images", IMAGE_SUFFIXES).files)
        return split


@lru_cache(maxsize=64)
def lenient(kind: type[Dataset]) -> type[Lenient]:
    """The class of a data set with `Lenient` mixed in.

    Args:
        kind: the class.

    Returns:
        A subclass of both.

    Example:
        >>> from segcontext.data import CamVid
        >>> lenient(CamVid).name, lenient(Folder) is LenientFolder
        ('camvid', True)
    """
    if kind is Folder:
        return LenientFolder
    return cast(type[Lenient], type(f"Lenient{kind.__name__}", (Lenient, kind), {}))
