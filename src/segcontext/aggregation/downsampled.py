"""Aggregation on a map of half the size (GALD)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.errors import RecipeError, ShapeError
from segcontext.layers import ConvNormAct, resize
from segcontext.types import Context

__all__ = ["Downsampled"]


class Downsampled(nn.Module):
    """Runs an aggregation on the map downsampled by 2, to save memory and computation (GALD §III-A).

    A depthwise 3×3 convolution of stride 2 with batch norm and ReLU, then the aggregation, then bilinear upsampling to
    the size that came in.

    Args:
        inner: the aggregation.
        channels: C, of the input and of what `inner` takes.
        padding: zero padding of the convolution. 1 keeps ⌈h/2⌉×⌈w/2⌉ pixels, whose centres the upsampling with
            aligned corners puts back where they were on odd maps; 0 is the published code's.
        align_corners: how the result is upsampled; `segcontext.segmenter` hands its own on.

    Shape:
        (B, C, h, w) to (B, inner.out_channels, h, w).

    Raises:
        RecipeError: for a padding other than 0 or 1.
        ShapeError: where `inner` takes another number of channels.

    Note:
        Without padding the published code fails on maps below 3 pixels; with ``padding=0`` such maps are zero-padded
        here to 3, and larger ones give the published result. Evidence is passed on as `inner` gave it, at the size of
        the downsampled map.

    Example:
        >>> import torch
        >>> from segcontext.aggregation.identity import Identity
        >>> Downsampled(Identity(8), 8)(torch.randn(2, 8, 5, 7)).features.shape
        torch.Size([2, 8, 5, 7])
    """

    def __init__(self, inner: nn.Module, channels: int, *, padding: int = 1, align_corners: bool = True) -> None:
        super().__init__()
        if padding not in (0, 1):
            raise RecipeError(f"padding must be 0 (as published) or 1, not {padding}.")
        takes, gives = getattr(inner, "in_channels", None), getattr(inner, "out_channels", None)
        if takes != channels or not isinstance(gives, int):
            raise ShapeError(
                f"The inner aggregation must take the {channels} channels that come in, and say how many it gives, "
                f"but its in_channels is {takes} and its out_channels {gives}; build it with {channels} channels."
            )
        self.in_channels = channels
        self.out_channels = gives
        self.padding = padding
        self.align_corners = align_corners
        self.down = ConvNormAct(
            channels, channels, kernel_size=3, stride=2, groups=channels, bias=True, padding=padding
        )
        self.inner = inner

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Aggregates at half the size.

        Args:
            x: (B, C, h, w).
            evidence: whether the inner aggregation's evidence is returned.

        Returns:
            (B, inner.out_channels, h, w), and the evidence where asked for.
        """
        height, width = x.shape[-2:]
        if self.padding == 0:
            x = F.pad(x, (0, max(0, 3 - width), 0, max(0, 3 - height)))
        features, found = self.inner(self.down(x), evidence=evidence)
        return Context(resize(features, (height, width), align_corners=self.align_corners), found)
