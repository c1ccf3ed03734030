"""Pyramid pooling (PSPNet)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.errors import RecipeError
from segcontext.layers import ConvNormAct, resize
from segcontext.types import Context

__all__ = ["PSP"]


class PSP(nn.Module):
    r"""Means over sub-regions of several sizes, laid beside the features (Zhao et al. 2017, §3.2).

    For each bin b the map is averaged to b×b cells, projected by a 1×1 convolution with batch norm and ReLU, and
    upsampled bilinearly. All levels and the input are concatenated and fused by a 3×3 convolution with batch norm and
    ReLU.

    Args:
        in_channels: C.
        out_channels: channels after the fusing convolution.
        bins: side of each level, in cells. The levels have ⌊C / number of bins⌋ channels each.
        align_corners: how the levels are upsampled; `segcontext.segmenter` hands its own on.

    Shape:
        (B, C, h, w) to (B, out_channels, h, w).

    Raises:
        RecipeError: for no bins, a bin below 1, or more bins than channels.

    Note:
        A single image in training leaves the 1×1 level one value per channel, on which batch norm cannot train; that
        level then takes its running statistics, see `segcontext.pooled_norm`. Maps with fewer pixels than a bin has
        cells repeat pixels. The mean upsampled with aligned corners follows the authors' code.

    Example:
        >>> import torch
        >>> PSP(16, out_channels=8)(torch.randn(2, 16, 5, 7)).features.shape
        torch.Size([2, 8, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: int = 512,
        bins: Sequence[int] = (1, 2, 3, 6),
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if not bins or min(bins) < 1 or len(bins) > in_channels:
            raise RecipeError(
                f"bins must be one or more sides of at least 1 cell, at most one per channel ({in_channels}), "
                f"not {tuple(bins)}; the paper uses (1, 2, 3, 6)."
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.bins = tuple(bins)
        self.align_corners = align_corners
        level_channels = in_channels // len(self.bins)
        self.levels = nn.ModuleList(ConvNormAct(in_channels, level_channels, kernel_size=1) for _ in self.bins)
        self.fuse = ConvNormAct(in_channels + level_channels * len(self.bins), out_channels, kernel_size=3)

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Lays the pooled levels beside the features and fuses them.

        Args:
            x: (B, C, h, w).
            evidence: has no effect, pooling does not attend.

        Returns:
            (B, out_channels, h, w).
        """
        size = (x.shape[-2], x.shape[-1])
        levels = [
            resize(level(F.adaptive_avg_pool2d(x, side)), size, align_corners=self.align_corners)
            for side, level in zip(self.bins, self.levels, strict=True)
        ]
        return Context(self.fuse(torch.cat([x, *levels], 1)))
