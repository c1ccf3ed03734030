"""Kernels of EM attention: pixels are assigned to the bases and summed up without their shares being kept.

Pixels are (B, N, C) and bases (B, K, C), contiguous; BASES is K and CHANNELS is C, WIDE_BASES and WIDE are these
rounded up to powers of two. Bases come folded: times λ, and times the projection of the pixels where there is one.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["assign", "mix", "slope", "sums"]


@triton.jit
def sums(
    x,
    folded,
    offset,
    found,
    masses,
    shares,
    pixels,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
    SHARES: tl.constexpr,
    TILE: tl.constexpr,
    WIDE_BASES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Each program sums zᵀx and z over its tiles of one image, and writes z where SHARES says so."""
    part, parts, image = tl.program_id(0), tl.num_programs(0), tl.program_id(1).to(tl.int64)
    k, c, n = tl.arange(0, WIDE_BASES), tl.arange(0, WIDE), tl.arange(0, TILE)
    channels, bases = c < CHANNELS, k < BASES
    place = k[:, None] * CHANNELS + c[None, :]
    there = bases[:, None] & channels[None, :]
    spot = n[:, None] * CHANNELS + c[None, :]
    held = tl.load(folded + image * BASES * CHANNELS + place, mask=there, other=0.0)
    shift = tl.load(offset + image * BASES + k, mask=bases, other=-float("inf"))
    total = tl.zeros([WIDE_BASES, WIDE], tl.float32)
    mass = tl.zeros([WIDE_BASES], tl.float32)
    for start in range(part * TILE, pixels, parts * TILE):
        row = image * pixels + start
        inside = start + n < pixels
        tile = tl.load(x + row * CHANNELS + spot, mask=inside[:, None] & channels[None, :], other=0.0)
        # Bases are the rows: so z is at hand as the left factor of the second product, and nothing spills.
        logits = tl.dot(held, tl.trans(tile), input_precision="tf32x3") + shift[:, None]
        z = tl.exp(logits - tl.max(logits, 0)[None, :])
        z = tl.where(inside[None, :], z / tl.sum(z, 0)[None, :], 0.0)
        mass += tl.sum(z, 1)
        if SHARES:
            target = shares + row * BASES + n[None, :] * BASES + k[:, None]
            tl.store(target, z.to(tile.dtype), mask=inside[None, :] & bases[:, None])
        total = tl.dot(z.to(tile.dtype), tile, total, input_precision="tf32x3")
    here = image * parts + part
    tl.store(found + here * BASES * CHANNELS + place, total, mask=there)
    tl.store(masses + here * BASES + k, mass, mask=bases)


@triton.jit
def products(x, bases, n, k, inside, CHANNELS: tl.constexpr, BASES: tl.constexpr, CHUNK: tl.constexpr):
    """The products of a tile of pixels with all bases, one chunk of channels after another."""
    logits = tl.zeros([n.shape[0], k.shape[0]], tl.float32)
    for first in range(0, CHANNELS, CHUNK):
        c = first + tl.arange(0, CHUNK)
        channels = c < CHANNELS
        tile = tl.load(x + n[:, None] * CHANNELS + c[None, :], mask=inside[:, None] & channels[None, :], other=0.0)
        held = tl.load(
            bases + k[None, :] * CHANNELS + c[:, None], mask=(k < BASES)[None, :] & channels[:, None], other=0.0
        )
        logits = tl.dot(tile, held, logits, input_precision="tf32x3")
    return logits


@triton.jit
def assigned(logits, offset, k, BASES: tl.constexpr):
    """Softmax over the bases, which are the columns."""
    logits += tl.load(offset + k, mask=k < BASES, other=-float("inf"))[None, :]
    z = tl.exp(logits - tl.max(logits, 1)[:, None])
    return z / tl.sum(z, 1)[:, None]


@triton.jit
def assign(
    x,
    folded,
    offset,
    shares,
    pixels,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE_BASES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """z, for as many bases and channels as there are."""
    image, start = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE
    n, k = tl.arange(0, TILE), tl.arange(0, WIDE_BASES)
    inside = start + n < pixels
    row = image * pixels + start
    z = products(x + row * CHANNELS, folded + image * BASES * CHANNELS, n, k, inside, CHANNELS, BASES, CHUNK)
    z = assigned(z, offset + image * BASES, k, BASES)
    target = shares + row * BASES + n[:, None] * BASES + k[None, :]
    tl.store(target, z.to(shares.dtype.element_ty), mask=inside[:, None] & (k < BASES)[None, :])


@triton.jit
def mix(
    x,
    folded,
    offset,
    means,
    out,
    pixels,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUT_CHANNELS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE_BASES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The pixels re-estimated: z of the folded bases, times the means."""
    image, start = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE
    n, k = tl.arange(0, TILE), tl.arange(0, WIDE_BASES)
    inside = start + n < pixels
    row = image * pixels + start
    z = products(x + row * CHANNELS, folded + image * BASES * CHANNELS, n, k, inside, CHANNELS, BASES, CHUNK)
    z = assigned(z, offset + image * BASES, k, BASES).to(x.dtype.element_ty)
    out += row * OUT_CHANNELS
    means += image * BASES * OUT_CHANNELS
    for first in range(0, OUT_CHANNELS, CHUNK):
        c = first + tl.arange(0, CHUNK)
        channels = c < OUT_CHANNELS
        there = (k < BASES)[:, None] & channels[None, :]
        held = tl.load(means + k[:, None] * OUT_CHANNELS + c[None, :], mask=there, other=0.0)
        found = tl.dot(z, held, input_precision="tf32x3")
        target = out + n[:, None] * OUT_CHANNELS + c[None, :]
        tl.store(target, found.to(out.dtype.element_ty), mask=inside[:, None] & channels[None, :])


@triton.jit
def slope(
    x,
    folded,
    offset,
    seen,
    others,
    plain,
    slopes,
    logit_slopes,
    shares,
    pixels,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
    SEEN_CHANNELS: tl.constexpr,
    OWN: tl.constexpr,
    TILE: tl.constexpr,
    WIDE_BASES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Gradients by the pixels, by the logits, and z again.

    The gradient by z is seen·othersᵀ + plain. OWN: `seen` are the pixels themselves, which were summed up by z, so that
    z times `others` is a gradient by the pixels too.
    """
    image, start = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE
    n, k = tl.arange(0, TILE), tl.arange(0, WIDE_BASES)
    inside, bases = start + n < pixels, k < BASES
    row = image * pixels + start
    folded += image * BASES * CHANNELS
    others += image * BASES * SEEN_CHANNELS
    z = products(x + row * CHANNELS, folded, n, k, inside, CHANNELS, BASES, CHUNK)
    z = assigned(z, offset + image * BASES, k, BASES)
    by_z = products(seen + row * SEEN_CHANNELS, others, n, k, inside, SEEN_CHANNELS, BASES, CHUNK)
    by_z += tl.load(plain + image * BASES + k, mask=bases, other=0.0)[None, :]
    by_logit = (z * (by_z - tl.sum(z * by_z, 1)[:, None])).to(x.dtype.element_ty)
    z = z.to(x.dtype.element_ty)
    target = row * BASES + n[:, None] * BASES + k[None, :]
    there = inside[:, None] & bases[None, :]
    tl.store(logit_slopes + target, by_logit, mask=there)
    tl.store(shares + target, z, mask=there)
    slopes += row * CHANNELS
    for first in range(0, CHANNELS, CHUNK):
        c = first + tl.arange(0, CHUNK)
        channels = c < CHANNELS
        place = k[:, None] * CHANNELS + c[None, :]
        kept = bases[:, None] & channels[None, :]
        found = tl.dot(by_logit, tl.load(folded + place, mask=kept, other=0.0), input_precision="tf32x3")
        if OWN:
            held = tl.load(others + place, mask=kept, other=0.0)
            found = tl.dot(z, held, found, input_precision="tf32x3")
        spot = slopes + n[:, None] * CHANNELS + c[None, :]
        tl.store(spot, found.to(x.dtype.element_ty), mask=inside[:, None] & channels[None, :])
