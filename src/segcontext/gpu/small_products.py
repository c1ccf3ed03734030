"""What the few bases of EM attention go through between two passes over the pixels, in few launches."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["finish", "product"]


def finish(
    found: Tensor,
    masses: Tensor,
    before: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    norm: str,
    eps: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The M step from sums over parts of the pixels.

    Args:
        found: float32, (B, parts, K, D).
        masses: float32, (B, parts, K).
        before: the bases so far, float32, (B, K, C).
        weight: the projection of the pixels, (C, D); `None` where D is C.
        bias: (C,).
        norm: ``"l2"``, ``"layer_norm"`` or ``"none"``.
        eps: added to both denominators.
        keep: whether bases without mass stay as they were.

    Returns:
        The bases, (B, K, C), and their masses, (B, K).
    """
    if weight is not None:
        sums, masses = _gather(found, masses, before, None, "sum", eps, False)
        found, masses = product(sums, weight).unsqueeze(1), masses.unsqueeze(1)
    return _gather(found, masses, before, bias, norm, eps, keep)


def _gather(
    found: Tensor, masses: Tensor, before: Tensor, bias: Tensor | None, norm: str, eps: float, keep: bool
) -> tuple[Tensor, Tensor]:
    from segcontext.gpu.kernels import bases as kernels

    batch, parts, bases, channels = found.shape
    means = found.new_empty(batch, bases, channels)
    mass = found.new_empty(batch, bases)
    kernels.finish[bases, batch](
        *(found.contiguous(), masses.contiguous(), mass if bias is None else bias.contiguous()),
        *(before, means, mass, parts, eps),
        **{"BASES": bases, "CHANNELS": channels, "NORM": norm, "KEEP": keep, "BIAS": bias is not None},
        WIDE=1 << (channels - 1).bit_length(),
    )
    return means, mass


def product(
    left: Tensor,
    weight: Tensor,
    *,
    transposed: bool = False,
    factor: float = 1.0,
    centre: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A few rows times a weight, as exactly as float32 nearly.

    Args:
        left: float32, (B, K, D).
        weight: (C, D), or (D, C) where it is transposed.
        transposed: whether it is.
        factor: what the result is multiplied by.
        centre: whether the mean of the K rows is taken away from each.
        dtype: of the result.

    Returns:
        (B, K, C).
    """
    from segcontext.gpu.kernels import bases as kernels

    batch, bases, channels = left.shape
    w_out, w_in = weight.stride()[::-1] if transposed else weight.stride()
    out_channels = weight.shape[1 if transposed else 0]
    out = left.new_empty(batch, bases, out_channels, dtype=dtype)
    side = 32
    kernels.product[-(-out_channels // side), batch](
        *(left.contiguous(), weight, out, factor, w_out, w_in),
        **{"BASES": bases, "IN": channels, "OUT": out_channels, "CENTRE": centre, "SIDE": side, "CHUNK": 32},
        WIDE_BASES=max(16, 1 << (bases - 1).bit_length()),
        num_warps=4,
    )
    return out
