"""Finds the pairs among many hashes that differ in a few bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["near_pairs"]

Indices: TypeAlias = npt.NDArray[np.int64]

_BITS = 64
# Pairs that are compared at a time; it bounds the memory.
_BLOCK = 1 << 21


def near_pairs(hashes: npt.NDArray[np.uint64], distance: int) -> Iterator[tuple[Indices, Indices]]:
    """Finds all pairs of hashes whose Hamming distance is at most `distance`.

    The bits are cut into `distance` + 1 bands. Two hashes that differ in no more than `distance` bits agree in at
    least one band (Norouzi, Punjani, Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012), so
    only hashes that share a band are compared.

    Args:
        hashes: 64 bits each, (n,).
        distance: how many bits may differ.

    Yields:
        Positions of the first and the second hash of some pairs, first below second; each pair comes once.

    Example:
        >>> hashes = np.array([0b0000, 0b0111, 0b0011, 0b0000], np.uint64)
        >>> sorted(zip(*(np.concatenate(part).tolist() for part in zip(*near_pairs(hashes, 1)))))
        [(0, 3), (1, 2)]
    """
    edges = np.linspace(0, _BITS, distance + 2).round().astype(int).tolist()
    masks = [_mask(low, high) for low, high in itertools.pairwise(edges)]
    for band, mask in enumerate(masks):
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, starts):
            for first, second in _within(bucket.astype(np.int64), hashes[bucket], distance):
                different = hashes[first] ^ hashes[second]
                # Where they agree in an earlier band, the pair came with that one.
                fresh = np.all([(different & earlier) != 0 for earlier in masks[:band]], axis=0)
                fresh = np.broadcast_to(fresh, first.shape)
                if fresh.any():
                    yield np.minimum(first, second)[fresh], np.maximum(first, second)[fresh]


def _mask(low: int, high: int) -> np.uint64:
    return np.uint64((1 << high) - (1 << low))


def _within(members: Indices, hashes: npt.NDArray[np.uint64], distance: int) -> Iterator[tuple[Indices, Indices]]:
    """The pairs of some members whose hashes are near, in blocks."""
    rows = max(1, _BLOCK // max(1, len(members)))
    for start in range(0, len(members) - 1, rows):
        different = hashes[start : start + rows, None] ^ hashes[None, start:]
        first, second = np.nonzero(np.triu(_ones(different) <= distance, 1))
        if len(first):
            yield members[start + first], members[start + second]


def _ones(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """How many bits are set, of the shape of the values."""
    if hasattr(np, "bitwise_count"):
        counted: npt.NDArray[np.uint8] = np.bitwise_count(values)
        return counted
    # NumPy 1 has no such function.
    parts = np.ascontiguousarray(values).view(np.uint16)
    found: npt.NDArray[Any] = _table()[parts].reshape(*values.shape, 4).sum(-1)
    return found.astype(np.uint8)


@lru_cache(maxsize=1)
def _table() -> npt.NDArray[np.uint8]:
    """How many bits are set in each number of 16 bits."""
    numbers = np.arange(1 << 16, dtype=np.uint32)
    return sum((numbers >> bit & 1 for bit in range(16)), np.zeros_like(numbers)).astype(np.uint8)
