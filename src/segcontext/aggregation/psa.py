"""Point-wise spatial attention (PSANet)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segcontext.errors import RecipeError
from segcontext.layers import ConvNormAct, resize
from segcontext.ops.point_attention import point_attention
from segcontext.types import Context, OffsetMap

__all__ = ["PSA"]


class PSA(nn.Module):
    r"""Pixels collect from and distribute to each other by learned weights per offset (Zhao et al. 2018, §3).

    Two branches reduce the features by a 1×1 convolution, shrink the map, and predict for each pixel one logit for
    each offset to another pixel (the over-complete map of §3.2). One branch collects by a pixel's own logits, the
    other distributes by the logits of the sources. Both results are concatenated, projected back to C channels,
    upsampled, and laid beside the input.

    Args:
        in_channels: C.
        channels: of each branch.
        mask_size: side of the map of offsets, odd. A map of h×w pixels is covered in full by 2·max(h, w) - 1; 59
            covers the shrunk map of a crop of 465 pixels at output stride 8.
        shrink: the map is shrunk to ⌈h/shrink⌉ × ⌈w/shrink⌉ for the attention.
        align_corners: how the map is shrunk and upsampled.

    Shape:
        (B, C, h, w) to (B, 2·C, h, w), the input's channels first.

    Raises:
        RecipeError: for an even `mask_size` or a `shrink` below 1.

    Note:
        Of the published variants this is the over-complete one with both branches and softmax. `mask_size` is tied to
        the training crop, but any map will do: pixels further apart than the window reaches exchange nothing, and
        cells beyond the map go unused. The published code gives pixels beyond the window the logit 0 instead; the two
        differ only where the window does not cover the map.
        Memory grows with the square of the shrunk map's pixels.

    Example:
        >>> import torch
        >>> PSA(16, channels=8, mask_size=9)(torch.randn(2, 16, 5, 7)).features.shape
        torch.Size([2, 32, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int = 512,
        mask_size: int = 59,
        shrink: int = 2,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if mask_size < 1 or mask_size % 2 == 0 or shrink < 1:
            raise RecipeError(
                f"mask_size must be odd and shrink at least 1, not {mask_size} and {shrink}; "
                "the published settings are 59 and 2."
            )
        self.in_channels = in_channels
        self.out_channels = 2 * in_channels
        self.mask_size = mask_size
        self.shrink = shrink
        self.align_corners = align_corners
        self.collect_reduce = ConvNormAct(in_channels, channels)
        self.collect_attention = _attention(channels, mask_size)
        self.distribute_reduce = ConvNormAct(in_channels, channels)
        self.distribute_attention = _attention(channels, mask_size)
        self.project = ConvNormAct(2 * channels, in_channels)

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Lays what each pixel collected and was given beside the features.

        Args:
            x: (B, C, h, w).
            evidence: whether `OffsetMap` is returned, at the size of the shrunk map.

        Returns:
            (B, 2·C, h, w), and the evidence where asked for.
        """
        size = (x.shape[-2], x.shape[-1])
        small = (-(-size[0] // self.shrink), -(-size[1] // self.shrink))
        sources = resize(self.collect_reduce(x), small, align_corners=self.align_corners)
        collect = self.collect_attention(sources)
        collected = point_attention(sources, collect, branch="collect")
        sources = resize(self.distribute_reduce(x), small, align_corners=self.align_corners)
        distribute = self.distribute_attention(sources)
        distributed = point_attention(sources, distribute, branch="distribute")
        context = self.project(torch.cat([collected, distributed], 1))
        out = torch.cat([x, resize(context, size, align_corners=self.align_corners)], 1)
        return Context(out, OffsetMap(collect.detach(), distribute.detach()) if evidence else None)


def _attention(channels: int, mask_size: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(channels, channels), nn.Conv2d(channels, mask_size**2, 1, bias=False))
