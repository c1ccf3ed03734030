"""Gathering descriptors and distributing them (A²-Nets), as a pure function."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from segcontext.ops.implementations import Implementation, choose
from segcontext.ops.precision import widen
from segcontext.ops.products import product

__all__ = ["DoubleAttention", "double_attention"]


class DoubleAttention(NamedTuple):
    """What `double_attention` returns.

    Attributes:
        output: (B, C, N), in the dtype of the features.
        gather: (B, K, N), float32 or wider, each map sums to 1 over the positions; `None` unless `keep_maps`.
        distribute: (B, K, N), float32 or wider, each position sums to 1 over the maps; likewise.
    """

    output: Tensor
    gather: Tensor | None
    distribute: Tensor | None


def double_attention(
    features: Tensor,
    gather_logits: Tensor,
    distribute_logits: Tensor,
    *,
    keep_maps: bool = True,
    implementation: Implementation | None = None,
) -> DoubleAttention:
    r"""Gathers K descriptors of the whole map, then hands each position its own mixture of them.

    Chen et al. 2018, eqs. 3-6: descriptors :math:`G = A\,\mathrm{softmax}_n(B)^\top`, a column for each map, and
    :math:`Z = G\,\mathrm{softmax}_k(V)`. 2·C·K·N multiply-adds for each image.

    Args:
        features: A, (B, C, N).
        gather_logits: B, (B, K, N); the softmax runs over the positions.
        distribute_logits: V, (B, K, N); the softmax runs over the maps.
        keep_maps: whether both attention maps are returned.
        implementation: ``"reference"`` or ``"rearranged"``; `None` is what
            `segcontext.ops.implementations.use_implementation` says, or the faster one that can run.

    Returns:
        The output, and both attention maps where asked for.

    Raises:
        ValueError: where the tensors do not fit together.

    Note:
        Softmax and sums are in float32 or wider, also under autocast. Rearranged, which is for bfloat16 features and
        without gradients, maps and descriptors are rounded to bfloat16 before they meet what they weigh; maps that
        nobody asks for are at once written so.

    Example:
        >>> import torch
        >>> found = double_attention(torch.randn(2, 16, 35), torch.randn(2, 4, 35), torch.randn(2, 4, 35))
        >>> found.output.shape, found.gather.shape
        (torch.Size([2, 16, 35]), torch.Size([2, 4, 35]))
    """
    fits = gather_logits.shape == distribute_logits.shape and features.shape[::2] == gather_logits.shape[::2]
    if features.ndim != 3 or not fits:
        raise ValueError(
            "expected features (B, C, N) and gather and distribute logits (B, K, N), but they are "
            f"{tuple(features.shape)}, {tuple(gather_logits.shape)} and {tuple(distribute_logits.shape)}"
        )
    given = (features, gather_logits, distribute_logits)
    obstacle = None if features.dtype == torch.bfloat16 else "only products of bfloat16 are faster"
    if features.device.type != "cpu" or features.numel() == 0:
        obstacle = "it is faster on the CPU alone"
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and any(each.requires_grad for each in given)):
        obstacle = "it is neither compiled nor has it gradients"
    with torch.autocast(features.device.type, enabled=False):
        if choose("double_attention", implementation, {"rearranged": obstacle}) == "rearranged":
            return _in_bfloat16(*given, keep_maps)
        gather = widen(gather_logits).softmax(-1)
        descriptors = product(widen(features), gather.mT)
        kept = gather if keep_maps else None
        # Its memory is used again.
        del gather
        distribute = widen(distribute_logits).softmax(1)
        output = product(descriptors, distribute).to(features.dtype)
        return DoubleAttention(output, kept, distribute if keep_maps else None)


def _in_bfloat16(
    features: Tensor, gather_logits: Tensor, distribute_logits: Tensor, keep_maps: bool
) -> DoubleAttention:
    """Products of bfloat16. The softmax is in float32 inside in any case; the maps are so where they are kept."""
    gather, collects = _softmax(gather_logits, -1, keep_maps)
    descriptors = product(features, collects.mT)
    del collects
    distribute, hands = _softmax(distribute_logits, 1, keep_maps)
    return DoubleAttention(product(descriptors, hands), gather, distribute)


def _softmax(logits: Tensor, dim: int, keep: bool) -> tuple[Tensor | None, Tensor]:
    """A map in float32, where it is kept, and in bfloat16."""
    if keep or logits.dtype != torch.bfloat16:
        wide = widen(logits).softmax(dim)
        return wide if keep else None, wide.bfloat16()
    return None, logits.softmax(dim)
