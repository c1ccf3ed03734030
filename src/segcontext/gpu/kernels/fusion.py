"""Kernel that averages what a network says of several views of an image, pixel by pixel."""

from __future__ import annotations

import triton
import triton.language as tl

from segcontext.gpu.kernels.bilinear import corners, unless_copied

__all__ = ["fuse"]


@triton.jit
def along(plane, columns, there):
    """One row of the logits of some classes, between its columns: those of two pixels of the view, two each."""
    found = tl.zeros(there.shape, tl.float32)
    for pair in tl.static_range(2):
        left, right, across, share = columns[pair]
        value = (1 - across) * tl.load(plane + left, mask=there, other=0.0)
        value += across * tl.load(plane + right, mask=there, other=0.0)
        found += share * value
    return found


@triton.jit
def fuse(
    logits,
    sizes,
    starts,
    steps,
    labels,
    views,
    height,
    width,
    CLASSES: tl.constexpr,
    SOFTMAX: tl.constexpr,
    ALIGNED: tl.constexpr,
    WIDE_CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Labels of a piece of a row, (B, height, width).

    `logits` holds all views one after another, each (B, CLASSES, rows, columns), from `starts` on; `sizes` (views, 6)
    are rows and columns of the logits, those of the view's pixels, whether it is mirrored, and whether the logits have
    its size already; `steps` (views, 4) are rows and columns of the logits to a pixel of the view,
    and rows and columns of the view to a pixel of the image.
    """
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    k = tl.arange(0, WIDE_CLASSES)
    inside, classes = x < width, k < CLASSES
    there = classes[:, None] & inside[None, :]
    total = tl.zeros([WIDE_CLASSES, PIXELS], tl.float32)
    for view in range(views):
        rows, columns = tl.load(sizes + 6 * view), tl.load(sizes + 6 * view + 1)
        high, wide = tl.load(sizes + 6 * view + 2), tl.load(sizes + 6 * view + 3)
        mirrored, copied = tl.load(sizes + 6 * view + 4), tl.load(sizes + 6 * view + 5) > 0
        row_step, column_step = tl.load(steps + 4 * view), tl.load(steps + 4 * view + 1)
        high_step, wide_step = tl.load(steps + 4 * view + 2), tl.load(steps + 4 * view + 3)
        plane = logits + tl.load(starts + view) + image * CLASSES * rows * columns
        plane += k[:, None] * (rows * columns)
        # From the image to the view by pixel edges, from there to the logits as the network does it.
        whole = (high == height) & (wide == width)
        upper, lower, down = corners(y, high, high_step, False)
        lower, down = unless_copied(lower, down, upper, whole)
        seen = tl.where(mirrored > 0, width - 1 - x, x)
        left, right, across = corners(tl.maximum(seen, 0), wide, wide_step, False)
        right, across = unless_copied(right, across, left, whole)
        first_left, second_left, between_left = corners(left, columns, column_step, ALIGNED)
        second_left, between_left = unless_copied(second_left, between_left, first_left, copied)
        first_right, second_right, between_right = corners(right, columns, column_step, ALIGNED)
        second_right, between_right = unless_copied(second_right, between_right, first_right, copied)
        pairs = (
            (first_left[None, :], second_left[None, :], between_left[None, :], (1 - across)[None, :]),
            (first_right[None, :], second_right[None, :], between_right[None, :], across[None, :]),
        )
        top, next_top, between = corners(upper, rows, row_step, ALIGNED)
        next_top, between = unless_copied(next_top, between, top, copied)
        value = (1 - between) * along(plane + top * columns, pairs, there)
        value = (1 - down) * (value + between * along(plane + next_top * columns, pairs, there))
        top, next_top, between = corners(lower, rows, row_step, ALIGNED)
        next_top, between = unless_copied(next_top, between, top, copied)
        below = (1 - between) * along(plane + top * columns, pairs, there)
        value += down * (below + between * along(plane + next_top * columns, pairs, there))
        if SOFTMAX:
            value = tl.where(classes[:, None], value, -float("inf"))
            value = tl.exp(value - tl.max(value, 0)[None, :])
            value /= tl.sum(value, 0)[None, :]
        total += value
    # The bits of numbers, as integers, are in their order; what is no number comes first, as in torch.argmax.
    bits = total.to(tl.int32, bitcast=True)
    rank = tl.where(total == total, bits ^ ((bits >> 31) & 0x7FFFFFFF), 0x7FFFFFFF)
    label = tl.argmax(tl.where(classes[:, None], rank, -0x80000000), 0)
    place = (image * height + y) * width + x
    tl.store(labels + place, label.to(labels.dtype.element_ty), mask=inside)
