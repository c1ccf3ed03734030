"""Kernels of the boundary F-score: one bit per class and pixel, and a list of the boundary's pixels to look around."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["mark", "match"]


@triton.jit
def append(entries, length, flags, values):
    """Adds the flagged values to a list, in any order."""
    number = flags.to(tl.int32)
    start = tl.atomic_add(length, tl.sum(number, 0), sem="relaxed")
    tl.store(entries + start + tl.cumsum(number, 0) - 1, values, mask=flags)


@triton.jit
def bit(label, word):
    """A label's bit within a word of 32; none for what is no class or belongs to another word."""
    return tl.where((label >= 0) & (label // 32 == word), 1 << (label % 32), 0)


@triton.jit
def mark(
    labels,
    bits,
    entries,
    lengths,
    height,
    width,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Bits of the classes on whose boundary a pixel is, (2, WORDS, pixels), and the list of (pixel, class) pairs.

    `labels` (2, pixels) are the prediction's and the truth's. An entry is the pixel times 32·WORDS plus the class.
    """
    side, pixels = tl.program_id(1).to(tl.int64), height * width
    labels += side * pixels
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, y, x = n < pixels, n // width, n % width
    # Beyond the last row and column a pixel is its own neighbour, which never differs.
    to_right, to_below = tl.where(x + 1 < width, 1, 0), tl.where(y + 1 < height, width, 0)
    across = n + tl.where((to_right > 0) & (to_below > 0), width + 1, 0)
    own = tl.load(labels + n, mask=inside, other=-1).to(tl.int32)
    right = tl.load(labels + n + to_right, mask=inside, other=-1).to(tl.int32)
    below = tl.load(labels + n + to_below, mask=inside, other=-1).to(tl.int32)
    corner = tl.load(labels + across, mask=inside, other=-1).to(tl.int32)
    differs = (right != own) | (below != own) | (corner != own)
    for word in range(WORDS):
        found = bit(own, word) | bit(right, word) | bit(below, word) | bit(corner, word)
        tl.store(bits + (side * WORDS + word) * pixels + n, tl.where(differs, found, 0), mask=inside)
    entries += side * 4 * pixels
    lengths += side
    code = n * (32 * WORDS)
    append(entries, lengths, inside & differs & (own >= 0), code + own)
    append(entries, lengths, inside & (right != own) & (right >= 0), code + right)
    fresh = (below != own) & (below != right)
    append(entries, lengths, inside & fresh & (below >= 0), code + below)
    fresh = (corner != own) & (corner != right) & (corner != below)
    append(entries, lengths, inside & fresh & (corner >= 0), code + corner)


@triton.jit
def match(
    bits,
    entries,
    lengths,
    offsets,
    ends,
    counts,
    height,
    width,
    SLACKS: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Counts the pairs by class and by the first slack within which the other side has a counterpart.

    `offsets` (n, 2) are rows and columns by their distance, `ends` (SLACKS,) how many each slack has; `counts` is
    (2, 32·WORDS, SLACKS + 1), its last column for pairs without a counterpart.
    """
    side, pixels = tl.program_id(1).to(tl.int64), height * width
    classes: tl.constexpr = 32 * WORDS
    length = tl.load(lengths + side)
    entries += side * 4 * pixels
    counts += side * classes * (SLACKS + 1)
    others = bits + (1 - side) * WORDS * pixels
    for start in range(tl.program_id(0) * BLOCK, length, tl.num_programs(0) * BLOCK):
        n = start + tl.arange(0, BLOCK)
        mine = n < length
        entry = tl.load(entries + n, mask=mine, other=0)
        label, pixel = entry % classes, entry // classes
        y, x = pixel // width, pixel % width
        words, shift = others + (label // 32).to(tl.int64) * pixels, label % 32
        level = tl.full([BLOCK], SLACKS, tl.int32)
        first = 0
        for slack in range(SLACKS):
            last = tl.load(ends + slack)
            hit = tl.zeros([BLOCK], tl.int32)
            for number in range(first, last):
                row, column = y + tl.load(offsets + 2 * number), x + tl.load(offsets + 2 * number + 1)
                there = mine & (row >= 0) & (row < height) & (column >= 0) & (column < width)
                hit |= tl.load(words + row * width + column, mask=there, other=0) >> shift
            level = tl.where((level == SLACKS) & ((hit & 1) > 0), slack, level)
            first = last
        tl.atomic_add(counts + label * (SLACKS + 1) + level, 1, mask=mine, sem="relaxed")
