"""Predictions in the form that a data set's test server takes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segcontext.data.class_names import check_classes
from segcontext.data.dataset import Dataset
from segcontext.data.submission import Submission
from segcontext.errors import DataError, OutputExists, RecipeError
from segcontext.files import atomic_path
from segcontext.inference import LabelMap, Predictor
from segcontext.pictures import save_labels, save_picture

__all__ = ["Submitted", "write_submission"]


class Submitted(NamedTuple):
    """What was written for a test server.

    Attributes:
        folder: the folder of the predictions.
        archive: the archive to hand in.
        images: how many predictions are in it.
        page: the name of the page to hand it in at.
    """

    folder: Path
    archive: Path
    images: int
    page: str


def write_submission(
    predictor: Predictor,
    dataset: Dataset,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    console: Console | None = None,
) -> Submitted:
    """Predicts every image of a data set and packs the predictions for its test server.

    The folder ``OUT`` gets one PNG per image, named and numbered as the server wants it (Cityscapes: labelIds; PASCAL
    VOC: palette PNGs in the folders of its development kit; ADE20K: 1..150), and beside it lies the archive.

    Args:
        predictor: what segments.
        dataset: the images, as a rule of the test split; labels are not looked at.
        out: the folder to write to.
        overwrite: whether files that are there may be replaced.
        resume: whether predictions that are there are kept and only the others made.
        progress: whether a progress bar is shown.
        console: where it is shown; by default on standard error.

    Returns:
        Where everything lies.

    Raises:
        RecipeError: the data set has no test server.
        DataError: the network has other classes, or the same in another order; or two images share a name.
        OutputExists: there is something in the folder, or the archive is there, and neither option is given.
        SampleError: an image cannot be read.
    """
    wanted = dataset.submission
    if wanted is None:
        raise RecipeError(
            f"{dataset.name} has no test server whose form is known. `segcontext predict` writes plain masks."
        )
    check_classes(predictor.model, dataset)
    folder = Path(out)
    planned = _plan(dataset, wanted, folder)
    # Dots in the folder's name are no suffix.
    archive = folder.with_name(folder.name + (".zip" if wanted.archive == "zip" else ".tar.gz"))
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file, but a folder is needed for the predictions: choose another name.")
    foreign = _foreign(folder, planned)
    if foreign is not None:
        raise OutputExists(f"{foreign} is no prediction and would be packed as well: choose another folder.")
    if not (overwrite or resume) and (archive.exists() or any(path.exists() for path in planned)):
        raise OutputExists(
            f"{folder} or {archive.name} is there already: go on with it (--resume), replace it (--overwrite), or "
            "choose another folder."
        )
    with Progress(
        *(TextColumn("Predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        console=console or Console(stderr=True),
        disable=not progress,
    ) as bar:
        task = bar.add_task("", total=len(planned))
        for item, path in zip(dataset.items, planned, strict=True):
            if not (resume and path.exists()):
                _write(predictor.label_map(dataset.root / item.image), path, wanted, dataset)
            bar.update(task, advance=1)
    with atomic_path(archive) as temporary:
        stem = temporary.with_name(temporary.name + ".pack")
        packed = Path(shutil.make_archive(str(stem), wanted.archive, folder))
        packed.replace(temporary)
    return Submitted(folder, archive, len(planned), wanted.page)


def _plan(dataset: Dataset, wanted: Submission, folder: Path) -> list[Path]:
    paths = [folder / wanted.pattern.format(stem=item.name.rpartition("/")[2]) for item in dataset.items]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise DataError(f"Two images of {dataset.name} would both become {twice}; the server knows names alone.")
    return paths


def _foreign(folder: Path, planned: Sequence[Path]) -> Path | None:
    """A file in the folder that is none of the predictions."""
    if not folder.is_dir():
        return None
    own = set(planned)
    return next((path for path in sorted(folder.rglob("*")) if path.is_file() and path not in own), None)


def _write(found: LabelMap, path: Path, wanted: Submission, dataset: Dataset) -> None:
    values = np.asarray(wanted.values, dtype=np.uint8)[found.labels]
    if wanted.coloured:
        save_labels(path, values, dataset.palette)
    else:
        save_picture(path, Image.fromarray(values))
