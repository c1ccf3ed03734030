"""No aggregation: a plain fully convolutional network."""

from __future__ import annotations

from torch import Tensor, nn

from segcontext.types import Context

__all__ = ["Identity"]


class Identity(nn.Module):
    """Hands the features on as they are.

    Args:
        in_channels: channels of the features.

    Shape:
        (B, C, h, w) to the same.

    Example:
        >>> import torch
        >>> Identity(8)(torch.randn(2, 8, 5, 7)).features.shape
        torch.Size([2, 8, 5, 7])
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Returns `x`; there is no evidence to give."""
        return Context(x)
