"""Masks for many image files: finds the files, names the outputs, and writes each of them whole or not at all."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segcontext.data.files import IMAGE_SUFFIXES
from segcontext.errors import DataError, OutputExists, SampleError
from segcontext.files import atomic_path
from segcontext.inference import LabelMap, Prediction, Predictor, read_source
from segcontext.inference.memory import prediction_memory
from segcontext.pictures import save_picture

__all__ = ["FilePrediction", "InputFile", "find_images", "predict_files"]

StrPath: TypeAlias = str | os.PathLike[str]


class InputFile(NamedTuple):
    """An image file and what its outputs are called.

    Attributes:
        path: the image.
        name: the outputs' name, without suffix; it holds ``/`` for files in sub-folders of a given folder.
    """

    path: Path
    name: str


class FilePrediction(NamedTuple):
    """What became of one image file.

    Attributes:
        source: the image.
        mask: the index PNG, or `None` where the image could not be read.
        overlay: the picture of the classes over the image, if one was written.
        probabilities: the NPZ file with `probabilities`, float16 (classes, H, W), and `classes`, if one was written.
        error: why the image could not be read.
    """

    source: Path
    mask: Path | None = None
    overlay: Path | None = None
    probabilities: Path | None = None
    error: SampleError | None = None


def predict_files(
    predictor: Predictor,
    inputs: StrPath | Iterable[StrPath],
    out: StrPath,
    *,
    overwrite: bool = False,
    overlay: bool = True,
    probabilities: bool = False,
    progress: bool = True,
    console: Console | None = None,
) -> list[FilePrediction]:
    """Segments image files and writes what comes out, at the images' own sizes.

    For an image ``NAME.jpg`` it writes ``masks/NAME.png`` (class indices with a palette) and, as asked,
    ``overlays/NAME.jpg`` and ``probabilities/NAME.npz`` (float16). Files from a folder keep its sub-folders. Where
    images would share a name, as ``a.jpg`` and ``a.png`` do, theirs keep the suffix: ``masks/a.jpg.png``.

    Args:
        predictor: what segments.
        inputs: files, folders (searched with their sub-folders) and globs such as ``"shots/**/*.jpg"``.
        out: the folder to write to; if it lies in an input folder, its own contents are not taken for inputs.
        overwrite: whether files of the outputs' names may be replaced.
        overlay: whether overlays are written.
        probabilities: whether probabilities are written; they take about as many bytes as pixels times classes.
        progress: whether a progress bar is shown.
        console: where it is shown; by default on standard error.

    Returns:
        One entry per image, in order. An image that cannot be read does not stop the others: its entry has an
        `error` and no outputs.

    Raises:
        DataError: an input matches no image.
        OutputExists: an output is there already and `overwrite` is False, or would replace an input; nothing was done.
        SampleError: not one of the images could be read.
        OutOfMemory: memory does not suffice for an image; what was written before it stays.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file, but a folder is needed for the outputs. Choose another name.")
    files = find_images(inputs, exclude=folder)
    planned = [_outputs(folder, file, overlay=overlay, probabilities=probabilities) for file in files]
    _refuse_clashes(planned, overwrite=overwrite)
    results: list[FilePrediction] = []
    with Progress(
        TextColumn("Predicting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console or Console(stderr=True),
        disable=not progress,
    ) as bar:
        task = bar.add_task("", total=len(planned), note="")
        for plan in planned:
            try:
                _write(predictor, plan)
                results.append(plan)
            except SampleError as error:
                results.append(FilePrediction(plan.source, error=error))
            failed = sum(result.error is not None for result in results)
            bar.update(task, advance=1, note=f"{failed} unreadable" if failed else "")
    if len(results) == 1 and results[0].error is not None:
        raise results[0].error
    if all(result.error is not None for result in results):
        raise SampleError(f"None of the {len(results)} images could be read. The first: {results[0].error}")
    return results


def find_images(inputs: StrPath | Iterable[StrPath], *, exclude: StrPath | None = None) -> list[InputFile]:
    """Finds image files and gives each a name of its own.

    Args:
        inputs: files (of any suffix), folders (searched with their sub-folders) and globs; hidden files in folders
            are passed over.
        exclude: a folder whose contents are left out when folders and globs are searched.

    Returns:
        The files in the order of the inputs, sorted within each input; a file that is found twice appears once.

    Raises:
        DataError: an input matches no image.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not given:
        raise DataError("There is nothing to predict: give at least one image file, folder or glob.")
    barred = None if exclude is None else Path(exclude).resolve()
    found: dict[Path, tuple[Path, Path]] = {}
    for entry in given:
        matches = list(_matches(os.fspath(entry), barred))
        if not matches:
            raise DataError(_nothing_found(os.fspath(entry)))
        for path, relative in matches:
            found.setdefault(path.resolve(), (path, relative))
    return _name(list(found.values()))


def _matches(entry: str, barred: Path | None) -> Iterator[tuple[Path, Path]]:
    """Pairs of an image's path and its path relative to the folder that was searched."""
    path = Path(entry).expanduser()
    if path.is_file():
        yield path, Path(path.name)
        return
    if path.is_dir():
        base, pattern = path, "**/*"
    else:
        base, pattern = _split_glob(path)
    # Without a pattern it is a path that does not exist.
    for candidate in sorted(base.glob(pattern)) if pattern and base.is_dir() else []:
        relative = candidate.relative_to(base)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or candidate.suffix.lower() not in IMAGE_SUFFIXES or not candidate.is_file():
            continue
        if barred is None or barred not in candidate.resolve().parents:
            yield candidate, relative


def _split_glob(path: Path) -> tuple[Path, str]:
    """The folder before the first wild card, and the pattern from there on; no pattern where there is no wild card."""
    wild = [index for index, part in enumerate(path.parts) if re.search(r"[*?\[]", part)]
    if not wild:
        return path, ""
    return Path(*path.parts[: wild[0]]), "/".join(path.parts[wild[0] :])


def _nothing_found(entry: str) -> str:
    suffixes = ", ".join(IMAGE_SUFFIXES)
    path = Path(entry).expanduser()
    if path.is_dir():
        return f"The folder {entry} and its sub-folders hold no image to predict; looked for {suffixes}."
    base, pattern = _split_glob(path)
    if not pattern:
        return (
            f"{entry} does not exist: expected an image file, a folder or a glob. The path is taken from {Path.cwd()}."
        )
    where = "which is no folder" if not base.is_dir() else f"for {suffixes}"
    return f"The glob {entry} matches no image; looked for '{pattern}' in {base.resolve()}, {where}."


def _name(found: Sequence[tuple[Path, Path]]) -> list[InputFile]:
    """Gives names without suffix where they are unique, with suffix where not, and numbers where that is not enough."""
    stems = [relative.with_suffix("").as_posix() for _, relative in found]
    # Some file systems do not tell capitals from small letters.
    shared = Counter(stem.casefold() for stem in stems)
    names = [
        stem if shared[stem.casefold()] == 1 else relative.as_posix()
        for stem, (_, relative) in zip(stems, found, strict=True)
    ]
    wanted = {name.casefold() for name in names}
    used: set[str] = set()
    files = []
    for (path, _), name in zip(found, names, strict=True):
        unique, number = name, 2
        while unique.casefold() in used or (unique != name and unique.casefold() in wanted):
            unique, number = f"{name}-{number}", number + 1
        used.add(unique.casefold())
        files.append(InputFile(path, unique))
    return files


def _outputs(folder: Path, file: InputFile, *, overlay: bool, probabilities: bool) -> FilePrediction:
    # Names may hold dots, so suffixes are added, never exchanged.
    return FilePrediction(
        file.path,
        mask=folder / "masks" / f"{file.name}.png",
        overlay=folder / "overlays" / f"{file.name}.jpg" if overlay else None,
        probabilities=folder / "probabilities" / f"{file.name}.npz" if probabilities else None,
    )


def _refuse_clashes(planned: Sequence[FilePrediction], *, overwrite: bool) -> None:
    paths = [path for plan in planned for path in (plan.mask, plan.overlay, plan.probabilities) if path is not None]
    existing = [path for path in paths if path.exists()]
    sources = {plan.source.resolve() for plan in planned}
    own = [path for path in existing if path.resolve() in sources]
    if own:
        raise OutputExists(f"{own[0]} is an input, and the output would replace it. Choose another output folder.")
    if existing and not overwrite:
        shown = ", ".join(str(path) for path in existing[:3]) + (", …" if len(existing) > 3 else "")
        raise OutputExists(
            f"{len(existing)} {'output is' if len(existing) == 1 else 'outputs are'} already there: {shown}. "
            "Nothing was predicted. Choose another output folder, or allow overwriting (overwrite=True, --overwrite)."
        )


def _write(predictor: Predictor, plan: FilePrediction) -> None:
    image = read_source(plan.source)
    size = f"{image.shape[-2]}×{image.shape[-1]} pixels"
    found: LabelMap
    # The mask comes last: where it lies, the other outputs of its image lie too.
    with prediction_memory(f"Segmenting {plan.source} ({size})", predictor.protocol, precision=predictor.precision):
        found = predictor.label_map(image) if plan.probabilities is None else predictor(image)
    if plan.probabilities is not None:
        assert isinstance(found, Prediction)
        with atomic_path(plan.probabilities) as temporary:
            np.savez_compressed(
                temporary,
                probabilities=found.probabilities.astype(np.float16),
                classes=np.array(found.classes),
            )
    if plan.overlay is not None:
        save_picture(plan.overlay, found.overlay(image))
    assert plan.mask is not None
    found.save(plan.mask, overwrite=True)
