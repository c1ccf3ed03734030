"""The precision that softmax and sums over pixels are taken in."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["linear_dtype", "widen"]


def linear_dtype(x: Tensor) -> torch.dtype:
    """The dtype of what a linear layer makes of a tensor: autocast's where that is on.

    Args:
        x: any float tensor.
    """
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def widen(x: Tensor) -> Tensor:
    """Half-precision and single-precision tensors as float32; float64 stays.

    Args:
        x: any float tensor.

    Returns:
        `x` itself where it is wide enough already.

    Example:
        >>> widen(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x if x.dtype == torch.float64 else x.float()
