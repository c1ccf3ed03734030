"""The file that names the classes of a folder of one's own."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segcontext.data.files import what_lies_at
from segcontext.data.masks import VOID, Colour
from segcontext.errors import DataError, DatasetNotFound

__all__ = ["CLASS_FILES", "VOID_NAMES", "ClassEntry", "as_colour", "read_classes"]

#: The names that the file may have.
CLASS_FILES = ("classes.txt", "classes.json", "classes.yaml", "classes.yml")
#: Names that are no class: pixels of their values are void.
VOID_NAMES = ("void", "ignore", "unlabelled", "ignored", "unlabeled")

_LINE = re.compile(r"(?:(?P<value>\d+)\s+)?(?P<name>.*?\S)(?:\s+(?P<colour>\d+\s+\d+\s+\d+))?")


class ClassEntry(NamedTuple):
    """A line of the file.

    Attributes:
        name: the class, or a word for void.
        value: what the masks hold for it, 0..255.
        colour: RGB, or `None` where the file gives none.
    """

    name: str
    value: int
    colour: Colour | None

    @property
    def is_void(self) -> bool:
        """Whether the name is a word for void, which is no class."""
        return self.name.lower() in VOID_NAMES


def read_classes(root: Path) -> list[ClassEntry]:
    """Reads the classes file of a folder.

    Args:
        root: the folder.

    Returns:
        Its entries, in their order, void among them.

    Raises:
        DatasetNotFound: there is no such file.
        DataError: it is no list of classes, or contradicts itself.
    """
    path = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if path is None:
        raise DatasetNotFound(
            f"No classes file in {root}: expected classes.txt with one class name per line, or classes.json or "
            f"classes.yaml. {what_lies_at(root)}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        parsed = _parse_lines(text) if path.suffix == ".txt" else _parse_objects(path, text)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a list of classes: {error}. {_CLASSES_ADVICE}") from error
    known = [(name, value) for name, value, _ in parsed if name.lower() not in VOID_NAMES]
    unvalued = [name for name, value in known if value is None]
    if not 0 < len(known) <= VOID:
        raise DataError(f"{path} names {len(known)} classes, expected 1..{VOID}. {_CLASSES_ADVICE}")
    if 0 < len(unvalued) < len(known):
        raise DataError(f"{path}: '{unvalued[0]}' has no value, others have. Give one to each class or to none.")
    order = count()
    entries = [ClassEntry(name, next(order) if value is None else value, colour) for name, value, colour in parsed]
    for number in (number for entry in entries for number in (entry.value, *(entry.colour or ()))):
        if not 0 <= number <= VOID:
            raise DataError(f"{path} holds the number {number}; values and colours are 0..{VOID}. {_CLASSES_ADVICE}")
    for field in ("name", "value"):
        twice = [item for item, times in Counter(getattr(entry, field) for entry in entries).items() if times > 1]
        if twice:
            raise DataError(f"{path} holds the {field} '{twice[0]}' twice; each class needs its own.")
    return entries


_CLASSES_ADVICE = "Write one class per line: `name`, `name r g b`, `value name` or `value name r g b`."


def _parse_lines(text: str) -> list[tuple[str, int | None, Colour | None]]:
    parsed: list[tuple[str, int | None, Colour | None]] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.partition("#")[0].strip())
        if match:
            value = int(match["value"]) if match["value"] else None
            parsed.append((match["name"], value, as_colour(match["colour"].split()) if match["colour"] else None))
    return parsed


def _parse_objects(path: Path, text: str) -> list[tuple[str, int | None, Colour | None]]:
    content: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if isinstance(content, Mapping):
        content = [{"name": name, "value": int(value)} for value, name in content.items()]
    parsed: list[tuple[str, int | None, Colour | None]] = []
    for entry in content:
        fields = entry if isinstance(entry, Mapping) else {"name": entry}
        colour, value = fields.get("colour", fields.get("color")), fields.get("value")
        if not isinstance(fields["name"], str):
            raise TypeError(f"the class name {fields['name']!r} is not text; put it into quotes")
        parsed.append((fields["name"], None if value is None else int(value), colour and as_colour(colour)))
    return parsed


def as_colour(channels: Iterable[Any]) -> Colour:
    """Three numbers as a colour; a `ValueError` for more or fewer, or for what is no number."""
    red, green, blue = (int(channel) for channel in channels)
    return red, green, blue
