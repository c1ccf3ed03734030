"""The process that runs the kernels: what goes wrong in it ends it alone."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from segcontext.gpu.availability import SWITCH, obstacle
from segcontext.gpu_check.case import Case, Finding, Work
from segcontext.ops import use_implementation

__all__ = ["examine"]


def examine(
    answers: Connection,
    cases: Callable[..., Sequence[Case]],
    options: dict[str, Any],
    device: str,
    first: int,
    rounds: int,
) -> None:
    """Sends word that it is ready, or what is missing, and then a `Finding` for each case.

    After one that fails it ends, for what a kernel leaves of a GPU's memory or of its driver is not to be relied on.

    Args:
        answers: where to.
        cases: gives the cases; importable by its name.
        options: for that.
        device: where they run.
        first: the number of the case to begin with.
        rounds: how often each is timed.
    """
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    missing = obstacle(torch.zeros(1, device=place))
    answers.send(missing)
    if missing is not None:
        return
    for case in cases(**options)[first:]:
        try:
            found = _examine(case, place, rounds)
        # Whatever it is, it is what there is to be said of this case.
        except Exception as error:
            lines = str(error).strip().splitlines()
            found = Finding.failed(case, f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
        answers.send(found)
        if found.failure is not None:
            return


def _examine(case: Case, device: torch.device, rounds: int) -> Finding:
    work = case.make(device)
    with use_implementation("triton", strict=True):
        results = work.call()
    error = work.error(results)
    agreed = error <= work.slack
    if not agreed:
        with _switched("0"):
            other = work.error(work.call())
        # Where numbers magnify rounding, what runs without the kernels is no better.
        agreed = math.isfinite(other) and error <= 2 * other
    name = str(case.dtype).removeprefix("torch.")
    times = _times(work, device, rounds) if case.timed and agreed and device.type == "cuda" else (None, None)
    return Finding(case.operation, name, case.gradients, case.what, error, agreed, *times)


def _times(work: Work, device: torch.device, rounds: int) -> tuple[float, float]:
    """Median milliseconds of the automatic choice with the kernels and without them, in turn."""
    found: dict[str, list[float]] = {"1": [], "0": []}
    for number in range(rounds + 2):
        for switch, times in found.items():
            with _switched(switch):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                torch.cuda.synchronize(device)
                start.record()
                work.call()
                end.record()
                torch.cuda.synchronize(device)
                # The first ones compile, and look for PyTorch's fastest kernels.
                if number >= 2:
                    times.append(start.elapsed_time(end))
    return statistics.median(found["1"]), statistics.median(found["0"])


@contextmanager
def _switched(switch: str) -> Iterator[None]:
    """Has the automatic choice take all kernels, ``"1"``, or none, ``"0"``."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = switch
    try:
        yield
    finally:
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before
