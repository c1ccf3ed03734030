"""Kernel of what follows EM attention in its unit: the re-estimated pixels are never written out."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["output"]


@triton.jit
def output(
    x,
    shares,
    means,
    weight,
    shift,
    out,
    pixels,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUT_CHANNELS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE_BASES: tl.constexpr,
    CHUNK: tl.constexpr,
    OUT_CHUNK: tl.constexpr,
):
    """ReLU(x + W·ReLU(z·means) + shift) for a tile of pixels and a chunk of output channels."""
    image, start = tl.program_id(2).to(tl.int64), tl.program_id(1) * TILE
    n, k = start + tl.arange(0, TILE), tl.arange(0, WIDE_BASES)
    o = tl.program_id(0) * OUT_CHUNK + tl.arange(0, OUT_CHUNK)
    inside, bases, wanted = n < pixels, k < BASES, o < OUT_CHANNELS
    shares += image * pixels * BASES
    z = tl.load(shares + n[:, None] * BASES + k[None, :], mask=inside[:, None] & bases[None, :], other=0.0)
    means += image * BASES * CHANNELS
    there = inside[:, None] & wanted[None, :]
    place = tl.arange(0, TILE)[:, None] * OUT_CHANNELS + o[None, :]
    x += (image * pixels + start) * OUT_CHANNELS
    out += (image * pixels + start) * OUT_CHANNELS
    # Added up first, while registers are free.
    found = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    found += tl.load(shift + o, mask=wanted, other=0.0).to(tl.float32)[None, :]
    for first in range(0, CHANNELS, CHUNK):
        c = first + tl.arange(0, CHUNK)
        channels = c < CHANNELS
        known = bases[:, None] & channels[None, :]
        held = tl.load(means + k[:, None] * CHANNELS + c[None, :], mask=known, other=0.0)
        hidden = tl.maximum(tl.dot(z, held, input_precision="tf32x3"), 0.0).to(z.dtype)
        needed = channels[:, None] & wanted[None, :]
        factors = tl.load(weight + o[None, :] * CHANNELS + c[:, None], mask=needed, other=0.0)
        found = tl.dot(hidden, factors, found, input_precision="tf32x3")
    tl.store(out + place, tl.maximum(found, 0.0).to(out.dtype.element_ty), mask=there)
