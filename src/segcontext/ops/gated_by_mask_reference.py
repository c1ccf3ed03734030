"""The readable form of gating by a mask, which the fast ones are held to."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["gated_by_mask_reference"]


def gated_by_mask_reference(features: Tensor, logits: Tensor, times: float, align_corners: bool) -> Tensor:
    """GALD eqs. 1-2 in plain PyTorch, differentiable any number of times; see `segcontext.ops.gated_by_mask`.

    Args:
        features: (B, C, h, w).
        logits: (B, C, h', w').
        times: how often the features are added.
        align_corners: how the logits are upsampled.

    Returns:
        (B, C, h, w).

    Example:
        >>> import torch
        >>> gated_by_mask_reference(torch.ones(1, 8, 4, 6), torch.zeros(1, 8, 1, 1), 1.0, True).shape
        torch.Size([1, 8, 4, 6])
    """
    size = (features.shape[2], features.shape[3])
    mask = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).sigmoid()
    added = features if times == 1 else times * features
    return mask * features + added
