"""Sharing rows of work out to as many threads as PyTorch may use."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch

__all__ = ["split"]

_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}
_CALLED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _forked() -> bool:
    """Whether this process came of a fork, with no new program since; `True` also where nothing says so."""
    try:
        # Behind the name, which may hold anything, Linux says its flags; 0x40 is PF_FORKNOEXEC.
        flags = int(Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[6])
    except (OSError, ValueError, IndexError):
        return True
    return bool(flags & 0x40)


#: The process that may use OpenMP's threads: they do not survive a fork, and what is left of them waits for ever. None
#: may where this module is first imported by a child whose parent may have used them.
_PROCESS = None if _forked() else os.getpid()


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
        Where PyTorch runs on GNU's OpenMP these are the threads of its own operators: after an operator they wait at
        work for some milliseconds, and other threads would share the cores with them. As with those operators, a child
        that is forked afterwards must not run PyTorch's on more than one thread: it would wait for ever. Elsewhere, and
        here after a fork, they are a pool's. numba's own threads are not used: they cannot be called from two threads
        at once nor after a fork everywhere.

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

    failures: list[BaseException] = []

    def member(_: Any = None) -> None:
        try:
            work()
        # Through OpenMP no error finds its way; it is raised below.
        except BaseException as failure:
            failures.append(failure)

    team = _team() if os.getpid() == _PROCESS else None
    if team is not None:
        team(_CALLED(member), None, threads, 0)
    else:
        others = [_pool(threads - 1).submit(member) for _ in range(threads - 1)]
        member()
        # Whoever is waited for may still write into the caller's arrays.
        for other in others:
            other.result()
    if failures:
        raise failures[0]


@cache
def _team() -> Any:
    """Runs a function on as many of PyTorch's OpenMP threads as it is told; `None` where they are not GNU's."""
    if sys.platform != "linux":
        return None
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        try:
            # Only what PyTorch has loaded: another copy of the library would have threads of its own.
            return ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW).GOMP_parallel
        except (OSError, AttributeError):
            continue
    return None


def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of this process: threads do not survive a fork."""
    key = (os.getpid(), threads)
    if key not in _POOLS:
        _POOLS[key] = ThreadPoolExecutor(threads, thread_name_prefix="segcontext")
    return _POOLS[key]
