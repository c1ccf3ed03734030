"""Index masks from masks that store colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from rich.console import Console

from segcontext.convert.class_table import ClassTable, read_class_table
from segcontext.convert.running import Conversion, Failure, run_jobs
from segcontext.convert.target import FolderTarget
from segcontext.data.files import IMAGE_SUFFIXES, decode, list_files, rgb_pixels, what_lies_at
from segcontext.data.masks import VOID, Colour
from segcontext.errors import DataError, DatasetNotFound, LabelError, SampleError

__all__ = ["Unknown", "from_colours", "labels_of_colours"]

Unknown: TypeAlias = Literal["error", "void", "nearest"]

# So many masks are looked at, and colours shown, where no list says which colour is which class.
_LOOKED_AT, _SHOWN = 20, 8


class _Job(NamedTuple):
    name: str
    mask: Path
    image: Path | None


class _Settings(NamedTuple):
    target: FolderTarget
    classes: ClassTable
    unknown: Unknown


def from_colours(
    source: str | Path,
    target: FolderTarget,
    *,
    classes: str | Path | None = None,
    images: str | Path | None = None,
    unknown: Unknown = "error",
    ending: str = "",
    workers: int | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Conversion:
    """Turns masks that store a colour per class into index masks.

    Args:
        source: the folder of the masks, with its sub-folders.
        target: where the index masks go.
        classes: the list of classes with their colours, as `read_class_table` reads it. Without it the colours that
            occur are listed in the error.
        images: the folder of the images, with the masks' names; by default ``images`` beside the masks' folder.
        unknown: what becomes of a colour that is not in the list: an ``error``, ``void``, or the class with the
            ``nearest`` colour, which mends masks that were saved lossily or resized with smoothing.
        ending: what the names of the masks hold beyond those of the images, such as ``_L``.
        workers: processes; see `run_jobs`.
        progress: whether progress is shown.
        console: where it is shown.

    Returns:
        What was done.

    Raises:
        DataError: the list of colours is missing or wrong.
        DatasetNotFound: there are no masks, or no images.
        OutputExists: something of the target would be replaced.
        SampleError: an image is missing, or not one mask could be converted.
    """
    folder = Path(source)
    masks = list_files(folder, ".", IMAGE_SUFFIXES, ending=ending)
    if not masks:
        raise DatasetNotFound(f"No masks in {folder}, looked for {', '.join(IMAGE_SUFFIXES)}. {what_lies_at(folder)}")
    paths = {name: folder / path for name, path in masks.items()}
    if classes is None:
        raise DataError(_which(list(paths.values())))
    table = read_class_table(Path(classes))
    if not table.colours:
        raise DataError(f"{classes} gives no colours: expected lines such as 'road 128 64 128'.")
    found = _images(folder, paths, target, images)
    jobs = [_Job(name, path, found.get(name)) for name, path in paths.items()]
    target.check(table, [job.name for job in jobs])
    settings = _Settings(target, table, unknown)
    done, failures = run_jobs(_convert, settings, jobs, workers=workers, console=console, progress=progress)
    target.finish(table)
    return Conversion(target.folder, table.names, len(done), failures)


def labels_of_colours(pixels: npt.NDArray[np.uint8], colours: dict[Colour, int], unknown: Unknown) -> npt.NDArray[Any]:
    """Class indices for colours.

    Args:
        pixels: RGB, (H, W, 3).
        colours: RGB to class index or 255.
        unknown: see `from_colours`.

    Returns:
        uint8, (H, W).

    Raises:
        LabelError: a colour is not known and `unknown` is ``error``.

    Example:
        >>> pixels = np.array([[(0, 0, 0), (250, 3, 2)]], np.uint8)
        >>> labels_of_colours(pixels, {(0, 0, 0): 255, (255, 0, 0): 0}, "nearest").tolist()
        [[255, 0]]
    """
    packed = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    present, places = np.unique(packed, return_inverse=True)
    table = np.array(list(colours), np.int64)
    there = np.stack([present >> 16, present >> 8 & 255, present & 255], -1)
    distance = ((there[:, None] - table[None]) ** 2).sum(-1)
    meaning = np.array(list(colours.values()), np.uint8)[distance.argmin(1)]
    strange = distance.min(1) > 0
    if strange.any() and unknown == "error":
        shown = ", ".join(str(tuple(colour)) for colour in there[strange][:5].tolist())
        raise LabelError(
            f"{int(strange.sum())} of its colours are no class, such as {shown}. Add them to the list, or say what "
            "becomes of them (--unknown void, --unknown nearest)."
        )
    if unknown == "void":
        meaning[strange] = VOID
    labels: npt.NDArray[np.uint8] = meaning[places.reshape(packed.shape)]
    return labels


def _which(paths: Sequence[Path]) -> str:
    """Asks which colour is which class, and lists those that occur."""
    counts: Counter[Colour] = Counter()
    for path in paths[:: max(1, len(paths) // _LOOKED_AT)]:
        colours = decode(path).convert("RGB").getcolors(1 << 24) or []
        for count, colour in colours:
            counts[colour] += count  # type: ignore[index]
    lines = [f"NAME {r} {g} {b}" for (r, g, b), _ in counts.most_common(_SHOWN)]
    return (
        "Say which colour is which class: --classes FILE with lines such as 'road 128 64 128'. These occur, the most "
        f"frequent first{', and others' if len(counts) > _SHOWN else ''}:\n" + "\n".join(lines)
    )


def _images(folder: Path, masks: dict[str, Path], target: FolderTarget, images: str | Path | None) -> dict[str, Path]:
    if target.image_files == "none":
        return {}
    place = folder.resolve().parent / "images" if images is None else Path(images)
    advice = "Say where they are (--images FOLDER), or make masks alone (--image_files none)."
    if not place.is_dir():
        raise DatasetNotFound(f"No images at {place}. {advice}")
    found = {name: place / path for name, path in list_files(place, ".", IMAGE_SUFFIXES).items()}
    missing = [name for name in masks if name not in found]
    if missing:
        raise SampleError(
            f"{len(missing)} of {len(masks)} masks have no image in {place}: {', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}. {advice} If the masks' names end otherwise, say how (--ending _L)."
        )
    return found


def _convert(settings: _Settings, job: _Job) -> Failure | None:
    try:
        pixels = rgb_pixels(decode(job.mask)).permute(1, 2, 0).numpy()
        labels = labels_of_colours(pixels, settings.classes.colours, settings.unknown)
        settings.target.write(job.name, labels, settings.classes, job.image)
    except DataError as error:
        return Failure(job.name, str(error))
    return None
