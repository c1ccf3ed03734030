"""Masks from the objects of a COCO file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image, ImageOps
from rich.console import Console

from segcontext.convert.class_table import ClassTable, is_void, read_class_table
from segcontext.convert.drawing import Drawn, Overlap, draw
from segcontext.convert.running import Conversion, Failure, run_jobs
from segcontext.convert.target import FolderTarget
from segcontext.data.files import UNREADABLE
from segcontext.data.masks import VOID
from segcontext.errors import DataError, SampleError

__all__ = ["from_coco", "read_json"]


class _Job(NamedTuple):
    name: str
    image: Path | None
    height: int
    width: int
    objects: tuple[Drawn, ...]


class _Settings(NamedTuple):
    target: FolderTarget
    classes: ClassTable
    background: int
    overlap: Overlap


def from_coco(
    source: str | Path,
    target: FolderTarget,
    *,
    images: str | Path | None = None,
    classes: str | Path | None = None,
    background: str = "background",
    overlap: Overlap = "smaller",
    workers: int | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Conversion:
    """Draws the objects of a COCO file (Lin et al., "Microsoft COCO", 2014) into index masks.

    Polygons and run-length encodings, compressed or not, are read. Categories become classes in the order of their
    numbers, after the background.

    Note:
        Where objects of different classes overlap, the smaller one is on top, since people label what is in front of
        a thing together with the thing. torchvision's references call such pixels void: ``overlap="void"``. Crowds are
        void, below all objects; torchvision leaves them background.

    Args:
        source: the JSON file, such as ``instances_val2017.json``.
        target: where the masks go.
        images: the folder that the file names are relative to; by default it is looked for around the file.
        classes: a list of classes: their order, and which categories are wanted; the others are background.
        background: the name of what no object covers; ``void`` leaves it unlabelled.
        overlap: who has a pixel that several objects cover: see `draw`.
        workers: processes; see `run_jobs`.
        progress: whether progress is shown.
        console: where it is shown.

    Returns:
        What was done, and how many objects belong to no image of the file.

    Raises:
        DataError: the file is none of COCO's, an image of it is not there, or no object belongs to any.
        OutputExists: something of the target would be replaced.
        SampleError: not one image could be converted.
    """
    path = Path(source)
    content = read_json(path)
    _check(path, content)
    table = _classes(content["categories"], classes, background)
    place = None if target.image_files == "none" else _images(path, images, content["images"])
    meanings = _meanings(content["categories"], table, background)
    objects = _objects(path, content["annotations"], meanings)
    jobs = list(_jobs(path, content["images"], place, objects))
    lost = _lost(path, content["images"], objects)
    target.check(table, [job.name for job in jobs])
    ground = VOID if is_void(background) else table.meanings[background]
    settings = _Settings(target, table, ground, overlap)
    done, failures = run_jobs(_convert, settings, jobs, workers=workers, console=console, progress=progress)
    target.finish(table)
    return Conversion(target.folder, table.names, len(done), failures, lost)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path: the file.

    Returns:
        What it holds.

    Raises:
        DataError: if it is not there or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error


def _check(path: Path, content: Any) -> None:
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if missing:
        raise DataError(f"{path} is no COCO file: expected lists of {', '.join(keys)}; missing {', '.join(missing)}.")
    if not content["categories"]:
        raise DataError(f"{path} has no categories, so its objects have no classes.")
    annotations = content["annotations"]
    if annotations and not any("segmentation" in each for each in annotations):
        kind = (
            "is of the panoptic kind, whose labels are PNGs" if "segments_info" in annotations[0] else "has boxes only"
        )
        raise DataError(f"{path} {kind}: expected annotations with 'segmentation', polygons or run-length encodings.")


def _classes(categories: Sequence[Any], classes: str | Path | None, background: str) -> ClassTable:
    """The classes that are wanted, background first unless the list places it."""
    if classes is not None:
        table = read_class_table(Path(classes))
        if is_void(background) or background in table.meanings:
            return table
        # A list of the things alone.
        return table.with_background(background)
    try:
        names = [str(each["name"]) for each in sorted(categories, key=lambda each: int(each["id"]))]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"A category has no id or name: {error!r}.") from error
    return ClassTable.of(names if is_void(background) else [background, *names])


def _meanings(categories: Sequence[Any], table: ClassTable, background: str) -> dict[int, int | None]:
    """Category number to class index, 255 for void, `None` for those that are not wanted."""
    found = {int(each["id"]): table.meanings.get(str(each["name"])) for each in categories}
    if table.names and all(index is None for index in found.values()):
        shown = ", ".join(str(each["name"]) for each in categories[:8])
        raise DataError(f"The list of classes names none of the categories, which are: {shown}.")
    return {number: VOID if index is None and is_void(background) else index for number, index in found.items()}


def _images(path: Path, images: str | Path | None, entries: Sequence[Any]) -> Path:
    """The folder that holds the images."""
    around = [path.parent, path.parent.parent]
    nested = [folder / name for folder in around for name in ("images", "train2017", "val2017", "train2014", "val2014")]
    places = [Path(images)] if images is not None else [*around, *nested]
    wanted = [str(entry.get("file_name", "")) for entry in entries]
    counts = [sum((place / name).is_file() for name in wanted[:20]) for place in places]
    best = places[counts.index(max(counts))]
    missing = [name for name in wanted if not (best / name).is_file()]
    if missing:
        raise SampleError(
            f"{len(missing)} of {len(wanted)} images of {path} are not in {best}: {', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}. Say where they are (--images FOLDER), or make masks alone "
            "(--image_files none)."
        )
    return best


def _objects(path: Path, entries: Sequence[Any], meanings: Mapping[int, int | None]) -> dict[Any, list[Drawn]]:
    """The objects that are wanted, by the number of their image."""
    found: defaultdict[Any, list[Drawn]] = defaultdict(list)
    for each in entries:
        try:
            drawn = _object(each, meanings[int(each["category_id"])])
            if drawn is not None:
                found[each["image_id"]].append(drawn)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: annotation {each.get('id')} is wrong: {error!r}.") from error
    return found


def _jobs(
    path: Path, entries: Sequence[Any], images: Path | None, objects: Mapping[Any, Sequence[Drawn]]
) -> Iterable[_Job]:
    for entry in entries:
        try:
            file, size = str(entry["file_name"]), (int(entry["height"]), int(entry["width"]))
            drawn = tuple(objects.get(entry["id"], ()))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: image {entry.get('id')} has no file name or size: {error!r}.") from error
        name = PurePosixPath(file.replace("\\", "/")).with_suffix("").as_posix()
        yield _Job(name, images and images / file, *size, drawn)


def _lost(path: Path, entries: Sequence[Any], objects: Mapping[Any, Sequence[Drawn]]) -> str:
    """A sentence on objects whose image is not in the file; an error where that are all."""
    there = {entry["id"] for entry in entries}
    strange = [number for number in objects if number not in there]
    if not strange:
        return ""
    count, total = sum(len(objects[number]) for number in strange), sum(map(len, objects.values()))
    shown = ", ".join(repr(number) for number in strange[:5]) + (", …" if len(strange) > 5 else "")
    text = f"{count} of {total} objects of {path} have an image_id that no image has: {shown}."
    if len(strange) == len(objects):
        given = ", ".join(repr(number) for number in list(there)[:5])
        raise DataError(f"{text} The images are numbered {given or 'not at all'}. Mend the numbers.")
    return f"{text} Mend the numbers, or take these objects out of the file."


def _object(each: Mapping[str, Any], index: int | None) -> Drawn | None:
    segmentation = each.get("segmentation")
    crowd = bool(each.get("iscrowd", 0))
    # Which category a crowd has does not matter, as long as it is one that is wanted.
    if not segmentation or index is None:
        return None
    kind = "rle" if isinstance(segmentation, Mapping) else "polygons"
    return Drawn(VOID if crowd else index, kind, segmentation, crowd)  # type: ignore[arg-type]


def _convert(settings: _Settings, job: _Job) -> Failure | None:
    try:
        if job.image is not None:
            _check_size(job)
        labels = draw(job.objects, job.height, job.width, background=settings.background, overlap=settings.overlap)
        settings.target.write(job.name, labels, settings.classes, job.image)
    except DataError as error:
        return Failure(job.name, str(error))
    return None


def _check_size(job: _Job) -> None:
    assert job.image is not None, "the caller has looked"
    try:
        with Image.open(job.image) as image:
            # Opens the header alone, unless the picture is turned.
            size = image.size if image.getexif().get(0x0112, 1) < 5 else ImageOps.exif_transpose(image).size
    except UNREADABLE as error:
        raise SampleError(f"{job.image} cannot be read as an image: {error}.") from error
    if size != (job.width, job.height):
        raise SampleError(
            f"{job.image} is {size[0]}×{size[1]} pixels as it is seen, the file says {job.width}×{job.height}."
        )
