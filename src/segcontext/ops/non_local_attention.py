"""Attention over all positions of a map (Non-local networks), as a pure function."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["non_local_attention"]


def non_local_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0) -> Tensor:
    r"""Each position gathers values from all positions, weighted by its affinity to their keys.

    The embedded Gaussian of Wang et al. 2018, eqs. 1 and 4:
    :math:`y_p = \sum_m \mathrm{softmax}_m(s\, q_p^\top k_m)\, v_m`. N·M·(D + C) multiply-adds for each image.

    Args:
        query: (B, D, N).
        key: (B, D, M); M is N unless the keys were pooled.
        value: (B, C, M).
        scale: s, multiplies the logits; 1 is the paper's equation.

    Returns:
        (B, C, N), in the dtype of the product (`value`'s, or the lower precision under autocast).

    Raises:
        ValueError: where the tensors do not fit together.

    Note:
        The weights never exist as one N×M tensor where PyTorch has a fused kernel, which it has for D = C. There the
        logits, the softmax and the sums are in float32 inside, also for half-precision inputs; the weights are rounded
        to the inputs' precision before they meet the values. The fused kernels have no second derivatives: they take
        ``with torch.nn.attention.sdpa_kernel(SDPBackend.MATH):``.

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
    # The single head is an axis of its own because the fused kernels take four dimensions only.
    # Without the copy, which costs nothing channels-last, they do not take channels-first maps.
    query, key, value = (each.mT.contiguous().unsqueeze(1) for each in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=scale).squeeze(1).mT
