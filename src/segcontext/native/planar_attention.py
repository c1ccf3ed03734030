"""Attention over windows of maps whose rows are contiguous, without turning them; imports numba."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcontext.native import row_weights
from segcontext.native.row_products import rows_at_once
from segcontext.native.row_walks import BLOCK, workspace
from segcontext.native.threads import split
from segcontext.native.vectors import LANES

__all__ = ["attend", "differentiate", "is_planar"]

#: Columns that are worked on together, so that the rows of a window stay in the nearest cache.
COLUMNS = 128


def is_planar(*maps: Tensor) -> bool:
    """Whether the pixels of each row lie side by side in all of these maps (B, C, h, w)."""
    return all(each.stride(3) == 1 or each.shape[3] == 1 for each in maps)


def attend(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, logs: Tensor, kernel_size: int, dilation: int, scale: float
) -> None:
    """Writes what `segcontext.ops.local_attention` returns.

    Args:
        query: (B, D, h, w), planar as all of them, and in one dtype.
        key: (B, D, h, w).
        value: (B, C, h, w).
        out: (B, C, h, w); is written.
        logs: (B, h, w), float32: the logarithms of the sums of exponentials; is written.
        kernel_size: k.
        dilation: r.
        scale: multiplies the logits.
    """
    walk = _Walk(value, kernel_size, dilation)
    weights = walk.table()
    flat, factor = logs.view(-1, logs.shape[2]).numpy(), np.float32(scale)
    units = walk.tiles((query, key))

    def weigh(part: Any, *common: Any) -> None:
        row_weights.compare(units, part, 0, weights, *common)
        row_weights.weigh(units, part, weights, flat, factor, dilation)

    walk.run(units, weigh)
    blocks = walk.blocks(value, out, weights)
    walk.run(blocks, lambda *part: row_weights.mix(blocks, *part))


def differentiate(
    maps: Sequence[Tensor],
    gradient: Tensor,
    outs: Sequence[Tensor | None],
    logs: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> None:
    """Writes the gradients of the maps.

    Args:
        maps: query, key and value, as for `attend`.
        gradient: (B, C, h, w), of the result.
        outs: of the query, the key and the value: what is written; `None` where it is not wanted.
        logs: as `attend` wrote them.
        kernel_size: k.
        dilation: r.
        scale: multiplies the logits.
    """
    query, key, value = maps
    walk = _Walk(value, kernel_size, dilation, gathers=True)
    weights, changes = walk.table(), walk.table()
    flat, factor = logs.view(-1, logs.shape[2]).numpy(), np.float32(scale)
    units = walk.tiles((query, key), (gradient, value))

    def weigh(part: Any, *common: Any) -> None:
        row_weights.compare(units, part, 0, weights, *common)
        row_weights.compare(units, part, 1, changes, *common)
        row_weights.slopes(units, part, weights, changes, flat, factor, dilation, walk.margin)

    walk.run(units, weigh)
    blocks = []
    for source, out, table, turned in (
        (key, outs[0], changes, False),
        (query, outs[1], changes, True),
        (gradient, outs[2], weights, True),
    ):
        if out is not None:
            blocks.append(walk.blocks(source, out, table, turned=turned))
    found = np.concatenate(blocks)
    walk.run(found, lambda *part: row_weights.mix(found, *part))


class _Walk:
    """What all walks through maps of one size have in common.

    Args:
        like: one of the maps.
        kernel_size: k.
        dilation: r.
        gathers: whether weights are also read as far from a pixel as a window reaches, and need margins of zeros.
    """

    def __init__(self, like: Tensor, kernel_size: int, dilation: int, *, gathers: bool = False) -> None:
        self.images, _, self.height, self.columns = like.shape
        filled = -(-self.columns // LANES) * LANES
        # One position further along the row is outside in any case, and need not lie further away than that.
        self.across = min(dilation, filled)
        self.reach = kernel_size // 2 * self.across
        # Whole vectors, for the sake of the places in the cache.
        self.margin = margin = -(-self.reach // LANES) * LANES if gathers else 0
        self.size, self.dilation = kernel_size, dilation
        # A line of the cache more, because positions that are powers of two apart share few places in it.
        self.plane = filled + 2 * margin + 16
        options = (self.columns, margin, dilation, self.across, (0,) * kernel_size, (0,) * rows_at_once(kernel_size))
        self.common = ((0,) * like.element_size(), options)
        self.tile = min(COLUMNS, filled)

    def table(self) -> Any:
        """Room for weights: (rows, k², columns and margins)."""
        return torch.empty(self.images * self.height, self.size**2, self.plane).numpy()

    def phases(self) -> Iterator[tuple[int, int, int]]:
        """Images, first rows, and how many follow."""
        for image in range(self.images):
            for phase in range(min(self.dilation, self.height)):
                yield image, phase, -(-(self.height - phase) // self.dilation)

    def tiles(self, *pairs: tuple[Tensor, Tensor]) -> Any:
        """Units for `row_weights.compare`, enough of them for all threads."""
        count = self.images * min(self.dilation, self.height)
        wanted = max(-(-self.columns // self.tile), -(-2 * torch.get_num_threads() // count))
        return np.array(
            [
                (
                    image * self.height + phase,
                    rows,
                    first,
                    last,
                    *(
                        number
                        for left, right in pairs
                        for number in (
                            *self._place(left, image, phase),
                            *self._place(right, image, phase),
                            left.shape[1],
                        )
                    ),
                )
                for image, phase, rows in self.phases()
                for first, last in self._spans(wanted)
            ]
        )

    def blocks(self, source: Tensor, out: Tensor, table: Any, *, turned: bool = False) -> Any:
        """Units for `row_weights.mix`.

        Args:
            source: the map.
            out: what is written.
            table: the weights.
            turned: whether a pixel gives to those that look at it, not to those that it looks at.
        """
        size, plane = self.size, 4 * self.plane
        down, half = self.dilation * size**2 * plane, size // 2
        units = []
        for image, phase, rows in self.phases():
            start = table.ctypes.data + (image * self.height + phase) * size**2 * plane + 4 * self.margin
            if turned:
                # The pixel at the first position of its window sees the last one's there.
                start += (size - 1) * plane - 4 * self.reach
                steps = (start, down, size * plane, 4 * self.across - plane)
            else:
                start += (size - 1) * size * plane - half * down
                steps = (start, down, down - size * plane, plane)
            places = (*self._place(source, image, phase), *self._place(out, image, phase))
            for first, last in self._spans(-(-self.columns // self.tile)):
                units.append((0, rows, first, last, *places, *steps))
        channels = np.arange(0, out.shape[1], BLOCK)
        found = np.tile(np.array(units), (len(channels), 1, 1)).reshape(len(channels), len(units), -1)
        found[:, :, 0] = np.minimum(BLOCK, out.shape[1] - channels)[:, None]
        found[:, :, 4] += channels[:, None] * found[:, :, 6]
        found[:, :, 7] += channels[:, None] * found[:, :, 9]
        return found.reshape(-1, found.shape[2])

    def run(self, units: Any, work: Callable[..., None]) -> None:
        """Has work done on all units by all threads; it is handed a part of them, and what walks want."""
        widest = int((units[:, 3] - units[:, 2]).max())
        spaces: list[Any] = []

        def part(first: int, last: int) -> None:
            try:
                space = spaces.pop()
            except IndexError:
                space = workspace(self.size, self.reach, widest, self.plane)
            work((first, last), *self.common, space)
            spaces.append(space)

        split(len(units), part)

    def _place(self, tensor: Tensor, image: int, phase: int) -> tuple[int, int, int]:
        width = tensor.element_size()
        images, channels, rows, _ = (width * step for step in tensor.stride())
        return tensor.data_ptr() + image * images + phase * rows, self.dilation * rows, channels

    def _spans(self, wanted: int) -> list[tuple[int, int]]:
        """Columns cut into about so many tiles of whole vectors."""
        vectors = -(-self.columns // LANES)
        wide = -(-vectors // min(wanted, vectors)) * LANES
        return [(first, min(first + wide, vectors * LANES)) for first in range(0, self.columns, wide)]
