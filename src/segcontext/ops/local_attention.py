"""Attention over a dilated window around each pixel (GALD eqs. 6-8), as a pure function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.ops.announced import Computed, announces
from segcontext.ops.precision import widen

__all__ = ["local_attention"]


def _computed(
    query: Tensor, key: Tensor, value: Tensor, *, kernel_size: int = 5, dilation: int = 3, scale: float = 1.0
) -> Computed:
    batch, depth, height, width = key.shape
    logits = batch * kernel_size**2 * height * width
    return Computed(logits * (depth + value.shape[1]), logits)


@announces(_computed)
def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    kernel_size: int = 5,
    dilation: int = 3,
    scale: float = 1.0,
) -> Tensor:
    r"""Each pixel gathers values from a k×k window around it, weighted by its affinity to their keys.

    GALD eqs. 6-8: :math:`y_p = \sum_{n \in W(p)} \mathrm{softmax}_n(s\, q_p^\top k_n)\, v_n`, with W(p) the k×k
    positions around p, `dilation` pixels apart. A position outside the map has the zero vector as key and value: its
    logit is 0, it takes its share of the softmax, and gives nothing. k²·(D + C)·h·w multiply-adds for each image.

    Args:
        query: (B, D, h, w).
        key: (B, D, h, w).
        value: (B, C, h, w).
        kernel_size: k, odd, in positions.
        dilation: r ≥ 1, pixels between neighbouring positions.
        scale: s, multiplies the logits.

    Returns:
        (B, C, h, w), in the dtype of `value`.

    Raises:
        ValueError: where `kernel_size` is even, `dilation` is below 1, or the maps do not fit together.

    Note:
        The paper's equations have no scale; s = 1 is that. Products, softmax and sums are taken in float32 or wider.

    Example:
        >>> import torch
        >>> q = k = torch.randn(1, 8, 9, 9)
        >>> local_attention(q, k, torch.randn(1, 16, 9, 9)).shape
        torch.Size([1, 16, 9, 9])
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, not {kernel_size}")
    if dilation < 1:
        raise ValueError(f"dilation must be 1 or more, not {dilation}")
    if (
        query.shape != key.shape
        or query.ndim != 4
        or value.shape[0] != key.shape[0]
        or value.shape[2:] != key.shape[2:]
    ):
        raise ValueError(
            "expected query and key (B, D, h, w) and value (B, C, h, w), "
            f"but they are {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
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
