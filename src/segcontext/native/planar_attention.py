"""Attention over windows of maps whose rows are contiguous, without turning them; imports numba."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcontext.native import row_weights
from segcontext.native.row_plans import Geometry, mixes, products
from segcontext.native.row_products import rows_at_once
from segcontext.native.row_walks import workspace
from segcontext.native.threads import split

__all__ = ["attend", "differentiate", "is_planar"]


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
    units = products(walk.geometry, torch.get_num_threads(), (query, key))

    def weigh(part: Any, *common: Any) -> None:
        row_weights.compare(units, part, 0, weights, *common)
        row_weights.weigh(units, part, weights, flat, factor, dilation)

    walk.run(units, weigh)
    blocks = mixes(walk.geometry, value, out, weights)
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
    units = products(walk.geometry, torch.get_num_threads(), (query, key), (gradient, value))

    def weigh(part: Any, *common: Any) -> None:
        row_weights.compare(units, part, 0, weights, *common)
        row_weights.compare(units, part, 1, changes, *common)
        row_weights.slopes(units, part, weights, changes, flat, factor, dilation, walk.geometry.margin)

    walk.run(units, weigh)
    blocks = []
    for source, out, table, turned in (
        (key, outs[0], changes, False),
        (query, outs[1], changes, True),
        (gradient, outs[2], weights, True),
    ):
        if out is not None:
            blocks.append(mixes(walk.geometry, source, out, table, turned=turned))
    found = np.concatenate(blocks)
    walk.run(found, lambda *part: row_weights.mix(found, *part))


class _Walk:
    """What all walks through maps of one size have in common.

    Args:
        like: one of the maps.
        kernel_size: k.
        dilation: r.
        gathers: see `Geometry`.
    """

    def __init__(self, like: Tensor, kernel_size: int, dilation: int, *, gathers: bool = False) -> None:
        images, _, height, columns = like.shape
        self.geometry = geometry = Geometry(images, height, columns, kernel_size, dilation, gathers)
        together = (0,) * rows_at_once(kernel_size)
        options = (columns, geometry.margin, dilation, geometry.across, (0,) * kernel_size, together)
        self.common = ((0,) * like.element_size(), options)

    def table(self) -> Any:
        """Room for weights: (rows, k², columns and margins)."""
        kept = self.geometry
        return torch.empty(kept.images * kept.height, kept.size**2, kept.plane).numpy()

    def run(self, units: Any, work: Callable[..., None]) -> None:
        """Has work done on all units by all threads; it is handed a part of them, and what walks want."""
        widest = int((units[:, 3] - units[:, 2]).max())
        kept = self.geometry
        spaces: list[Any] = []

        def part(first: int, last: int) -> None:
            try:
                space = spaces.pop()
            except IndexError:
                space = workspace(kept.size, kept.reach, widest, kept.plane)
            work((first, last), *self.common, space)
            spaces.append(space)

        split(len(units), part)
