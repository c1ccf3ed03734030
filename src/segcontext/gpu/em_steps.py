"""The two sums over pixels that EM attention is made of, each with its gradient; pixels' shares are not kept.

With logits x·Gᵀ + o and z their softmax over the bases: `em_sums` is zᵀx and Σz, `em_mix` is z·M.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segcontext.gpu.shared_memory import AMPERE, HOPPER, shared_memory

__all__ = ["assign", "em_mix", "em_sums", "summed"]

#: The most sums of all bases and the most channels that a program of `sums` can hold, and the most bases of the others.
HELD, MOST_CHANNELS, MOST_BASES = 64 * 512, 512, 128


def summed(x: Tensor, folded: Tensor, offset: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sums over parts of the pixels.

    Args:
        x: pixels, (B, N, C).
        folded: G, (B, K, C), in the dtype of `x`.
        offset: o, float32, (B, K).
        keep: whether z is returned as well.

    Returns:
        zᵀx (B, parts, K, C) and Σz (B, parts, K), both float32; z (B, N, K) in the dtype of `x`, or nothing.
    """
    from segcontext.gpu.kernels import em

    batch, pixels, channels = x.shape
    bases = folded.shape[1]
    wide_bases, wide = _wide(bases), _wide(channels)
    shared = shared_memory(x.device)
    if x.dtype == torch.float32 or wide_bases * wide > HELD or wide > MOST_CHANNELS or shared < AMPERE:
        # Three-part products of float32 and larger sums do not fit into registers; small GPUs do not hold the bases.
        z = assign(x, folded, offset)
        return (z.mT @ x).float().unsqueeze(1), z.sum(1, dtype=torch.float32).unsqueeze(1), z if keep else None
    tile = 64 if shared >= HOPPER else 32
    parts = min(-(-pixels // tile), max(1, _processors(x) // batch))
    found = x.new_empty(batch, parts, bases, channels, dtype=torch.float32)
    masses = x.new_empty(batch, parts, bases, dtype=torch.float32)
    shares = x.new_empty(batch, pixels, bases) if keep else None
    em.sums[parts, batch](
        *(x, folded, offset, found, masses, found if shares is None else shares, pixels),
        **{"BASES": bases, "CHANNELS": channels, "SHARES": keep, "TILE": tile, "WIDE_BASES": wide_bases, "WIDE": wide},
        num_warps=8,
        num_stages=2,
    )
    return found, masses, shares


def assign(x: Tensor, folded: Tensor, offset: Tensor) -> Tensor:
    """z, (B, N, K), in the dtype of `x`; arguments as for `summed`."""
    from segcontext.gpu.kernels import em

    batch, pixels, channels = x.shape
    bases = folded.shape[1]
    z = x.new_empty(batch, pixels, bases)
    sizes, launch = _shape(x, bases)
    em.assign[-(-pixels // sizes["TILE"]), batch](
        x, folded, offset, z, pixels, BASES=bases, CHANNELS=channels, **sizes, **launch
    )
    return z


@torch.library.custom_op("segcontext::em_sums", mutates_args=())
def em_sums(x: Tensor, folded: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """zᵀx (B, K, C) and Σz (B, K), float32; arguments as for `summed`."""
    found, masses, _ = summed(x, folded, offset)
    return found.sum(1), masses.sum(1)


@em_sums.register_fake
def _(x: Tensor, folded: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(folded, dtype=torch.float32), torch.empty_like(offset)


@torch.library.custom_op("segcontext::em_mix", mutates_args=())
def em_mix(x: Tensor, folded: Tensor, offset: Tensor, means: Tensor) -> Tensor:
    """z·M, (B, N, C'), in the dtype of `x`.

    Args:
        x: pixels, (B, N, C).
        folded: G, (B, K, C), in the dtype of `x`.
        offset: o, float32, (B, K).
        means: M, (B, K, C'), in the dtype of `x`.
    """
    from segcontext.gpu.kernels import em

    batch, pixels, channels = x.shape
    _, bases, out_channels = means.shape
    out = x.new_empty(batch, pixels, out_channels)
    sizes, launch = _shape(x, bases)
    em.mix[-(-pixels // sizes["TILE"]), batch](
        *(x, folded, offset, means, out, pixels),
        **{"BASES": bases, "CHANNELS": channels, "OUT_CHANNELS": out_channels},
        **sizes,
        **launch,
    )
    return out


@em_mix.register_fake
def _(x: Tensor, folded: Tensor, offset: Tensor, means: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], means.shape[2])


@torch.library.custom_op("segcontext::em_slope", mutates_args=())
def em_slope(
    x: Tensor, folded: Tensor, offset: Tensor, seen: Tensor, others: Tensor, plain: Tensor, own: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by x and by the logits, and z, all in the dtype of `x`; see the kernel."""
    from segcontext.gpu.kernels import em

    batch, pixels, channels = x.shape
    bases = folded.shape[1]
    by_x, by_logit = torch.empty_like(x), x.new_empty(batch, pixels, bases)
    z = torch.empty_like(by_logit)
    sizes, launch = _shape(x, bases)
    em.slope[-(-pixels // sizes["TILE"]), batch](
        *(x, folded, offset, seen, others, plain, by_x, by_logit, z, pixels),
        **{"BASES": bases, "CHANNELS": channels, "SEEN_CHANNELS": others.shape[2], "OWN": own},
        **sizes,
        **launch,
    )
    return by_x, by_logit, z


@em_slope.register_fake
def _(
    x: Tensor, folded: Tensor, offset: Tensor, seen: Tensor, others: Tensor, plain: Tensor, own: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (x.shape[0], x.shape[1], folded.shape[1])
    return torch.empty_like(x), x.new_empty(shape), x.new_empty(shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _sums_backward(ctx: Any, by_sums: Tensor, by_mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, folded, offset = ctx.saved_tensors
    # Gradients by sums over many pixels are so small that float16 would lose them; the rest is linear in them.
    largest = torch.maximum(by_sums.abs().amax(), by_mass.abs().amax()).clamp_min(1e-30)
    others = (by_sums / largest).to(x.dtype)
    by_x, by_logit, _ = em_slope(x, folded, offset, x, others.contiguous(), (by_mass / largest).contiguous(), True)
    by_folded = by_logit.mT @ x
    by_offset = by_logit.sum(1, dtype=torch.float32)
    return by_x * largest.to(x.dtype), by_folded * largest.to(x.dtype), by_offset * largest


def _mix_backward(ctx: Any, by_out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, folded, offset, means = ctx.saved_tensors
    by_out = by_out.contiguous()
    by_x, by_logit, z = em_slope(x, folded, offset, by_out, means, torch.zeros_like(offset), False)
    return by_x, by_logit.mT @ x, by_logit.sum(1, dtype=torch.float32), z.mT @ by_out


em_sums.register_autograd(_sums_backward, setup_context=_keep)
em_mix.register_autograd(_mix_backward, setup_context=_keep)


def _shape(x: Tensor, bases: int) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of the blocks, and how a program runs, chosen so that registers do not spill on compute capability 9.0."""
    wide = _wide(bases)
    narrow = x.dtype != torch.float32
    sizes = {"TILE": 128 if narrow and wide <= 64 else 64, "WIDE_BASES": wide, "CHUNK": 64 if narrow else 32}
    return sizes, {"num_warps": 8, "num_stages": 3 if wide <= 64 else 2}


def _wide(size: int) -> int:
    """The power of two, 16 or more, that holds a size."""
    return max(16, 1 << (size - 1).bit_length())


def _processors(x: Tensor) -> int:
    """Programs that run side by side, one for each multiprocessor."""
    # The interpreter runs one after another, but the sum over parts is to be tested.
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4
