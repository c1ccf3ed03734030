"""Sharing rows of work out to as many threads as PyTorch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import torch

__all__ = ["split"]

_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}


def split(rows: int, run: Callable[[int, int], None], *, grain: int = 1, parts_each: int = 4) -> None:
    """Runs a function over all rows, parts of them at a time on each thread.

    Threads take the next part when they are done with one, so that a busy core holds nobody up. There are
    `torch.get_num_threads()` of them, the calling one among them.

    Args:
        rows: how many there are.
        run: is called with the first row of a part and the row behind its last; it should release the interpreter.
        grain: fewest rows of a part.
        parts_each: parts for each thread.

    Raises:
        Exception: what `run` raised first; other parts may have run or not.

    Note:
        numba's own threads are not used: they cannot be called from two threads at once nor after a fork everywhere.

    Example:
        >>> found = [0] * 10
        >>> split(10, lambda first, last: found.__setitem__(slice(first, last), range(first, last)))
        >>> found
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    threads = torch.get_num_threads()
    size = max(grain, -(-rows // (threads * parts_each)))
    parts = -(-rows // size)
    threads = min(threads, parts)
    if threads <= 1:
        if rows > 0:
            run(0, rows)
        return
    # Taking the next number is atomic.
    following = count()

    def work() -> None:
        while (part := next(following)) < parts:
            run(part * size, min(rows, (part + 1) * size))

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        # Whoever is waited for may still write into the caller's arrays.
        failures = [other.exception() for other in others]
    for failure in failures:
        if failure is not None:
            raise failure


def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of this process: threads do not survive a fork."""
    key = (os.getpid(), threads)
    if key not in _POOLS:
        _POOLS[key] = ThreadPoolExecutor(threads, thread_name_prefix="segcontext")
    return _POOLS[key]
