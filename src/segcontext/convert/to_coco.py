"""A data set as a COCO file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from rich.console import Console
from scipy import ndimage
from torch import Tensor

from segcontext.convert.outlines import trace_outlines
from segcontext.convert.rle import encode_rle
from segcontext.convert.running import Conversion, Failure, run_jobs
from segcontext.data import Dataset
from segcontext.errors import DataError, OutputExists
from segcontext.files import atomic_path

__all__ = ["Segments", "objects_of", "to_coco"]

Segments: TypeAlias = Literal["polygons", "rle"]


class _Settings(NamedTuple):
    dataset: Dataset
    segments: Segments
    background: int | None


def to_coco(
    dataset: Dataset,
    path: str | Path,
    *,
    segments: Segments = "polygons",
    background: str = "background",
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Conversion:
    """Writes the labels of a data set as a COCO file of objects.

    Every region of one class whose pixels are joined by their sides becomes an object: what touches is one. Categories
    are numbered from 1 in the order of the classes. Boxes and areas are those of the pixels. File names are relative
    to ``images`` in a folder of one's own, and to the root in other data sets.

    Note:
        Polygons follow the edges of the pixels, so nothing is lost. COCO's polygons cannot have holes; a region with
        holes is written as run-length encoding. Void pixels belong to no object, and there is no place for them in
        the file; where it is read again, they are background.

    Args:
        dataset: images with labels.
        path: the JSON file.
        segments: how regions are written: as ``polygons``, or all of them as ``rle``.
        background: the class that is no object, if there is one of that name.
        overwrite: whether a file that is there may be replaced.
        workers: processes; see `run_jobs`.
        progress: whether progress is shown.
        console: where it is shown.

    Returns:
        What was done; images without labels, and those that cannot be read, are failures.

    Raises:
        OutputExists: the file is there and `overwrite` is False.
        SampleError: not one image could be converted.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputExists(f"{target} is already there. Choose another name, or allow overwriting (--overwrite).")
    ground = dataset.classes.index(background) if background in dataset.classes else None
    things = [index for index in range(len(dataset.classes)) if index != ground]
    numbers = {index: number for number, index in enumerate(things, start=1)}
    settings = _Settings(dataset, segments, ground)
    described, failures = run_jobs(
        _describe, settings, range(len(dataset)), workers=workers, console=console, progress=progress
    )
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, found in enumerate(described, start=1):
        images.append({"id": number, **found["image"]})
        for each in found["objects"]:
            category = numbers[each.pop("index")]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, **each, "iscrowd": 0}
            )
    content = {
        "info": {"description": f"{dataset.name}, split {dataset.split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": numbers[index], "name": dataset.classes[index]} for index in things],
    }
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return Conversion(target, tuple(dataset.classes[index] for index in things), len(images), failures)


def objects_of(labels: Any, classes: int, *, segments: Segments, skip: int | None = None) -> list[dict[str, Any]]:
    """The regions of a mask as COCO's objects.

    Args:
        labels: class indices, (H, W); other values belong to no object.
        classes: how many classes there are.
        segments: how regions are written.
        skip: a class that is left out.

    Returns:
        For each region its class (``index``), ``segmentation``, ``area`` in pixels, and ``bbox``: left, top, width,
        height.

    Example:
        >>> objects_of(np.array([[1, 0], [1, 0]]), 2, segments="polygons", skip=0)
        [{'index': 1, 'segmentation': [[0, 0, 1, 0, 1, 2, 0, 2]], 'area': 2, 'bbox': [0, 0, 1, 2]}]
    """
    values = np.asarray(labels)
    found = []
    for index in range(classes):
        regions, _ = ndimage.label(values == index) if index != skip else (np.zeros_like(values), 0)
        for number, place in enumerate(ndimage.find_objects(regions), start=1):
            rows, columns = place
            region = regions[place] == number
            found.append(
                {
                    "index": index,
                    "segmentation": _segmentation(region, rows.start, columns.start, values.shape, segments),
                    "area": int(region.sum()),
                    "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                }
            )
    return found


def _segmentation(region: Any, top: int, left: int, shape: tuple[int, ...], segments: Segments) -> Any:
    outlines = trace_outlines(region) if segments == "polygons" else []
    if len(outlines) == 1:
        return [[value for x, y in outlines[0] for value in (x + left, y + top)]]
    whole = np.zeros(shape, bool)
    whole[top : top + region.shape[0], left : left + region.shape[1]] = region
    return encode_rle(whole)


def _describe(settings: _Settings, index: int) -> dict[str, Any] | Failure:
    dataset = settings.dataset
    item = dataset.items[index]
    try:
        mask = dataset.read_mask(index)
    except DataError as error:
        return Failure(item.name, str(error))
    if mask is None:
        return Failure(item.name, "it has no labels.")
    labels = mask.as_subclass(Tensor).numpy()
    file = item.image.removeprefix("images/") if dataset.name == "folder" else item.image
    return {
        "image": {"file_name": file or item.name, "height": labels.shape[0], "width": labels.shape[1]},
        "objects": objects_of(labels, len(dataset.classes), segments=settings.segments, skip=settings.background),
    }
