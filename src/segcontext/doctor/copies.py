"""Images that are copies of each other, or look so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segcontext.doctor.fingerprint import THUMBNAIL, Fingerprint
from segcontext.doctor.near import near_pairs

__all__ = ["DISTANCE", "Copies", "Match", "find_copies"]

Indices: TypeAlias = npt.NDArray[np.int64]

#: Bits of 64 in which two images that look alike may differ.
DISTANCE = 8
# Grey levels of 255 by which their thumbnails may differ, on average; hashes alone take any two skies for one.
_DIFFERENCE = 8.0
# Below that many grey levels of deviation a hash tells noise.
_CONTRAST = 4.0
_ROLES = ("train", "val", "test")


class Match(NamedTuple):
    """An image and the one of an earlier split that looks most like it.

    Attributes:
        image: its position.
        other: the position of the other.
        difference: mean difference of their thumbnails, in grey levels of 255.
    """

    image: int
    other: int
    difference: float


class Copies(NamedTuple):
    """Which images look alike.

    Attributes:
        groups: (n,), a number for each image, equal for images that are linked by pairs which look alike.
        across: the images of validation and test that look like one of an earlier split, the most alike first.
        blank: positions of the images of a single tone, which are not compared.
    """

    groups: Indices
    across: tuple[Match, ...]
    blank: tuple[int, ...]


def find_copies(prints: Sequence[Fingerprint], roles: Sequence[str | None]) -> Copies:
    """Finds images that look alike: copies that were resized or recompressed, and neighbouring frames of a video.

    Args:
        prints: of n images.
        roles: what each of them is for: ``train``, ``val``, ``test``, or `None`.

    Returns:
        What looks alike.

    Example:
        >>> a, b = Fingerprint(0b1011, bytes(192), 40.0), Fingerprint(2**60 - 1, bytes([9]) * 192, 40.0)
        >>> copies = find_copies([a, b, a], ["train", "train", "val"])
        >>> copies.groups.tolist(), copies.across
        ([0, 1, 0], (Match(image=2, other=0, difference=0.0),))
    """
    bits = np.array([each.bits for each in prints], np.uint64)
    tones = np.frombuffer(b"".join(each.thumbnail for each in prints), np.uint8).reshape(len(prints), 3 * THUMBNAIL**2)
    ranks = np.array([_ROLES.index(role) if role in _ROLES else -1 for role in roles], np.int64)
    blank = np.array([each.contrast < _CONTRAST for each in prints], bool)
    usable = np.flatnonzero(~blank)
    search = _Search(bits, tones, ranks)
    if len(usable):
        # Of images with one hash and one role a single one is compared with the others, however many there are.
        key = np.stack([bits[usable], ranks[usable].astype(np.uint64)])
        _, first, members = np.unique(key, axis=1, return_index=True, return_inverse=True)
        chosen = usable[first]
        search.link(chosen[members.ravel()], usable)
        for left, right in near_pairs(bits[chosen], DISTANCE):
            search.link(chosen[left], chosen[right])
        search.hand_on(chosen[members.ravel()], usable)
    return Copies(search.groups, search.matches(), tuple(np.flatnonzero(blank).tolist()))


class _Search:
    """Groups and best matches, as pairs come in."""

    def __init__(self, bits: npt.NDArray[np.uint64], tones: npt.NDArray[np.uint8], ranks: Indices) -> None:
        self.tones, self.ranks = tones, ranks
        self.groups: Indices = np.arange(len(bits), dtype=np.int64)
        self.best = np.full(len(bits), -1, np.int64)
        self.difference = np.full(len(bits), np.inf)

    def link(self, left: Indices, right: Indices) -> None:
        """Takes pairs whose hashes are near, and keeps those whose thumbnails are too."""
        for start in range(0, len(left), 1 << 16):
            first, second = left[start : start + (1 << 16)], right[start : start + (1 << 16)]
            # What is linked already, and of one use, has nothing new to tell.
            told = (self.groups[first] == self.groups[second]) & (self.ranks[first] == self.ranks[second])
            first, second = first[~told], second[~told]
            difference = self._difference(first, second)
            alike = (difference <= _DIFFERENCE) & (first != second)
            first, second, difference = first[alike], second[alike], difference[alike]
            self._join(first, second)
            self._compare(first, second, difference)

    def hand_on(self, chosen: Indices, members: Indices) -> None:
        """Gives the match of an image to those that it was compared for."""
        match = self.best[chosen]
        known = match >= 0
        match, members = match[known], members[known]
        difference = self._difference(match, members)
        alike = difference <= _DIFFERENCE
        self._compare(match[alike], members[alike], difference[alike])

    def matches(self) -> tuple[Match, ...]:
        """The matches, the most alike first."""
        found = np.flatnonzero(self.best >= 0)
        order = found[np.argsort(self.difference[found], kind="stable")]
        return tuple(Match(int(i), int(self.best[i]), round(float(self.difference[i]), 2)) for i in order)

    def _difference(self, first: Indices, second: Indices) -> npt.NDArray[np.float64]:
        difference: npt.NDArray[np.float64] = np.abs(self.tones[first].astype(np.int16) - self.tones[second]).mean(1)
        return difference

    def _join(self, first: Indices, second: Indices) -> None:
        apart = self.groups[first] != self.groups[second]
        if apart.any():
            left, right = self.groups[first[apart]], self.groups[second[apart]]
            count = len(self.groups)
            graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
            self.groups = connected_components(graph, directed=False)[1].astype(np.int64)[self.groups]

    def _compare(self, first: Indices, second: Indices, difference: npt.NDArray[np.float64]) -> None:
        swapped = self.ranks[first] > self.ranks[second]
        earlier, later = np.where(swapped, second, first), np.where(swapped, first, second)
        across = (self.ranks[earlier] >= 0) & (self.ranks[earlier] < self.ranks[later])
        earlier, later, difference = earlier[across], later[across], difference[across]
        better = difference < self.difference[later]
        order = np.flatnonzero(better)[np.argsort(-difference[better], kind="stable")]
        # Of several matches of one image the last that is written stays, and that is the best.
        self.best[later[order]] = earlier[order]
        self.difference[later[order]] = difference[order]
