"""Runs the jobs of a conversion, in processes and with progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segcontext.errors import RecipeError, SampleError
from segcontext.parallel import default_workers, share_out

__all__ = ["Conversion", "Failure", "run_jobs"]

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """An image that could not be converted.

    Attributes:
        name: of the image.
        reason: why.
    """

    name: str
    reason: str


class Conversion(NamedTuple):
    """What a conversion has done.

    Attributes:
        path: the folder or file that was written.
        classes: class names.
        written: how many images were converted.
        failures: the others.
        lost: a sentence on labels that belong to no image; empty where there are none.
    """

    path: Path
    classes: tuple[str, ...]
    written: int
    failures: tuple[Failure, ...]
    lost: str = ""


def run_jobs(
    function: Callable[[Shared, Job], Result | Failure],
    shared: Shared,
    jobs: Sequence[Job],
    *,
    workers: int | None,
    console: Console | None,
    progress: bool,
) -> tuple[list[Result], tuple[Failure, ...]]:
    """Does every job; one that fails does not stop the others.

    Args:
        function: does one job, and gives a `Failure` where it cannot.
        shared: its first argument, equal for all jobs.
        jobs: its second arguments.
        workers: processes; 0 for none but this one, `None` for one per core where there are many jobs.
        console: where progress is shown; by default on standard error.
        progress: whether it is.

    Returns:
        The results, and the failures.

    Raises:
        RecipeError: if `workers` is negative.
        SampleError: if no job could be done.
    """
    count = default_workers(len(jobs)) if workers is None else workers
    if count < 0:
        raise RecipeError(f"workers starts at 0; got {count}.")
    done: list[Result] = []
    failures: list[Failure] = []
    with (
        contextlib.closing(share_out(function, shared, jobs, workers=count)) as results,
        Progress(
            TextColumn("Converting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console or Console(stderr=True),
            disable=not progress,
        ) as bar,
    ):
        task = bar.add_task("", total=len(jobs), note="")
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                done.append(result)
            bar.update(task, advance=1, note=f"{len(failures)} failed" if failures else "")
    if failures and not done:
        first = f"{failures[0].name}: {failures[0].reason}"
        raise SampleError(f"None of the {len(jobs)} images could be converted. The first, {first}")
    return done, tuple(failures)
