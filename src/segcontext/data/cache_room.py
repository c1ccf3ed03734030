"""How much a folder of cached pixels may hold, agreed on by all processes that fill it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["CacheFull", "Room"]

#: Never filled beyond this, whatever the limit: others need the disk too.
KEPT_FREE = 2**30
#: What was used within so many seconds is not removed: a run goes round and round through its images, and would
#: throw out what it needs next.
IN_USE = 24 * 3600


class CacheFull(Exception):
    """There is no room for another entry."""


class Room:
    """Keeps the entries of a folder below a limit.

    One process at a time writes, so that they do not exceed the limit together; a file says how much there is, and is
    put right by counting once in each process. Where the system has no file locks the limit holds for each process.

    Args:
        folder: the folder; entries lie one folder below it.
        limit: bytes that all entries together may take.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._counted = False

    @contextmanager
    def taken(self, path: Path, size: int) -> Iterator[None]:
        """Holds room for an entry while it is written.

        Args:
            path: the entry, which may replace another one.
            size: its bytes.

        Raises:
            CacheFull: there is none, also without what nobody has used for a day.
            OSError: the folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "used").open("a+b") as file, _locked(file):
            used, replaced = self._used(file), 0
            with suppress(OSError):
                replaced = path.stat().st_size
            used -= replaced
            if used + size > self.limit:
                gone = self._make_room(used + size - self.limit)
                # What is replaced may have gone, too.
                replaced = replaced if path.exists() else 0
                used = max(0, used - gone)
                self._write(file, used + replaced)
            if used + size > self.limit:
                raise CacheFull(
                    f"its entries take {used / 1e9:.2f} GB, and may take {self.limit / 1e9:.2f} (cache_size)"
                )
            if shutil.disk_usage(self.folder).free < size + KEPT_FREE:
                raise CacheFull(f"the disk has less than {KEPT_FREE / 1e9:.1f} GB left")
            yield
            self._write(file, used + size)

    def _write(self, file: IO[bytes], used: int) -> None:
        file.truncate(0)
        file.write(b"%d" % used)
        file.flush()

    def _used(self, file: IO[bytes]) -> int:
        file.seek(0)
        said = file.read()
        if self._counted and said.isdigit():
            return int(said)
        self._counted = True
        return sum(status.st_size for _, status in self._entries())

    def _make_room(self, wanted: int) -> int:
        """Removes what has not been used for the longest time; the bytes that it gave back."""
        old = sorted(
            ((status.st_mtime, status.st_size, path) for path, status in self._entries()
             if status.st_mtime < time.time() - IN_USE),
            key=lambda entry: entry[0],
        )  # fmt: skip
        gone = 0
        for _, size, path in old:
            if gone >= wanted:
                break
            with suppress(OSError):
                path.unlink()
                gone += size
        return gone

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in self.folder.iterdir():
            if len(folder.name) == 2 and folder.is_dir():
                for path in folder.iterdir():
                    with suppress(OSError):
                        yield path, path.stat()


@contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    """Waits for the other processes that lock this file."""
    if os.name != "posix":
        yield
        return
    # There is no such module elsewhere.
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
