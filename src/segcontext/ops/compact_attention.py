"""Attention over all positions and channels in linear time (CGNL), as a pure function."""

from __future__ import annotations

import torch
from torch import Tensor

from segcontext.ops.announced import Computed, announces
from segcontext.ops.precision import widen

__all__ = ["compact_attention"]


@announces(lambda query, key, value, *, groups=1: Computed(key.numel() + query.numel()))
def compact_attention(query: Tensor, key: Tensor, value: Tensor, *, groups: int = 1) -> Tensor:
    r"""Each position and channel draws on all positions and channels of its group, by a dot-product kernel.

    The compact generalized non-local operation (Yue et al. 2018, eq. 8 with the dot product as kernel). With the
    positions and channels of a group as one long vector, the pairwise form
    :math:`Y = (\theta\,\phi^\top)\,g` is :math:`Y = \theta\,(\phi^\top g)`: one number per group scales the query.
    So it costs C'·N multiply-adds for the numbers and C·N to scale by them, for each image, and no pairwise matrix
    exists.

    Args:
        query: θ, (B, C, N).
        key: φ, (B, C', N); C' is C unless the query was projected further.
        value: g, (B, C', N).
        groups: G, which divides C and C'.

    Returns:
        (B, C, N), float32 or wider: the dot product grows with C'·N and leaves the range of half precision.

    Raises:
        ValueError: where the tensors do not fit together or `groups` does not divide the channels.

    Example:
        >>> import torch
        >>> t, p, g = torch.randn(3, 2, 16, 35)
        >>> compact_attention(t, p, g, groups=4).shape
        torch.Size([2, 16, 35])
    """
    if query.ndim != 3 or key.shape != value.shape or query.shape[::2] != key.shape[::2]:
        raise ValueError(
            "expected query (B, C, N) and key and value (B, C', N), "
            f"but they are {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    if groups < 1 or query.shape[1] % groups or key.shape[1] % groups:
        raise ValueError(f"groups={groups} does not divide {query.shape[1]} and {key.shape[1]} channels")
    batch, _, pixels = query.shape
    query, key, value = (widen(each).reshape(batch, groups, -1, pixels) for each in (query, key, value))
    # A product of vectors, so that the products of all pixels never exist as a map.
    with torch.autocast(query.device.type, enabled=False):
        affinity = torch.einsum("bgn,bgn->bg", key.flatten(2), value.flatten(2))
    return (affinity[..., None, None] * query).flatten(1, 2)
