"""Lists files as the readers of data sets do, but goes on where those stop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from segcontext.data.files import IMAGE_SUFFIXES

__all__ = ["Listed", "Scanned", "lossy_twin", "read_list", "scan"]

_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")


class Scanned(NamedTuple):
    """The files of a folder.

    Attributes:
        files: path below the folder without suffix, to path below the root.
        clashes: pairs of files that differ by their suffix alone; the first of each pair is among `files`.
    """

    files: dict[str, str]
    clashes: tuple[tuple[str, str], ...]


class Listed(NamedTuple):
    """What a list of images names.

    Attributes:
        chosen: name to path of the images that are there.
        missing: the lines that name none, with their numbers.
        twice: the lines that name an image for the second time, with their numbers.
    """

    chosen: dict[str, str]
    missing: tuple[str, ...]
    twice: tuple[str, ...]


def scan(root: Path, folder: str, suffixes: Iterable[str]) -> Scanned:
    """Lists the files of a folder and of the folders in it; hidden ones are passed over.

    Args:
        root: the data set's folder.
        folder: the folder to list, relative to it; it need not be there.
        suffixes: the suffixes to keep, in lower case.

    Returns:
        The files, sorted by name.

    Example:
        >>> scan(Path("nowhere"), "images", (".png",))
        Scanned(files={}, clashes=())
    """
    kept = tuple(suffixes)
    files: dict[str, str] = {}
    clashes = []
    top = root / folder
    for parent, folders, names in os.walk(top, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() not in kept:
                continue
            shown = f"{folder}/{path.relative_to(top).as_posix()}"
            other = files.setdefault(path.relative_to(top).with_suffix("").as_posix(), shown)
            if other != shown:
                clashes.append((other, shown))
    return Scanned(dict(sorted(files.items())), tuple(clashes))


def read_list(path: Path, images: Mapping[str, str]) -> Listed:
    """Reads a list of images, one name per line, as `Folder` does.

    Args:
        path: the list.
        images: name to path of the images that are there.

    Returns:
        What it names, and the lines that are wrong. A file that is no text has none.
    """
    chosen: dict[str, str] = {}
    missing, twice = [], []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return Listed({}, (f"{path.name} is no text",), ())
    for number, text in enumerate(lines, start=1):
        line = text.partition("#")[0].strip().removeprefix("images/")
        if not line:
            continue
        stem, dot, suffix = line.rpartition(".")
        name = stem if line not in images and dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else line
        if name not in images:
            missing.append(f"{path.name}, line {number}: {line}")
        elif name in chosen:
            twice.append(f"{path.name}, line {number}: {line}")
        else:
            chosen[name] = images[name]
    return Listed(chosen, tuple(missing), tuple(twice))


def lossy_twin(root: Path, mask: str) -> str | None:
    """The lossy file that lies where a mask is missing.

    Args:
        root: the data set's folder.
        mask: where the mask is expected, below the root.

    Returns:
        The path of a file of the same name below the root, or `None`.

    Example:
        >>> lossy_twin(Path("nowhere"), "masks/a.png") is None
        True
    """
    place = Path(mask)
    twins = (place.with_name(place.stem + suffix).as_posix() for suffix in _LOSSY_SUFFIXES)
    return next((path for path in twins if (root / path).is_file()), None)
