"""Images and masks that are decoded once: their raw pixels, mapped from files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from segcontext.data.cache_entry import (
    Entry,
    Pixels,
    Stamp,
    digest_of,
    entry_size,
    read_entry,
    stamp_of,
    write_entry,
)
from segcontext.data.cache_room import CacheFull, Room
from segcontext.files import user_cache

__all__ = ["PixelCache", "as_pixels"]

_logger = logging.getLogger(__name__)


class PixelCache:
    """A folder of decoded pixels, which any number of processes read and fill.

    An entry belongs to a file and to what is read from it. It is used while the file's size and times are those of
    its decoding, or else its contents; a damaged entry is made anew. Entries are written beside their place and
    moved there, so that nobody sees half of one. What cannot be kept is decoded each time, and that is said once.

    When the folder has reached its limit, what nobody has used for a day makes room, the longest unused first. What was
    used since then stays, and the rest is decoded each time: a run goes round and round through its images, and the
    oldest entry is the one that it needs next.

    Note:
        Each process holds an entry against its checksum when it first reads it. The checksum finds cut and zeroed pages
        and flipped bits; it is no proof against forgery, so keep the folder as private as the images.

    Args:
        folder: where the entries lie; made when the first is written.
        limit: bytes that all entries together may take.

    Example:
        >>> cache = PixelCache.named("none", gigabytes=50)
        >>> cache is None
        True
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder = Path(folder).absolute()
        self._room = Room(self.folder, limit)
        self._verified: set[tuple[Path, str]] = set()
        self._given_up = False

    @classmethod
    def named(cls, where: str, *, gigabytes: float) -> PixelCache | None:
        """The cache that a recipe asks for.

        Args:
            where: a folder; ``auto`` for ``segcontext/pixels`` in the user's cache folder (``XDG_CACHE_HOME``, or
                ``~/.cache``); ``none`` for none.
            gigabytes: the limit, in 10⁹ bytes.
        """
        if where == "none":
            return None
        return cls(user_cache("pixels") if where == "auto" else where, int(gigabytes * 1e9))

    def read(self, source: Path, meaning: object, decode: Callable[[], Pixels]) -> Pixels:
        """The pixels of a file.

        Args:
            source: the file that `decode` reads.
            meaning: what else the pixels depend on, as JSON can say it.
            decode: gives uint8 pixels; whatever it raises passes through.

        Returns:
            What `decode` gives. Writing to it changes nothing for others.
        """
        try:
            stamp = stamp_of(source)
        except OSError:
            return decode()
        said = json.dumps([os.path.abspath(source), meaning], sort_keys=True)  # noqa: PTH100 -- links are not followed
        name = hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()
        place = self.folder / name[:2] / f"{name[2:]}.pixels"
        entry = self._entry(place)
        if entry is not None and entry.stamp == stamp:
            return entry.pixels
        if entry is None and self._given_up:
            return decode()
        try:
            digest = digest_of(source)
        except OSError:
            return decode()
        known = entry is not None and entry.digest == digest
        pixels = entry.pixels if entry is not None and known else decode()
        self._keep(place, source, pixels, stamp, digest)
        return pixels

    def _entry(self, place: Path) -> Entry | None:
        entry = read_entry(place, verify=False)
        if entry is None or (place, entry.checksum) in self._verified:
            return entry
        entry = read_entry(place, verify=True)
        if entry is not None:
            self._verified.add((place, entry.checksum))
        return entry

    def _keep(self, place: Path, source: Path, pixels: Pixels, stamp: Stamp, digest: str) -> None:
        if self._given_up:
            return
        try:
            # Whoever wrote to the file in between has made the digest another file's.
            if stamp_of(source) == stamp:
                with self._room.taken(place, entry_size(pixels)):
                    write_entry(place, pixels, stamp=stamp, digest=digest)
        except (OSError, CacheFull) as problem:
            self._given_up = True
            worker = torch.utils.data.get_worker_info()
            # One of a run's readers is enough to say it.
            level = logging.WARNING if worker is None or worker.id == 0 else logging.DEBUG
            _logger.log(
                level, "The pixel cache %s takes nothing more: %s. The other images are decoded each time.",
                *(self.folder, problem),
            )  # fmt: skip


def as_pixels(tensor: torch.Tensor) -> Pixels:
    """A uint8 tensor's memory; (3, H, W) becomes (H, W, 3), with the channels of a pixel side by side."""
    pixels: Pixels = tensor.as_subclass(torch.Tensor).numpy()
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)) if pixels.ndim == 3 else pixels
