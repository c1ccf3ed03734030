"""Kernel that resizes logits, takes the largest, and writes nothing but its label, or only counts."""

from __future__ import annotations

import triton
import triton.language as tl

from segcontext.gpu.kernels.bilinear import corners, unless_copied

__all__ = ["largest"]


@triton.jit
def largest(
    logits,
    target,
    counts,
    labels,
    height,
    width,
    rows,
    columns,
    row_step,
    column_step,
    spread,
    copied,
    ignored,
    bands,
    l_image,
    l_class,
    l_row,
    l_column,
    t_image,
    t_row,
    t_column,
    COUNT: tl.constexpr,
    CLASSES: tl.constexpr,
    COPIES: tl.constexpr,
    ALIGNED: tl.constexpr,
    BINS: tl.constexpr,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Labels of a piece of an image, (B, height, width).

    COUNT adds them to one of the copies of the counts instead, (COPIES, CLASSES² + 1); the last counts bad targets.
    A program takes pixels between two rows of the logits, which share what is interpolated along the rows. As in
    torch.argmax the first value that is no number is larger than all others. `copied` is not 0 where the logits have
    the size of the labels already.
    """
    band, image = tl.program_id(1) // bands, tl.program_id(2).to(tl.int64)
    y = (band.to(tl.float32) * spread).to(tl.int32) - 2 + tl.program_id(1) % bands * HIGH + tl.arange(0, HIGH)
    x = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    top, _, down = corners(tl.maximum(y, 0), rows, row_step, ALIGNED)
    inside = ((y >= 0) & (y < height) & (top == band))[:, None] & (x < width)[None, :]
    left, right, across = corners(tl.minimum(x, width - 1), columns, column_step, ALIGNED)
    right, across = unless_copied(right, across, left, copied != 0)
    after, down = unless_copied(tl.minimum(band + 1, rows - 1), down, band, copied != 0)
    upper = logits + image * l_image + band * l_row
    lower = logits + image * l_image + after * l_row
    left, right, down = left * l_column, right * l_column, down[:, None]
    best = tl.full([HIGH, WIDE], -float("inf"), tl.float32)
    label = tl.zeros([HIGH, WIDE], tl.int32)
    for number in range(CLASSES):
        above = (1 - across) * tl.load(upper + left).to(tl.float32) + across * tl.load(upper + right).to(tl.float32)
        below = (1 - across) * tl.load(lower + left).to(tl.float32) + across * tl.load(lower + right).to(tl.float32)
        value = (1 - down) * above[None, :] + down * below[None, :]
        # Not `value > best`, and no maximum: what is no number is to win, and to stay.
        better = (best == best) & ~(value <= best)
        label = tl.where(better, number, label)
        best = tl.where(better, value, best)
        upper += l_class
        lower += l_class
    if not COUNT:
        place = (image * height + y[:, None]) * width + x[None, :]
        tl.store(labels + place, label.to(labels.dtype.element_ty), mask=inside)
        return
    place = image * t_image + y[:, None] * t_row + x[None, :] * t_column
    truth = tl.load(target + place, mask=inside, other=0).to(tl.int32)
    inside &= truth != ignored
    known = (truth >= 0) & (truth < CLASSES)
    bin_ = tl.where(known, truth * CLASSES + label, CLASSES * CLASSES)
    copy = (tl.program_id(0) + tl.num_programs(0) * tl.program_id(1)) % COPIES
    counts += copy * (CLASSES * CLASSES + 1)
    if BINS > 0:
        bin_ = tl.reshape(tl.where(inside, bin_, CLASSES * CLASSES + 1), [HIGH * WIDE])
        found = tl.histogram(bin_, BINS)
        b = tl.arange(0, BINS)
        tl.atomic_add(counts + b, found, mask=(b <= CLASSES * CLASSES) & (found > 0), sem="relaxed")
    else:
        tl.atomic_add(counts + bin_, 1, mask=inside, sem="relaxed")
