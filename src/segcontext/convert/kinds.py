"""Tells what a file or folder is, so that it need not be said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from segcontext.convert.from_coco import read_json
from segcontext.convert.from_labelme import labelme_files
from segcontext.data.files import IMAGE_SUFFIXES, what_lies_at
from segcontext.errors import DataError, DatasetNotFound

__all__ = ["Kind", "kind_of"]

Kind: TypeAlias = Literal["coco", "labelme", "colours", "dataset"]


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
        content = read_json(path)
        if isinstance(content, Mapping) and "shapes" in content:
            return "labelme"
        if isinstance(content, Mapping) and "annotations" in content:
            return "coco"
        raise DataError(f"{path} is neither of COCO ('images', 'annotations', 'categories') nor labelme ('shapes').")
    if not path.is_dir():
        raise DatasetNotFound(f"There is no file or folder {path}. {what_lies_at(path)} Check the path.")
    first = next(iter(labelme_files(path).values()), None)
    if first is not None:
        content = read_json(first)
        if isinstance(content, Mapping) and "shapes" in content:
            return "labelme"
        if isinstance(content, Mapping) and "annotations" in content:
            raise DataError(f"{path} holds COCO files such as {first.name}: name the one that is to be converted.")
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
        return "colours"
    raise DatasetNotFound(
        f"{path} holds nothing that can be converted: expected a COCO file, labelme files, or masks in colours. "
        f"{what_lies_at(path)}"
    )
