"""Examines a data set before a training: the doctor."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segcontext.doctor.checks_classes import check_classes
from segcontext.doctor.checks_copies import check_copies, role_of
from segcontext.doctor.checks_files import check_files
from segcontext.doctor.checks_labels import check_labels
from segcontext.doctor.checks_layout import check_layout
from segcontext.doctor.copies import Copies, find_copies
from segcontext.doctor.diagnosis import Diagnosis
from segcontext.doctor.examination import Examination, Record
from segcontext.doctor.finding import in_order
from segcontext.doctor.fingerprint import THUMBNAIL, Fingerprint
from segcontext.doctor.mask_probe import LABELS
from segcontext.doctor.probe import Probe, probe
from segcontext.doctor.survey import Pair, Survey
from segcontext.doctor.surveying import survey_dataset
from segcontext.doctor.tally import MANY, Tally
from segcontext.errors import RecipeError
from segcontext.parallel import default_workers, share_out

__all__ = ["examine"]

# A single tone, which is compared with nothing.
_NO_PRINT = Fingerprint(0, bytes(3 * THUMBNAIL**2), 0.0)


def examine(
    data: str | Path,
    *,
    dataset: str = "auto",
    limit: int | None = None,
    workers: int | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> Diagnosis:
    """Examines a data set, or a folder that is meant to be one, and names what is wrong with it.

    Every file is read once. What cannot be opened or read is a finding, not an error.

    Args:
        data: the folder, or ``"demo"``.
        dataset: as for `open_dataset`.
        limit: opens this many images of each split only, spread evenly; `None` opens all.
        workers: processes that read; 0 reads in this one, `None` takes one per core where there are many images. With
            processes, a script keeps its own code below ``if __name__ == "__main__":``.
        progress: whether a progress bar is shown.
        console: where it is shown; by default on standard error.

    Returns:
        The diagnosis.

    Raises:
        DatasetNotFound: if there is nothing that looks like a data set.
        RecipeError: if there is no such data set, or `limit` or `workers` is out of range.

    Example:
        >>> diagnosis = examine("demo", limit=2, progress=False)
        >>> diagnosis.healthy
        True
    """
    if (limit is not None and limit < 1) or (workers is not None and workers < 0):
        raise RecipeError(f"limit starts at 1 and workers at 0; got limit={limit}, workers={workers}.")
    start = time.perf_counter()
    survey = survey_dataset(data, dataset)
    seen = _look(
        survey, _chosen(survey, limit), workers, Console(stderr=True) if console is None else console, progress
    )
    checks = (
        check_layout(survey),
        *(check(seen) for check in (check_files, check_labels, check_classes, check_copies)),
    )
    findings = in_order(finding for check in checks for finding in check)
    return Diagnosis(findings=findings, seen=seen, seconds=time.perf_counter() - start)


def _chosen(survey: Survey, limit: int | None) -> list[Pair]:
    """The pairs that are opened: of each split so many, spread evenly."""
    if limit is None:
        return list(survey.pairs)
    chosen: set[int] = set()
    for split in survey.splits:
        places = [place for place, pair in enumerate(survey.pairs) if split.name in pair.splits]
        count = min(limit, len(places))
        chosen.update(places[step * len(places) // count] for step in range(count))
    return [survey.pairs[place] for place in sorted(chosen)]


def _look(survey: Survey, pairs: Sequence[Pair], workers: int | None, console: Console, shown: bool) -> Examination:
    classes = len(survey.classes)
    whole, tallies = Tally(classes), {split.name: Tally(classes) for split in survey.splits}
    records = []
    count = default_workers(len(pairs)) if workers is None else workers
    with (
        contextlib.closing(share_out(probe, tuple(survey.readings), pairs, workers=count)) as found,
        Progress(
            TextColumn("Examining"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not shown,
        ) as bar,
    ):
        task = bar.add_task("", total=len(pairs), note="")
        failed = 0
        for pair, result in zip(pairs, found, strict=True):
            for tally in (whole, *(tallies[split] for split in pair.splits)):
                tally.add(result)
            records.append(_record(pair, result))
            failed += bool(result.image_error or result.mask_error)
            bar.update(task, advance=1, note=f"{failed} unreadable" if failed else "")
        bar.update(task, note="comparing")
        copies = _compare(records)
    return Examination(survey=survey, records=records, tallies=tallies, whole=whole, copies=copies)


def _record(pair: Pair, found: Probe) -> Record:
    """What is kept of an image; what the tallies have summed up is let go."""
    image = found.image and found.image._replace(histogram=np.zeros((3, 0), np.int64))
    mask = found.mask and found.mask._replace(objects={}, colours={}, pixels=np.zeros(0, np.int64))
    if mask and mask.stores == LABELS and mask.wrong > MANY:
        mask = mask._replace(values={})
    return Record(pair, image, mask, found.image_error, found.mask_error)


def _compare(records: Sequence[Record]) -> Copies:
    prints = [record.image.fingerprint if record.image else _NO_PRINT for record in records]
    copies = find_copies(prints, [role_of(record) for record in records])
    readable = (place for place in copies.blank if records[place].image is not None)
    return copies._replace(blank=tuple(readable))
