"""Kernels on the few bases of EM attention, one launch where PyTorch needs a handful."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["finish", "product"]


@triton.jit
def finish(
    found,
    masses,
    bias,
    before,
    means,
    mass_out,
    parts,
    eps,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
    NORM: tl.constexpr,
    KEEP: tl.constexpr,
    BIAS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Adds up one basis over the parts of an image and normalises it; NORM "sum" leaves the sum as it is."""
    image, k = tl.program_id(1).to(tl.int64), tl.program_id(0)
    c = tl.arange(0, WIDE)
    channels = c < CHANNELS
    total = tl.zeros([WIDE], tl.float32)
    mass = 0.0
    for part in range(parts):
        row = (image * parts + part) * BASES + k
        total += tl.load(found + row * CHANNELS + c, mask=channels, other=0.0)
        mass += tl.load(masses + row)
    row = image * BASES + k
    if NORM == "sum":
        tl.store(means + row * CHANNELS + c, total, mask=channels)
        tl.store(mass_out + row, mass)
    else:
        if BIAS:
            extra = tl.load(bias + c, mask=channels, other=0.0).to(tl.float32)
            total += mass * extra
        mean = total / (mass + eps)
        if NORM == "l2":
            mean /= tl.sqrt(tl.sum(mean * mean, 0)) + eps
        if NORM == "layer_norm":
            mean = tl.where(channels, mean - tl.sum(mean, 0) / CHANNELS, 0.0)
            mean /= tl.sqrt(tl.sum(mean * mean, 0) / CHANNELS + 1e-5)
        if KEEP:
            mean = tl.where(mass > eps, mean, tl.load(before + row * CHANNELS + c, mask=channels, other=0.0))
        tl.store(means + row * CHANNELS + c, mean, mask=channels)
        tl.store(mass_out + row, mass)


@triton.jit
def product(
    left,
    weight,
    out,
    factor,
    w_out,
    w_in,
    BASES: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    CENTRE: tl.constexpr,
    WIDE_BASES: tl.constexpr,
    SIDE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Left (B, BASES, IN) times the weight (its strides are w_out and w_in) times the factor, nearly in float32.

    CENTRE takes the bases' mean away from each.
    """
    image = tl.program_id(1).to(tl.int64)
    k = tl.arange(0, WIDE_BASES)
    o = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    bases = k < BASES
    left += image * BASES * IN
    total = tl.zeros([WIDE_BASES, SIDE], tl.float32)
    for first in range(0, IN, CHUNK):
        c = first + tl.arange(0, CHUNK)
        channels = c < IN
        mine = tl.load(left + k[:, None] * IN + c[None, :], mask=bases[:, None] & channels[None, :], other=0.0)
        place = o[None, :] * w_out + c[:, None] * w_in
        theirs = tl.load(weight + place, mask=(o < OUT)[None, :] & channels[:, None], other=0.0)
        total = tl.dot(mine, theirs.to(tl.float32), total, input_precision="tf32x3")
    if CENTRE:
        total -= (tl.sum(total, 0) / BASES)[None, :]
    target = out + (image * BASES + k[:, None]) * OUT + o[None, :]
    tl.store(target, (factor * total).to(out.dtype.element_ty), mask=bases[:, None] & (o < OUT)[None, :])
