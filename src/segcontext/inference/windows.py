"""Sliding windows: where they lie, how their answers are blended, and the bases that they may share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from segcontext.aggregation import EMA
from segcontext.errors import RecipeError
from segcontext.inference.protocol import Protocol
from segcontext.inference.views import activate, ask, device_of, pad, rescale
from segcontext.ops import label_dtype

__all__ = ["held_bases", "slide", "slide_labels"]


def slide(model: nn.Module, view: Tensor, protocol: Protocol) -> Tensor:
    """Answers of a whole view, averaged over its windows.

    Args:
        model: images (B, 3, H, W) → `Output`.
        view: floats in [0, 1], (B, 3, height, width).
        protocol: windows, blending and what is averaged.

    Returns:
        Probabilities or logits, float32, (B, classes, height, width).
    """
    return torch.cat(list(_strips(model, view, protocol)), 2)


def slide_labels(model: nn.Module, view: Tensor, protocol: Protocol) -> Tensor:
    """The likeliest class of each pixel of a whole view, windows' answers averaged.

    Only the rows that windows still to come reach are held as floats, so that memory grows with the image's width and
    the window's height, not with the image's height.

    Args:
        model: images (B, 3, H, W) → `Output`.
        view: floats in [0, 1] or uint8, (B, 3, height, width).
        protocol: windows, blending and what is averaged.

    Returns:
        Integers as `segcontext.ops.label_dtype` has them, (B, height, width).
    """
    strips = _strips(model, view, protocol)
    return torch.cat([strip.argmax(1).to(label_dtype(strip.shape[1])) for strip in strips], 1)


def _strips(model: nn.Module, view: Tensor, protocol: Protocol) -> Iterator[Tensor]:
    """The averaged answers from top to bottom, (B, classes, rows, width), each strip once no window can add to it."""
    (height, width), (rows, columns) = protocol.sides(), (int(view.shape[-2]), int(view.shape[-1]))
    tops = _starts(max(height, rows), height, protocol.overlap)
    lefts = _starts(max(width, columns), width, protocol.overlap)
    device = device_of(model, view.device)
    weight = _weight(height, width, protocol, device)
    total: Tensor | None = None
    weights = weight.new_zeros(height, max(width, columns))
    with _context(model, view, protocol):
        for top, following in pairwise([*tops, max(height, rows)]):
            for left in lefts:
                window = _floats(view[..., top : top + height, left : left + width].to(device))
                answer = activate(ask(model, pad(model, window, height, width), protocol).logits(), protocol)
                if total is None:
                    total = answer.new_zeros(*answer.shape[:3], max(width, columns))
                place = (..., slice(left, left + width))
                total[place] += answer * weight
                weights[place] += weight
            assert total is not None, "there is at least one window"
            done = following - top
            finished = (total[..., :done, :] / weights[:done])[..., : rows - top, :columns]
            # The rows left over are where the next windows begin.
            total, weights = _moved_up(total, done), _moved_up(weights, done)
            yield finished


def _moved_up(values: Tensor, by: int) -> Tensor:
    moved = torch.zeros_like(values)
    kept = values.shape[-2] - by
    if kept > 0:
        moved[..., :kept, :] = values[..., by:, :]
    return moved


def _floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one side; the last one is shifted inwards to end with the image."""
    # Without the small term, 768 · (1 − 1/3) would round up to 513.
    step = max(1, math.ceil(window * (1 - overlap) - 1e-6))
    count = math.ceil((length - window) / step) + 1
    return [min(index * step, length - window) for index in range(count)]


def _weight(height: int, width: int, protocol: Protocol, device: torch.device) -> Tensor:
    """How much each pixel of a window counts, (height, width), at most 1."""
    if protocol.blend == "uniform":
        return torch.ones(height, width, device=device)
    sides = []
    for side in (height, width):
        distance = (torch.arange(side, device=device, dtype=torch.float32) - (side - 1) / 2) / (side / 8)
        sides.append((-0.5 * distance.square()).exp())
    # At the corners it is e⁻¹⁶ still, far above what float32 loses in the sum.
    return sides[0][:, None] * sides[1][None]


def _context(model: nn.Module, view: Tensor, protocol: Protocol) -> AbstractContextManager[None]:
    if protocol.context == "window":
        return nullcontext()
    longest = max(int(view.shape[-2]), int(view.shape[-1]))
    factor = min(1.0, (protocol.thumbnail or max(protocol.sides())) / longest)
    height, width = (max(1, round(side * factor)) for side in view.shape[-2:])
    # PyTorch resizes bytes on the CPU alone; where it can, the floats of a very large image are never made.
    view = view if view.device.type == "cpu" else _floats(view)
    return held_bases(model, _floats(rescale(view, height, width)).to(device_of(model, view.device)))


@contextmanager
def held_bases(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Finds the EM bases of images once and holds them: inside, every pass assigns its pixels to these bases.

    Source: EMANet §4.2 finds bases by iterating E and M steps over all pixels of an image. Where an image is too large
    for one pass, its thumbnail stands for it, and each tile does the last E step and the re-estimation (eqs. 12, 14).

    Args:
        model: a network with one EMA unit or more, in evaluation mode.
        images: floats in [0, 1], (B, 3, height, width). Inside, the network takes that many images at a time.

    Raises:
        RecipeError: the network has no EMA unit, so there is nothing to hold.
    """
    units = [module for module in model.modules() if isinstance(module, EMA)]
    if not units:
        raise RecipeError(
            "context 'image' holds the EM bases of the whole image, but this network has no EMA unit. "
            "Leave context out, or use a network with aggregation 'ema'."
        )
    try:
        for unit in units:
            unit.hold("find")
        model(images)
        for unit in units:
            unit.hold("use")
        yield
    finally:
        for unit in units:
            unit.hold(None)
