"""What the readers of published releases share: where in a folder a release lies, and its lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from segcontext.data.files import what_lies_at
from segcontext.errors import DataError, DatasetNotFound, SampleError

__all__ = ["join", "locate", "not_found", "pick", "read_names", "steps"]


def join(*parts: str) -> str:
    """Joins relative paths, of which some may be empty.

    Args:
        parts: relative paths with ``/``.

    Returns:
        One relative path with ``/``.

    Example:
        >>> join("", "VOC2012", "JPEGImages")
        'VOC2012/JPEGImages'
    """
    return PurePosixPath(*parts).as_posix()


def steps(place: str) -> list[str]:
    """A folder and the folders around it.

    Args:
        place: relative path of a folder.

    Returns:
        Relative paths from `place` up to ``""``.

    Example:
        >>> steps("VOCdevkit/VOC2012")
        ['VOCdevkit/VOC2012', 'VOCdevkit', '']
    """
    path = PurePosixPath(place)
    return ["" if folder == PurePosixPath() else folder.as_posix() for folder in (path, *path.parents)]


def locate(root: Path, places: Iterable[str], *marks: str) -> str | None:
    """The first of some folders that holds all of some things.

    Args:
        root: the folder that the user named.
        places: folders relative to it; ``""`` is `root` itself.
        marks: folders or files relative to each place.

    Returns:
        The place, or `None`.

    Example:
        >>> locate(Path("nowhere"), ["", "VOC2012"], "JPEGImages") is None
        True
    """
    return next((place for place in places if all((root / place / mark).exists() for mark in marks)), None)


def not_found(name: str, root: Path, looked_for: str, advice: str) -> DatasetNotFound:
    """The error for a release that is not there, or not whole.

    Args:
        name: the data set's name.
        root: the folder that the user named.
        looked_for: what was looked for, in words.
        advice: what to do.

    Returns:
        The error, which also says what lies at `root`.
    """
    return DatasetNotFound(
        f"No {name} at {root}: looked for {looked_for}. {what_lies_at(root)} {advice} "
        "docs/datasets.md draws the layouts."
    )


def read_names(path: Path) -> list[str]:
    """Reads a list of images: the first word of each line, without folders and suffix.

    Args:
        path: the list.

    Returns:
        The names, in their order.

    Raises:
        DatasetNotFound: if there is no such file.
        DataError: if it is no text, or a name is listed twice.
    """
    if not path.is_file():
        raise DatasetNotFound(f"No list of images {path}. {what_lies_at(path.parent)} Fetch the release's lists.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of images: {error}. Expected one name per line.") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            name = PurePosixPath(line.split()[0]).stem
            if name in names:
                raise DataError(
                    f"{path} lists '{name}' in the lines {names[name]} and {number}; remove one of the two."
                )
            names[name] = number
    return list(names)


def pick(names: Iterable[str], found: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The listed ones of the images of a folder.

    Args:
        names: the names that are wanted.
        found: name to path, as `list_files` returns them.
        folder: where they were found; for the error.

    Returns:
        Name to path, in the order of `names`.

    Raises:
        SampleError: if a listed image is not there.
    """
    wanted = list(names)
    missing = [name for name in wanted if name not in found]
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise SampleError(
            f"{len(missing)} of {len(wanted)} listed images are not in {folder}: {shown}. "
            "Unpack the images again; the archive may not have been whole."
        )
    return {name: found[name] for name in wanted}
