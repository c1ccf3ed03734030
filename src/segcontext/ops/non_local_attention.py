"""Attention over all positions of a map (Non-local networks), as a pure function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.ops.compiled_loops import is_transformed
from segcontext.ops.implementations import Implementation, choose
from segcontext.ops.precision import linear_dtype, widen

__all__ = ["non_local_attention"]

#: Queries at a time: their weights over 32,768 keys are 32 MiB.
BLOCK = {torch.bfloat16: 512, torch.float32: 256, torch.float64: 128}

#: So many weights are made at once, as products of more queries take less time for each.
FEW = 2**21


def non_local_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0, implementation: Implementation | None = None
) -> Tensor:
    r"""Each position gathers values from all positions, weighted by its affinity to their keys.

    The embedded Gaussian of Wang et al. 2018, eqs. 1 and 4:
    :math:`y_p = \sum_m \mathrm{softmax}_m(s\, q_p^\top k_m)\, v_m`. N·M·(D + C) multiply-adds for each image.

    Args:
        query: (B, D, N).
        key: (B, D, M); M is N unless the keys were pooled.
        value: (B, C, M).
        scale: s, multiplies the logits; 1 is the paper's equation.
        implementation: ``"reference"``, PyTorch's attention, or ``"rearranged"``; `None` is what
            `segcontext.ops.implementations.use_implementation` says, or the one that takes less time or memory.

    Returns:
        (B, C, N), in the dtype of the product (`value`'s, or the lower precision under autocast).

    Raises:
        ValueError: where the tensors do not fit together.

    Note:
        The weights never exist as one N×M tensor where PyTorch has a fused kernel, which it has for D = C. There the
        logits, the softmax and the sums are in float32 inside, also for half-precision inputs; the weights are rounded
        to the inputs' precision before they meet the values. The fused kernels have no second derivatives: they take
        ``with torch.nn.attention.sdpa_kernel(SDPBackend.MATH):``.
        Rearranged, some queries after the other take their weights, with the same precision. On the CPU without
        gradients that is faster in bfloat16, and for D ≠ C it is what needs no N×M tensor. Published code's plain
        products of bfloat16 are a little faster there still, but round the logits: for 256 channels of unit variance
        that is ten times the error.

    Example:
        >>> import torch
        >>> q = k = torch.randn(2, 8, 35)
        >>> non_local_attention(q, k, torch.randn(2, 16, 35)).shape
        torch.Size([2, 16, 35])
    """
    fits = query.shape[:2] == key.shape[:2] and key.shape[::2] == value.shape[::2]
    if query.ndim != 3 or key.ndim != 3 or value.ndim != 3 or not fits:
        raise ValueError(
            "expected query (B, D, N), key (B, D, M) and value (B, C, M), "
            f"but they are {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    obstacle = _obstacle(query, key, value)
    if choose("non_local_attention", implementation, {"rearranged": obstacle}) == "rearranged":
        return _by_block(query, key, value, scale)
    # The single head is an axis of its own because the fused kernels take four dimensions only.
    # Without the copy, which costs nothing channels-last, they do not take channels-first maps.
    query, key, value = (each.mT.contiguous().unsqueeze(1) for each in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=scale).squeeze(1).mT


def _obstacle(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """Why some queries after the other are no better than PyTorch's attention."""
    if torch.compiler.is_compiling() or query.device.type != "cpu":
        return "PyTorch's attention is faster on GPUs, and compiled"
    if torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value)):
        return "its gradients take an N×M tensor"
    if is_transformed():
        return "forward-mode derivatives and torch.func cannot look into products that are written in place"
    if query.shape[1] == value.shape[1] and linear_dtype(value) != torch.bfloat16:
        return "PyTorch's fused attention is as fast in this dtype"
    return None


def _by_block(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of some queries after the other."""
    dtype = linear_dtype(value)
    # Rounded as the fused kernels are handed them, then wide, for so are the logits.
    query, key = (widen(each.to(linear_dtype(each))) for each in (query, key))
    # The fused kernels round the weights, too, and only they.
    values = value.to(dtype) if dtype == torch.bfloat16 else widen(value.to(dtype))
    out = values.new_empty(*query.shape[:1], query.shape[2], values.shape[1])
    block = BLOCK[values.dtype] if query.shape[2] * key.shape[2] > FEW else query.shape[2]
    with torch.autocast(query.device.type, enabled=False):
        for image in range(len(query)):
            queries, keys, each = (scale * query[image]).mT, key[image], values[image].mT.contiguous()
            for start in range(0, len(queries), block):
                weights = (queries[start : start + block] @ keys).softmax(-1)
                torch.mm(weights.to(values.dtype), each, out=out[image, start : start + block])
    return out.mT.to(dtype)
