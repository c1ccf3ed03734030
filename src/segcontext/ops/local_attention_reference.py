"""The readable form of attention over dilated windows, which the fast ones are held to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.ops.precision import widen

__all__ = ["local_attention_reference"]


def local_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, *, kernel_size: int, dilation: int, scale: float
) -> Tensor:
    """GALD eqs. 6-8 in plain PyTorch, differentiable any number of times; see `segcontext.ops.local_attention`.

    Args:
        query: (B, D, h, w).
        key: (B, D, h, w).
        value: (B, C, h, w).
        kernel_size: k, odd.
        dilation: r.
        scale: multiplies the logits.

    Returns:
        (B, C, h, w), in the dtype of `value`.

    Example:
        >>> q = torch.randn(1, 8, 9, 9)
        >>> local_attention_reference(q, q, q, kernel_size=3, dilation=2, scale=1.0).shape
        torch.Size([1, 8, 9, 9])
    """
    height, width = query.shape[-2:]
    reach = kernel_size // 2 * dilation
    offsets = range(0, 2 * reach + 1, dilation)
    padding = (reach, reach, reach, reach)
    # A wide query makes each product wide too, without copies of the keys.
    query, keys, values = widen(query), F.pad(key, padding), F.pad(value, padding)
    with torch.autocast(query.device.type, enabled=False):
        # One shift at a time: the k² windows are views of the padded map, never copies of it.
        logits = torch.stack(
            [(query * keys[:, :, y : y + height, x : x + width]).sum(1) for y in offsets for x in offsets], dim=1
        )
        weights = (scale * logits).softmax(1)
        out = torch.zeros_like(value, dtype=weights.dtype)
        windows = ((y, x) for y in offsets for x in offsets)
        for n, (y, x) in enumerate(windows):
            out = out + weights[:, n, None] * values[:, :, y : y + height, x : x + width]
    return out.to(value.dtype)
