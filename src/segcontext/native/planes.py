"""Maps of any layout as kernels want them: float32, a pixel's channels side by side, a phase of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segcontext.native.pixel_rows import move_rows
from segcontext.native.threads import split
from segcontext.native.vectors import LANES

__all__ = ["Part", "Plane", "each_part", "filled"]

WIDE = (0, 0, 0, 0)
#: Rows of a phase that are copied at a time, where a map has to be.
COPIED = 8


class Part(NamedTuple):
    """Some rows of one phase of one image.

    Attributes:
        image: its number.
        phase: the phase: its first row in the map.
        rows: of the whole phase.
        first: the first row of this part, counted in the phase.
        last: the row behind its last.
    """

    image: int
    phase: int
    rows: int
    first: int
    last: int


def filled(channels: int) -> int:
    """Channels filled up to whole vectors."""
    return -(-channels // LANES) * LANES


class Plane:
    """A map that kernels read or write, in place where its layout allows.

    Args:
        tensor: (B, C, h, w), float32 or bfloat16, with any strides.
        around: rows of the phase that are read above and below those of the part.
        written: whether the kernel writes it; otherwise it reads it.
    """

    def __init__(self, tensor: Tensor, *, around: int = 0, written: bool = False) -> None:
        self.tensor = tensor
        self.around = around
        self.written = written
        self.in_place = tensor.dtype == torch.float32 and tensor.stride(1) == 1 and tensor.shape[1] % LANES == 0

    def scratch(self, rows: int) -> Tensor | None:
        """What a part of so many rows is copied to; `None` where it is not."""
        if self.in_place:
            return None
        channels, width = self.tensor.shape[1], self.tensor.shape[3]
        # One line of the cache more than the channels: where pixels are powers of two apart, few places take them all.
        size = (rows + 2 * self.around, width, filled(channels) + 16)
        # Only zeros may fill the vectors up.
        return torch.empty(size) if channels % LANES == 0 else torch.zeros(size)

    def at(self, part: Part, dilation: int, scratch: Tensor | None) -> tuple[int, int, int]:
        """The address of the phase's first pixel, and the steps in bytes to the next row of the phase and column."""
        if scratch is None:
            begin, down, across, _ = self._place(part, dilation)
            return begin, down, across
        lowest, highest = self._span(part)
        if not self.written:
            self._move(part, dilation, scratch, lowest, highest)
        down, across, _ = (4 * step for step in scratch.stride())
        return scratch.data_ptr() - lowest * down, down, across

    def put_back(self, part: Part, dilation: int, scratch: Tensor | None) -> None:
        """Copies what a kernel has written to where it belongs."""
        if scratch is not None and self.written:
            self._move(part, dilation, scratch, *self._span(part))

    def _span(self, part: Part) -> tuple[int, int]:
        return max(0, part.first - self.around), min(part.rows, part.last + self.around)

    def _place(self, part: Part, dilation: int) -> tuple[int, int, int, int]:
        width = self.tensor.element_size()
        images, channels, rows, columns = (width * step for step in self.tensor.stride())
        begin = self.tensor.data_ptr() + part.image * images + part.phase * rows
        return begin, dilation * rows, columns, channels

    def _move(self, part: Part, dilation: int, scratch: Tensor, lowest: int, highest: int) -> None:
        begin, down, across, along = self._place(part, dilation)
        width = WIDE[: self.tensor.element_size()]
        near = (scratch.data_ptr(), *(4 * step for step in scratch.stride()), WIDE)
        far = (begin + lowest * down, down, across, along, width)
        source, out = (near, far) if self.written else (far, near)
        move_rows(source, out, highest - lowest, self.tensor.shape[3], self.tensor.shape[1])


def each_part(
    planes: Sequence[Plane],
    dilation: int,
    space: Callable[[], Any],
    run: Callable[[Part, tuple[tuple[int, int, int], ...], Any], None],
) -> None:
    """Runs a kernel over all parts of some maps, on all threads.

    Args:
        planes: the maps, of the same size.
        dilation: rows between neighbouring rows of a phase.
        space: makes what a call of the kernel works in.
        run: the kernel: is handed the part, where its maps are (see `Plane.at`), and such a space.
    """
    images, _, height, _ = planes[0].tensor.shape
    phases = min(dilation, height)
    longest = -(-height // dilation)
    if all(plane.in_place for plane in planes):
        pieces = -(-4 * torch.get_num_threads() // (images * phases))
        size = max(2, -(-longest // pieces))
        # Kernels take two rows at a time.
        size += size % 2
    else:
        size = max(COPIED, 4 * max(plane.around for plane in planes))
    parts = [
        Part(image, phase, rows, first, min(rows, first + size))
        for image in range(images)
        for phase in range(phases)
        for rows in (-(-(height - phase) // dilation),)
        for first in range(0, rows, size)
    ]
    # Shared by the parts that a thread takes one after the other.
    spaces: list[tuple[list[Tensor | None], Any]] = []

    def work(first: int, last: int) -> None:
        try:
            scratch, space_ = spaces.pop()
        except IndexError:
            scratch, space_ = [plane.scratch(min(size, longest)) for plane in planes], space()
        for part in parts[first:last]:
            pairs = list(zip(planes, scratch, strict=True))
            run(part, tuple(plane.at(part, dilation, each) for plane, each in pairs), space_)
            for plane, each in pairs:
                plane.put_back(part, dilation, each)
        spaces.append((scratch, space_))

    split(len(parts), work)
