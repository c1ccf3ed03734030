"""Tells what a file or folder is, so that it need not be said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from segcontext.convert.from_coco import read_json
from segcontext.convert.from_labelme import labelme_files
from segcontext.data.files import IMAGE_SUFFIXES, what_lies_at
from segcontext.errors import DataError, DatasetNotFound

__all__ = ["Kind", "kind_of"]

Kind: TypeAlias = Literal["coco", "labelme", "colours", "dataset"]

# Of the JSON files of a folder, which may also hold settings and the like, so many are looked at.
_LOOKED_AT = 50


def kind_of(source: str | Path, to: str | Path) -> Kind:
    """What a source is, by its content and by what it is converted to.

    Args:
        source: a file or folder.
        to: what it is converted to; a path with the suffix ``.json`` stands for a COCO file.

    Returns:
        ``coco`` or ``labelme`` files, masks in ``colours``, or a ``dataset``.

    Raises:
        DatasetNotFound: if there is nothing, or nothing that is known.
        DataError: if it is a JSON file of another kind.

    Example:
        >>> kind_of("FOLDER", "objects.json")
        'dataset'
    """
    path = Path(source)
    if Path(to).suffix.lower() == ".json":
        return "dataset"
    if path.is_file() and path.suffix.lower() == ".json":
        kind = _kind(read_json(path))
        if kind is not None:
            return kind
        raise DataError(f"{path} is neither of COCO ('images', 'annotations', 'categories') nor labelme ('shapes').")
    if not path.is_dir():
        raise DatasetNotFound(f"There is no file or folder {path}. {what_lies_at(path)} Check the path.")
    kind, named = _kind_of_files(islice(labelme_files(path).values(), _LOOKED_AT))
    if kind == "coco":
        raise DataError(f"{path} holds COCO files such as {named}: name the one that is to be converted.")
    if kind is not None:
        return kind
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
        return "colours"
    raise DatasetNotFound(
        f"{path} holds nothing that can be converted: expected a COCO file, labelme files, or masks in colours. "
        f"{what_lies_at(path)}"
    )


def _kind_of_files(files: Iterable[Path]) -> tuple[Kind | None, str]:
    """What the JSON files of a folder are, and the name of one; labelme's count before COCO's."""
    found: dict[Kind | None, str] = {}
    damaged: DataError | None = None
    for file in files:
        try:
            found.setdefault(_kind(read_json(file)), file.name)
        except DataError as error:
            damaged = damaged or error
        if "labelme" in found:
            return "labelme", found["labelme"]
    if damaged is not None and not found:
        raise damaged
    return ("coco", found["coco"]) if "coco" in found else (None, "")


def _kind(content: Any) -> Kind | None:
    if isinstance(content, Mapping) and "shapes" in content:
        return "labelme"
    return "coco" if isinstance(content, Mapping) and "annotations" in content else None
