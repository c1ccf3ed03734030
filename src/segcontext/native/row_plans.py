"""Which walks down the rows of maps there are, and where each begins; kept for the next maps of the same layout."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from segcontext.native.row_walks import BLOCK
from segcontext.native.vectors import LANES

__all__ = ["Geometry", "mixes", "products"]

#: Columns that are worked on together, so that the rows of a window stay in the nearest cache.
COLUMNS = 128


class Geometry(NamedTuple):
    """What all walks through maps of one size have in common.

    Attributes:
        images: B.
        height: rows of the maps.
        columns: of the maps.
        size: k.
        dilation: r.
        gathers: whether weights are also read as far from a pixel as a window reaches, and need margins of zeros.
    """

    images: int
    height: int
    columns: int
    size: int
    dilation: int
    gathers: bool

    @property
    def filled(self) -> int:
        """The columns, filled up to whole vectors."""
        return -(-self.columns // LANES) * LANES

    @property
    def across(self) -> int:
        """Columns from one position of a window to the next.

        One position further along the row is outside in any case, and need not lie further away than that.
        """
        return min(self.dilation, self.filled)

    @property
    def reach(self) -> int:
        """Columns from the middle of a window to its last position."""
        return self.size // 2 * self.across

    @property
    def margin(self) -> int:
        """Zeros on both sides of a row of weights: whole vectors, for the sake of the places in the cache."""
        return -(-self.reach // LANES) * LANES if self.gathers else 0

    @property
    def plane(self) -> int:
        """Floats from the weights of one position to those of the next.

        A line of the cache more than they are, because positions that are powers of two apart share few places in it.
        """
        return self.filled + 2 * self.margin + 16

    def phases(self) -> Iterator[tuple[int, int, int]]:
        """Images, first rows, and how many follow."""
        for image in range(self.images):
            for phase in range(min(self.dilation, self.height)):
                yield image, phase, -(-(self.height - phase) // self.dilation)

    def spans(self, wanted: int) -> list[tuple[int, int]]:
        """Columns cut into tiles of whole vectors: about so many, and none too wide."""
        vectors = self.filled // LANES
        wide = -(-vectors // min(max(wanted, self._tiles()), vectors)) * LANES
        return [(first, min(first + wide, self.filled)) for first in range(0, self.columns, wide)]

    def _tiles(self) -> int:
        return -(-self.columns // min(COLUMNS, self.filled))


class _Layout(NamedTuple):
    """Steps of a map in bytes, and how many channels it has."""

    image: int
    channel: int
    row: int
    channels: int

    def place(self, geometry: Geometry, image: int, phase: int) -> tuple[int, int, int]:
        """Bytes to a phase's first row, from there to the next one of the phase, and to the next channel."""
        return image * self.image + phase * self.row, geometry.dilation * self.row, self.channel


def products(geometry: Geometry, threads: int, *pairs: tuple[Tensor, Tensor]) -> Any:
    """Units for `row_weights.compare`, enough of them for all threads.

    Args:
        geometry: of the maps.
        threads: how many there are.
        pairs: maps that are multiplied with one another, (B, D, h, w).

    Returns:
        int64, (units, 4 + 7 × pairs): the first row, how many rows, the first column and the one behind the last; and
        of each pair three of either map, see `_Layout.place`, and the channels.
    """
    maps = [each for pair in pairs for each in pair]
    units = _products(geometry, threads, tuple(map(_layout, maps))).copy()
    for number, each in enumerate(maps):
        units[:, 4 + number // 2 * 7 + number % 2 * 3] += each.data_ptr()
    return units


def mixes(geometry: Geometry, source: Tensor, out: Tensor, table: Any, *, turned: bool = False) -> Any:
    """Units for `row_weights.mix`.

    Args:
        geometry: of the maps.
        source: the map, (B, C, h, w).
        out: what is written, likewise.
        table: the weights, (B · h, k², `Geometry.plane`).
        turned: whether a pixel gives to those that look at it, not to those that it looks at.

    Returns:
        int64, (units, 14): channels; rows; the first column and the one behind the last; three of either map, see
        `_Layout.place`; and of the weights where they begin, and the steps to the next row of the phase, to the next
        row of the window, and to the next position in it.
    """
    units = _mixes(geometry, _layout(source), _layout(out), turned).copy()
    for column, address in ((4, source.data_ptr()), (7, out.data_ptr()), (10, table.ctypes.data)):
        units[:, column] += address
    return units


def _layout(tensor: Tensor) -> _Layout:
    images, channels, rows, _ = (tensor.element_size() * step for step in tensor.stride())
    return _Layout(images, channels, rows, tensor.shape[1])


# A network asks for the same again and again, and planning takes a tenth of the time of a small map's attention.
@lru_cache(maxsize=64)
def _products(geometry: Geometry, threads: int, layouts: tuple[_Layout, ...]) -> Any:
    count = geometry.images * min(geometry.dilation, geometry.height)
    pairs = tuple(zip(layouts[::2], layouts[1::2], strict=True))
    return np.array(
        [
            (
                image * geometry.height + phase,
                rows,
                first,
                last,
                *(
                    number
                    for left, right in pairs
                    for number in (
                        *left.place(geometry, image, phase),
                        *right.place(geometry, image, phase),
                        left.channels,
                    )
                ),
            )
            for image, phase, rows in geometry.phases()
            for first, last in geometry.spans(-(-2 * threads // count))
        ]
    )


@lru_cache(maxsize=64)
def _mixes(geometry: Geometry, source: _Layout, out: _Layout, turned: bool) -> Any:
    size, plane = geometry.size, 4 * geometry.plane
    down, half = geometry.dilation * size**2 * plane, size // 2
    units = []
    for image, phase, rows in geometry.phases():
        start = (image * geometry.height + phase) * size**2 * plane + 4 * geometry.margin
        if turned:
            # The pixel at the first position of its window sees the last one's there.
            start += (size - 1) * plane - 4 * geometry.reach
            steps = (start, down, size * plane, 4 * geometry.across - plane)
        else:
            start += (size - 1) * size * plane - half * down
            steps = (start, down, down - size * plane, plane)
        places = (*source.place(geometry, image, phase), *out.place(geometry, image, phase))
        for first, last in geometry.spans(1):
            units.append((0, rows, first, last, *places, *steps))
    channels = np.arange(0, out.channels, BLOCK)
    found = np.tile(np.array(units), (len(channels), 1, 1)).reshape(len(channels), len(units), -1)
    found[:, :, 0] = np.minimum(BLOCK, out.channels - channels)[:, None]
    found[:, :, 4] += channels[:, None] * found[:, :, 6]
    found[:, :, 7] += channels[:, None] * found[:, :, 9]
    return found.reshape(-1, found.shape[2])
