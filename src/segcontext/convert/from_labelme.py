"""Masks from the shapes of labelme's files."""

from __future__ import annotations

import base64
import binascii
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console

from segcontext.convert.class_table import ClassTable, is_void, read_class_table
from segcontext.convert.drawing import Drawn, Overlap, draw
from segcontext.convert.from_coco import read_json
from segcontext.convert.running import Conversion, Failure, run_jobs
from segcontext.convert.target import FolderTarget
from segcontext.data.files import UNREADABLE, decode
from segcontext.data.masks import VOID
from segcontext.errors import DataError, SampleError

__all__ = ["from_labelme", "labelme_files"]

logger = logging.getLogger(__name__)

# What labelme's own example scripts call them.
_BACKGROUND, _IGNORED = "_background_", "__ignore__"
_POINT_RADIUS = 5.0


class _Settings(NamedTuple):
    target: FolderTarget
    classes: ClassTable
    background: str
    overlap: Overlap
    thickness: float
    images: Path | None


class _Job(NamedTuple):
    name: str
    path: Path


def from_labelme(
    source: str | Path,
    target: FolderTarget,
    *,
    images: str | Path | None = None,
    classes: str | Path | None = None,
    background: str = "background",
    overlap: Overlap = "later",
    line_width: float = 10.0,
    workers: int | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Conversion:
    """Draws the shapes of labelme's files (wkentaro/labelme) into index masks.

    Polygons, rectangles, circles, lines, line strips, points and masks are read. As in labelme, later shapes lie on
    top, lines are ten pixels wide and points five pixels in radius, ``_background_`` is the background, and
    ``__ignore__`` is void.

    Note:
        labelme paints each pixel that an outline touches; here a pixel belongs to what covers its centre.

    Args:
        source: a folder with JSON files, also in sub-folders, or one such file. JSON files of others are left out, and
            the log names them.
        target: where the masks go.
        images: the folder of the images; by default each file says where its image is, or holds it.
        classes: a list of classes; by default the labels that occur, in the order of the alphabet. Shapes with other
            labels than those of the list are background.
        background: the name of what no shape covers; ``void`` leaves it unlabelled.
        overlap: who has a pixel that several shapes cover: see `draw`.
        line_width: thickness of lines and line strips, in pixels.
        workers: processes; see `run_jobs`.
        progress: whether progress is shown.
        console: where it is shown.

    Returns:
        What was done.

    Raises:
        DataError: there is no file of labelme's, or a label is wrong.
        OutputExists: something of the target would be replaced.
        SampleError: not one image could be converted.
    """
    found = labelme_files(Path(source))
    jobs = [_Job(name, path) for name, path in found.items() if _names_shapes(path)]
    if not jobs:
        raise DataError(f"No labelme file in {source}: expected JSON files with 'shapes'.")
    others = sorted(set(found) - {job.name for job in jobs})
    if others:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        logger.warning("%s: left out %d JSON files that hold no 'shapes': %s", source, len(others), shown)
    table = _classes(jobs, classes, background)
    target.check(table, [job.name for job in jobs])
    settings = _Settings(target, table, background, overlap, line_width, None if images is None else Path(images))
    done, failures = run_jobs(_convert, settings, jobs, workers=workers, console=console, progress=progress)
    target.finish(table)
    return Conversion(target.folder, table.names, len(done), failures)


def labelme_files(source: Path) -> dict[str, Path]:
    """The JSON files of a folder and of the folders in it, or the one file.

    Args:
        source: the folder or file.

    Returns:
        Path below the folder without suffix, to the file; sorted.
    """
    if source.is_file():
        return {source.stem: source}
    found = sorted(path for path in source.rglob("*.json") if not path.name.startswith("."))
    return {path.relative_to(source).with_suffix("").as_posix(): path for path in found}


def _classes(jobs: Sequence[_Job], classes: str | Path | None, background: str) -> ClassTable:
    if classes is not None:
        table = read_class_table(Path(classes))
        if is_void(background) or background in table.meanings or _BACKGROUND in table.meanings:
            return table
        return table.with_background(background)
    labels = {str(shape.get("label")) for job in jobs for shape in _readable_shapes(job.path)}
    named = sorted(label for label in labels if label not in (_BACKGROUND, background) and not is_void(label))
    return ClassTable.of(named if is_void(background) else [background, *named])


def _readable_shapes(path: Path) -> list[Mapping[str, Any]]:
    """The shapes of a file; none where it cannot be read, which is said when it is converted."""
    try:
        return _shapes(path, read_json(path))
    except DataError:
        return []


def _names_shapes(path: Path) -> bool:
    """Whether it may be one of labelme's files; quicker than to parse it, since images may be embedded."""
    try:
        return b'"shapes"' in path.read_bytes()
    except OSError:
        # Said when it is converted.
        return True


def _shapes(path: Path, content: Any) -> list[Mapping[str, Any]]:
    shapes = content.get("shapes") if isinstance(content, Mapping) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, Mapping) for shape in shapes):
        raise DataError(f"{path} is no labelme file: expected a list of 'shapes'.")
    return shapes


def _convert(settings: _Settings, job: _Job) -> Failure | None:
    try:
        content = read_json(job.path)
        image = _image(settings, job, content)
        height, width = _size(job, content, image)
        objects = list(_objects(settings, _shapes(job.path, content)))
        ground = _index(settings, _BACKGROUND)
        labels = draw(objects, height, width, background=VOID if ground is None else ground, overlap=settings.overlap)
        settings.target.write(job.name, labels, settings.classes, image)
    except DataError as error:
        return Failure(job.name, str(error))
    return None


def _image(settings: _Settings, job: _Job, content: Mapping[str, Any]) -> Path | bytes | None:
    """The image, as a file or as it is embedded."""
    named = str(content.get("imagePath") or "").replace("\\", "/")
    place = job.path.parent / named if settings.images is None else settings.images / PurePosixPath(named).name
    if named and place.is_file():
        return place
    if settings.images is None and content.get("imageData"):
        try:
            return base64.b64decode(content["imageData"])
        except (binascii.Error, ValueError, TypeError) as error:
            raise DataError(f"{job.path}: the embedded image cannot be decoded: {error}.") from error
    if settings.target.image_files == "none":
        return None
    raise SampleError(
        f"{job.path} has no image: {place} is not there. Say where images are (--images FOLDER), or make masks alone "
        "(--image_files none)."
    )


def _size(job: _Job, content: Mapping[str, Any], image: Path | bytes | None) -> tuple[int, int]:
    """Height and width; the file's own, checked against the image."""
    said = tuple(content.get(key) for key in ("imageHeight", "imageWidth"))
    if isinstance(image, Path):
        width, height = decode(image).size
    elif image is not None:
        try:
            with Image.open(io.BytesIO(image)) as embedded:
                width, height = embedded.size
        except UNREADABLE as error:
            raise DataError(f"{job.path}: the embedded image cannot be decoded: {error}.") from error
    elif all(isinstance(side, int) and side > 0 for side in said):
        height, width = said  # type: ignore[assignment]
    else:
        raise DataError(f"{job.path} does not say how large its image is: expected imageHeight and imageWidth.")
    if None not in said and said != (height, width):
        raise SampleError(f"{job.path} says {said[1]}×{said[0]} pixels, its image is {width}×{height}.")
    return height, width


def _index(settings: _Settings, label: str) -> int | None:
    """The class of a label; `None` for one that is not wanted."""
    if label == _IGNORED or is_void(label):
        return VOID
    meanings = settings.classes.meanings
    if label == _BACKGROUND and label not in meanings:
        return VOID if is_void(settings.background) else meanings[settings.background]
    return meanings.get(label)


def _objects(settings: _Settings, shapes: Iterable[Mapping[str, Any]]) -> Iterable[Drawn]:
    for shape in shapes:
        index = _index(settings, str(shape.get("label")))
        if index is None:
            index = _index(settings, _BACKGROUND)
        assert index is not None, "the background is a class or void"
        try:
            yield _drawn(shape, index, settings.thickness)
        except (KeyError, TypeError, ValueError, IndexError, binascii.Error, *UNREADABLE) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the shape '{shape.get('label')}' is wrong: {error!r}.") from error


def _drawn(shape: Mapping[str, Any], index: int, thickness: float) -> Drawn:
    points = [(float(x), float(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    if kind in ("polygon", "rectangle", "oriented_rectangle"):
        return Drawn(index, "polygons", [[value for point in points for value in point]])
    if kind == "circle":
        centre, edge = points
        return Drawn(index, "disc", (centre, float(np.hypot(edge[0] - centre[0], edge[1] - centre[1]))))
    if kind in ("line", "linestrip"):
        return Drawn(index, "stroke", (points, thickness))
    if kind == "point":
        return Drawn(index, "disc", (points[0], _POINT_RADIUS))
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
            patch = np.asarray(image.convert("L")) > 0
        return Drawn(index, "patch", (patch, round(points[0][1]), round(points[0][0])))
    raise DataError(
        f"the shape '{shape.get('label')}' is a {kind}; expected polygon, rectangle, circle, line, linestrip, point or "
        "mask."
    )
