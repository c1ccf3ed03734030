"""A confusion matrix straight from logits on a GPU: they are never upsampled in memory, nor are labels written."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from segcontext.gpu.availability import obstacle

__all__ = ["Counted", "confusion", "confusion_obstacle"]

#: Programs add to one of these copies, so that few wait for each other.
COPIES = 64


class Counted(NamedTuple):
    """What `confusion` returns.

    Attributes:
        matrix: int64, (K, K), rows truth, columns prediction.
        bad: int64, (), how many targets are neither a class nor void; they are not in the matrix.
    """

    matrix: Tensor
    bad: Tensor


def confusion_obstacle(logits: Tensor, target: Tensor) -> str | None:
    """Why `confusion` cannot run on these, in a few words; `None` where it can.

    Args:
        logits: (B, K, h, w).
        target: (B, H, W).
    """
    if target.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64):
        return "targets that are no integers"
    if target.device != logits.device:
        return "tensors on several devices"
    if logits.shape[2] > target.shape[1] or logits.shape[3] > target.shape[2]:
        return "logits larger than the target"
    if target[0].numel() >= 2**31:
        return "an image of more than 2³¹ pixels"
    return obstacle(logits)


def confusion(logits: Tensor, target: Tensor, *, ignore_index: int = 255, align_corners: bool = True) -> Counted:
    """Counts how many pixels of each true class were predicted as each class, from logits of a smaller map.

    The same as upsampling them bilinearly in float32, taking the first largest class of each pixel, and
    `segcontext.metrics.confusion_matrix`; an interpolated value differs by its last bit at most, so that a label can
    only where two classes are as near as that.

    Args:
        logits: (B, K, h, w), without NaN.
        target: true classes, integers, (B, H, W), with H ≥ h and W ≥ w.
        ignore_index: the target value that is not counted.
        align_corners: of the upsampling.

    Returns:
        The matrix, and how many targets are out of range. Counting waits for nothing on the host.
    """
    return Counted(*_count(logits, target, ignore_index, align_corners))


@torch.library.custom_op("segcontext::confusion_triton", mutates_args=())
def _count(logits: Tensor, target: Tensor, ignore_index: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    from segcontext.gpu.kernels import confusion

    batch, classes, rows, columns = logits.shape
    height, width = target.shape[1:]
    row_step, column_step = (
        (few - 1) / max(many - 1, 1) if align_corners else few / many
        for few, many in ((rows, height), (columns, width))
    )
    cells = classes**2 + 1
    counts = logits.new_zeros(COPIES, cells, dtype=torch.int32)
    spread = 1 / row_step if row_step else float(height)
    high, wide = 16, 128
    # Rows of the large map to a row of the small one, and half as many unless the corners are aligned.
    bands = ceil((spread if align_corners else 1.5 * spread) / high + 4 / high)
    confusion.count[ceil(width / wide), rows * bands, batch](
        *(logits, target, counts, height, width, rows, columns, row_step, column_step, spread, ignore_index, bands),
        *(*logits.stride(), *target.stride()),
        **{"CLASSES": classes, "COPIES": COPIES, "ALIGNED": align_corners, "HIGH": high, "WIDE": wide},
        # Few classes are counted within a program first.
        BINS=1 << cells.bit_length() if cells < 512 else 0,
    )
    total = counts.sum(0)
    return total[:-1].view(classes, classes), total[-1].clone()


@_count.register_fake
def _(logits: Tensor, target: Tensor, ignore_index: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    classes = logits.shape[1]
    return logits.new_empty(classes, classes, dtype=torch.int64), logits.new_empty((), dtype=torch.int64)
