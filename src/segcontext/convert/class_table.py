"""Class names and colours, read from the lists that people keep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segcontext.data.class_entries import VOID_NAMES
from segcontext.data.masks import VOID, Colour
from segcontext.errors import DataError
from segcontext.pictures import default_palette

__all__ = ["ClassTable", "is_void", "read_class_table"]

_VOID_NAMES = (*VOID_NAMES, "__ignore__")
_GAP = r"\s*[,;\s]\s*"
_NUMBERS = rf"(?P<r>\d+){_GAP}(?P<g>\d+){_GAP}(?P<b>\d+)"
# As a classes file holds it: numbers may begin and end the name.
_WHOLE = re.compile(r"\d+\s+(?P<name>.*?\S)\s+(?P<r>\d+)\s+(?P<g>\d+)\s+(?P<b>\d+)")
_COLOUR_FIRST = re.compile(rf"{_NUMBERS}{_GAP}(?P<name>\D.*)")
_NAME_FIRST = re.compile(rf"(?:\d+{_GAP})?(?P<name>.*?[^\s,;])(?:{_GAP}{_NUMBERS})?")
_HEADER = re.compile(rf"(?:name|class|label)\w*{_GAP}r\w*{_GAP}g\w*{_GAP}b\w*", re.IGNORECASE)


class ClassTable(NamedTuple):
    """The classes of a conversion.

    Attributes:
        names: one name per class, in the order of their indices.
        palette: one colour per class.
        meanings: class names, names for void and their indices; 255 for void.
        colours: the colours that stand for classes or void, where the list gives any.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    meanings: dict[str, int]
    colours: dict[Colour, int]

    @classmethod
    def of(cls, names: Sequence[str]) -> ClassTable:
        """The table of some names alone; those that mean void are no classes.

        Args:
            names: class names; a name that comes again is the same class.

        Returns:
            The table.

        Raises:
            DataError: if there is no class, or there are more than 255.

        Example:
            >>> ClassTable.of(["sky", "void", "car"]).meanings
            {'sky': 0, 'void': 255, 'car': 1}
        """
        return _table([(name, None) for name in names], "The list of classes")

    def with_background(self, name: str) -> ClassTable:
        """The same classes after one more; colours and names for void stay.

        Args:
            name: of the class that comes first; it gets a colour that is free.

        Returns:
            The table.

        Raises:
            DataError: if there are more than 255 classes then.

        Example:
            >>> ClassTable.of(["car", "void"]).with_background("ground").meanings
            {'ground': 0, 'car': 1, 'void': 255}
        """
        if len(self.names) == VOID:
            raise DataError(f"With '{name}' there are {VOID + 1} classes; masks of 8 bits hold {VOID}. Leave one out.")
        taken = {*self.palette, *self.colours}
        free = next(colour for colour in default_palette(len(taken) + 1) if colour not in taken)

        def moved(index: int) -> int:
            return index if index == VOID else index + 1

        return ClassTable(
            (name, *self.names),
            (free, *self.palette),
            {name: 0, **{known: moved(index) for known, index in self.meanings.items()}},
            {colour: moved(index) for colour, index in self.colours.items()},
        )

    def text(self) -> str:
        """The lines of a classes file: value, name and colour, so that names may begin or end with numbers.

        Raises:
            DataError: if a name cannot stand on such a line.
        """
        for name in self.names:
            if name.strip() != name or name.splitlines() != [name] or "#" in name:
                raise DataError(
                    f"The class {name!r} cannot stand in classes.txt, where each line holds one name and # begins a "
                    "comment. Rename it where the labels come from, without #, line breaks and spaces around it."
                )
        lines = zip(self.names, self.palette, strict=True)
        return "".join(f"{value} {name} {r} {g} {b}\n" for value, (name, (r, g, b)) in enumerate(lines))


def is_void(name: str) -> bool:
    """Whether a class of this name is none.

    Example:
        >>> is_void("Unlabelled"), is_void("sky")
        (True, False)
    """
    return name.lower() in _VOID_NAMES


def read_class_table(path: Path) -> ClassTable:
    """Reads a list of classes, one per line, with or without colours.

    A line is ``name``, ``name r g b``, ``value name r g b`` or ``r g b name``, parted by spaces, tabs, commas or
    semicolons; so a classes file, a CSV file with a header, and CamVid's ``label_colors.txt`` are all read. ``#``
    begins a comment. Values are passed over: the order of the lines gives the indices. Several lines may give one name
    several colours. The name void (or ignore, unlabelled) is no class.

    Args:
        path: the list.

    Returns:
        The table. Classes without a colour get one.

    Raises:
        DataError: if it cannot be read, holds a wrong colour or the same colour twice, or names no class.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of classes: {error}. Expected one class per line.") from error
    entries: list[tuple[str, Colour | None]] = []
    for number, text in enumerate(lines, start=1):
        line = text.partition("#")[0].strip()
        match = _WHOLE.fullmatch(line) or _COLOUR_FIRST.fullmatch(line) or _NAME_FIRST.fullmatch(line)
        if not match or _HEADER.fullmatch(line):
            continue
        colour = (int(match["r"]), int(match["g"]), int(match["b"])) if match["r"] else None
        if colour and max(colour) > VOID:
            raise DataError(f"{path}, line {number}: a colour is three numbers from 0 to 255, not {list(colour)}.")
        entries.append((match["name"].strip(), colour))
    return _table(entries, str(path))


def _table(entries: Sequence[tuple[str, Colour | None]], source: str) -> ClassTable:
    meanings: dict[str, int] = {}
    colours: dict[Colour, int] = {}
    own: dict[int, Colour] = {}
    known = list(dict.fromkeys(name for name, _ in entries if not is_void(name)))
    if not 0 < len(known) <= VOID:
        raise DataError(f"{source} names {len(known)} classes; masks of 8 bits hold 1 to {VOID}. Choose fewer classes.")
    indices = {name: index for index, name in enumerate(known)}
    for name, colour in entries:
        index = meanings.setdefault(name, indices.get(name, VOID))
        if colour is not None:
            if colours.setdefault(colour, index) != index:
                raise DataError(f"{source} gives the colour {colour} to two classes; each needs its own.")
            own.setdefault(index, colour)
    return ClassTable(tuple(known), _palette(len(known), own), meanings, colours)


def _palette(count: int, own: dict[int, Colour]) -> tuple[Colour, ...]:
    """The colours that are given, and others that are not among them."""
    spare = iter([colour for colour in default_palette(count + len(own)) if colour not in own.values()])
    return tuple(own[index] if index in own else next(spare) for index in range(count))
