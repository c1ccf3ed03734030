"""Work shared out to processes, with a bounded part of it under way at a time."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from segcontext.errors import SegContextError

__all__ = ["default_workers", "share_out"]

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")

# Fewer files are read sooner than the processes for them are started.
_WORTH_PROCESSES = 500


def default_workers(jobs: int) -> int:
    """How many processes that many files are worth.

    Args:
        jobs: the number of files.

    Returns:
        0 for a few files or a single core, else one per core, up to sixteen.

    Example:
        >>> default_workers(10)
        0
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 or jobs < _WORTH_PROCESSES else min(cores, 16)


def share_out(
    function: Callable[[Shared, Job], Result], shared: Shared, jobs: Iterable[Job], *, workers: int, chunk: int = 8
) -> Generator[Result, None, None]:
    """Applies a function to each job, in processes, and gives the results in the order of the jobs.

    Only a few chunks per process are under way, so neither jobs nor results pile up. When the generator is closed, or
    an interruption comes, what has not begun is dropped.

    Args:
        function: what is done; with workers it must be importable by its name.
        shared: its first argument, which every process gets once.
        jobs: its second arguments.
        workers: number of processes; 0 works in this one. A script that asks for processes keeps its own code below
            ``if __name__ == "__main__":``.
        chunk: jobs that travel together.

    Yields:
        One result per job.

    Raises:
        SegContextError: if a process was killed.

    Example:
        >>> list(share_out(pow, 2, [3, 4], workers=0))
        [8, 16]
    """
    if workers < 1:
        yield from (function(shared, job) for job in jobs)
        return
    remaining = iter(jobs)
    waiting: deque[Future[list[Result]]] = deque()
    # Started afresh: a fork would copy the locks of the threads that PyTorch and the progress bar run.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_Process.start, initargs=(function, shared))
    try:
        while part := list(itertools.islice(remaining, chunk)):
            # The first of these starts the processes.
            with _interruptions_held():
                waiting.append(pool.submit(_Process.work, part))
            if len(waiting) > 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise SegContextError(
            f"One of the {workers} processes that read files was killed, perhaps for want of memory. "
            "Try fewer of them: --workers 1, or 0 for none."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interruptions_held() -> Iterator[None]:
    """Keeps Ctrl-C, which reaches every process of the terminal, from the processes that are started meanwhile.

    They inherit that it is blocked; this one gets it afterwards and stops the others.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """What a process is given when it starts."""

    function: Callable[[Any, Any], Any]
    shared: Any

    @classmethod
    def start(cls, function: Callable[[Any, Any], Any], shared: Any) -> None:
        # For systems on which it is not inherited.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        cls.function, cls.shared = staticmethod(function), shared

    @classmethod
    def work(cls, jobs: list[Any]) -> list[Any]:
        return [cls.function(cls.shared, job) for job in jobs]
