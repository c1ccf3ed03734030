"""The likeliest classes straight from small logits on a GPU: the resized ones are never in memory."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from segcontext.gpu.availability import obstacle

__all__ = ["Counted", "confusion", "confusion_obstacle", "resized_argmax", "resized_argmax_obstacle"]

#: Programs add to one of these copies of the counts, so that few wait for each other.
COPIES = 64

#: Pixels of a program, rows and columns.
PIECE = (16, 128)

INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


class Counted(NamedTuple):
    """What `confusion` returns.

    Attributes:
        matrix: int64, (K, K), rows truth, columns prediction.
        bad: int64, (), how many targets are neither a class nor void; they are not in the matrix.
    """

    matrix: Tensor
    bad: Tensor


def resized_argmax_obstacle(logits: Tensor) -> str | None:
    """Why `resized_argmax` cannot run on these, in a few words; `None` where it can.

    Args:
        logits: (B, K, h, w).
    """
    return obstacle(logits)


def confusion_obstacle(logits: Tensor, target: Tensor) -> str | None:
    """Why `confusion` cannot run on these, in a few words; `None` where it can.

    Args:
        logits: (B, K, h, w).
        target: (B, H, W).
    """
    if target.dtype not in INTEGERS:
        return "targets that are no integers"
    if target.device != logits.device:
        return "tensors on several devices"
    return obstacle(logits)


def resized_argmax(
    logits: Tensor,
    size: tuple[int, int],
    *,
    align_corners: bool,
    crop: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """The argmax over the classes of bilinearly resized logits.

    Args:
        logits: (B, K, h, w).
        size: (H, W) that they are brought to, in float32.
        align_corners: of the interpolation.
        crop: (height, width) of the upper left part that is asked for; `None` is all.
        dtype: of the labels.

    Returns:
        (B, height, width): the first class where several are largest; NaN is larger than all numbers.

    Note:
        Interpolated values differ from PyTorch's by their last bit at most, so that a label can only where two classes
        are as near as that.
    """
    labels: Tensor = _argmax(logits, list(size), list(crop or size), align_corners, dtype)
    return labels


def confusion(
    logits: Tensor,
    target: Tensor,
    *,
    size: tuple[int, int] | None = None,
    ignore_index: int = 255,
    align_corners: bool = True,
) -> Counted:
    """Counts how many pixels of each true class were predicted as each class, without writing labels.

    The same as `resized_argmax` and `segcontext.metrics.confusion_matrix`.

    Args:
        logits: (B, K, h, w).
        target: true classes, integers, (B, H, W).
        size: what the logits are brought to, if it is more than the target: this is its upper left part.
        ignore_index: the target value that is not counted.
        align_corners: of the interpolation.

    Returns:
        The matrix, and how many targets are out of range. Nothing waits for the host.
    """
    whole = list(target.shape[1:]) if size is None else list(size)
    return Counted(*_count(logits, target, whole, ignore_index, align_corners))


@torch.library.custom_op("segcontext::resized_argmax_triton", mutates_args=())
def _argmax(logits: Tensor, size: list[int], crop: list[int], align_corners: bool, dtype: torch.dtype) -> Tensor:
    labels = logits.new_empty(logits.shape[0], *crop, dtype=dtype)
    _launch(logits, size, (crop[0], crop[1]), align_corners, labels=labels)
    return labels


@_argmax.register_fake
def _(logits: Tensor, size: list[int], crop: list[int], align_corners: bool, dtype: torch.dtype) -> Tensor:
    return logits.new_empty(logits.shape[0], *crop, dtype=dtype)


@torch.library.custom_op("segcontext::confusion_triton", mutates_args=())
def _count(
    logits: Tensor, target: Tensor, size: list[int], ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    classes = logits.shape[1]
    counts = logits.new_zeros(COPIES, classes**2 + 1, dtype=torch.int32)
    crop = (target.shape[1], target.shape[2])
    _launch(logits, size, crop, align_corners, target=target, counts=counts, ignore_index=ignore_index)
    total = counts.sum(0)
    return total[:-1].view(classes, classes).clone(), total[-1].clone()


@_count.register_fake
def _(logits: Tensor, target: Tensor, size: list[int], ignore_index: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    classes = logits.shape[1]
    return logits.new_empty(classes, classes, dtype=torch.int64), logits.new_empty((), dtype=torch.int64)


def _launch(
    logits: Tensor,
    size: list[int],
    crop: tuple[int, int],
    align_corners: bool,
    *,
    target: Tensor | None = None,
    counts: Tensor | None = None,
    labels: Tensor | None = None,
    ignore_index: int = 255,
) -> None:
    from segcontext.gpu.kernels import largest

    batch, classes, rows, columns = logits.shape
    row_step, column_step = (
        (few - 1) / max(many - 1, 1) if align_corners else few / many
        for few, many in ((rows, size[0]), (columns, size[1]))
    )
    spread = 1 / row_step if row_step else float(size[0])
    high, wide = PIECE
    # Rows of the result to a row of the logits, and half as many unless the corners are aligned.
    bands = ceil(((1 if align_corners else 1.5) * spread + 4) / high)
    cells = classes**2 + 1
    largest.largest[ceil(crop[1] / wide), rows * bands, batch](
        *(logits, logits if target is None else target, logits if counts is None else counts),
        *(logits if labels is None else labels, *crop, rows, columns, row_step, column_step, spread),
        *(
            int((rows, columns) == tuple(size)),
            ignore_index,
            bands,
            *logits.stride(),
            *((0, 0, 0) if target is None else target.stride()),
        ),
        **{"COUNT": counts is not None, "CLASSES": classes, "COPIES": COPIES, "ALIGNED": align_corners},
        # Few classes are counted within a program first.
        **{"BINS": 1 << cells.bit_length() if cells < 512 else 0, "HIGH": high, "WIDE": wide},
    )
