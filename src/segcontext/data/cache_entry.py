"""The file of one cached image or mask: a page that says what it holds, and the raw pixels."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.files import atomic_path

__all__ = ["Entry", "Pixels", "Stamp", "digest_of", "entry_size", "read_entry", "stamp_of", "write_entry"]

Pixels: TypeAlias = npt.NDArray[np.uint8]

#: Size, time of the last change of the contents and of the file's properties.
Stamp: TypeAlias = list[int]

PAGE = 4096
FORMAT = "segcontext pixels 1"


class Entry(NamedTuple):
    """What a cache file holds.

    Attributes:
        pixels: uint8, of the shape that was written; mapped, so only what is looked at is read. Writing to it changes
            neither the file nor what others see.
        stamp: the source's when it was decoded; `None` where it was too young for that to tell.
        digest: hash of the source's contents.
        checksum: of everything in the file.
    """

    pixels: Pixels
    stamp: Stamp | None
    digest: str
    checksum: str


def stamp_of(path: Path) -> Stamp:
    """What tells, without opening a file, that it is no longer the same."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def digest_of(path: Path) -> str:
    """A hash of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_size(pixels: Pixels) -> int:
    """Bytes of the file that would hold these pixels."""
    return PAGE + -(-pixels.nbytes // PAGE) * PAGE


def write_entry(path: Path, pixels: Pixels, *, stamp: Stamp, digest: str) -> None:
    """Writes a cache file, which appears whole or not at all.

    Args:
        path: where to.
        pixels: of any shape.
        stamp: the source's.
        digest: hash of the source's contents.

    Raises:
        OSError: it cannot be written.
    """
    plain = np.ascontiguousarray(pixels)
    blocks = np.zeros(entry_size(plain) - PAGE, np.uint8)
    blocks[: plain.size] = plain.reshape(-1)
    # A file that has just been written may be written again within the same tick of the clock.
    young = time.time_ns() - max(stamp[1:]) < 2 * 10**9
    facts = {"format": FORMAT, "shape": plain.shape, "stamp": None if young else stamp, "digest": digest}
    header = json.dumps({**facts, "checksum": _checksum(facts, blocks)}).encode()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header.ljust(PAGE))
        file.write(blocks.data)


def read_entry(path: Path, *, verify: bool) -> Entry | None:
    """Maps a cache file.

    Args:
        path: the file.
        verify: whether all of it is read and held against its checksum.

    Returns:
        What it holds; `None` where there is none or it is damaged.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    # Its time tells when it was last used; an hour's precision is enough. Others' entries may be read alone.
    if time.time() - status.st_mtime > 3600:
        with suppress(OSError):
            os.utime(path)
    try:
        facts: dict[str, Any] = json.loads(mapped[:PAGE])
        shape, checksum = tuple(facts["shape"]), str(facts.pop("checksum"))
        blocks = np.frombuffer(mapped, np.uint8, offset=PAGE)
        size = int(np.prod(shape))
        damaged = facts["format"] != FORMAT or len(blocks) != -(-size // PAGE) * PAGE
        if damaged or (verify and _checksum(facts, blocks) != checksum):
            return None
        return Entry(blocks[:size].reshape(shape), facts["stamp"], str(facts["digest"]), checksum)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksum(facts: dict[str, Any], blocks: Pixels) -> str:
    """Sums of the pages rather than a hash of all bytes, which would take longer than decoding a small image."""
    sums = np.add.reduce(blocks.view(np.uint64).reshape(-1, PAGE // 8), axis=1)
    said = json.dumps([facts[name] for name in sorted(facts)]).encode()
    return hashlib.sha256(said + sums.tobytes()).hexdigest()
