"""The double attention block (A²-Nets)."""

from __future__ import annotations

from torch import Tensor, nn

from segcontext.errors import RecipeError
from segcontext.ops.double_attention import double_attention
from segcontext.pooled_norm import PooledNorm
from segcontext.types import Context, GatherMap

__all__ = ["A2"]


class A2(nn.Module):
    r"""A few descriptors are gathered from the whole map and handed out to each pixel (Chen et al. 2018, §3).

    :math:`\mathrm{out} = x + \mathrm{BN}\big(W\,[A\,\mathrm{softmax}_n(B)^\top]\,\mathrm{softmax}_k(V)\big)`, where
    A, B and V are 1×1 projections of x (eqs. 3-6), called value, gather and distribute here.

    Args:
        in_channels: C.
        value_channels: channels of A; `None` is a quarter of C.
        maps: K, channels of B and V; `None` is a quarter of C.

    Shape:
        (B, C, h, w) to the same.

    Raises:
        RecipeError: for no channels or no maps.

    Note:
        Ours, where the paper is open: the quarters, and batch norm after W. The distribute softmax runs over the maps,
        as in the paper; the code of the GALD authors' comparison takes it over the positions.
        Only ``distribute`` has a bias: softmax over positions cancels that of ``gather``; that of ``value`` would
        reach every pixel alike, and batch norm cancels it.

    Example:
        >>> import torch
        >>> A2(16)(torch.randn(2, 16, 5, 7)).features.shape
        torch.Size([2, 16, 5, 7])
    """

    def __init__(self, in_channels: int, *, value_channels: int | None = None, maps: int | None = None) -> None:
        super().__init__()
        value_channels = in_channels // 4 if value_channels is None else value_channels
        maps = in_channels // 4 if maps is None else maps
        if min(value_channels, maps) < 1:
            raise RecipeError(f"value_channels and maps must be at least 1, not {value_channels} and {maps}.")
        self.in_channels = self.out_channels = in_channels
        self.value = nn.Conv2d(in_channels, value_channels, 1, bias=False)
        self.gather = nn.Conv2d(in_channels, maps, 1, bias=False)
        self.distribute = nn.Conv2d(in_channels, maps, 1)
        self.project = nn.Sequential(nn.Conv2d(value_channels, in_channels, 1, bias=False), PooledNorm(in_channels))

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Adds to each pixel its mixture of the gathered descriptors.

        Args:
            x: (B, C, h, w).
            evidence: whether `GatherMap` is returned.

        Returns:
            (B, C, h, w), and the evidence where asked for.
        """
        batch, _, height, width = x.shape
        projected = (layer(x).flatten(2) for layer in (self.value, self.gather, self.distribute))
        found = double_attention(*projected, keep_maps=evidence)
        out = x + self.project(found.output.reshape(batch, -1, height, width))
        if not evidence:
            return Context(out)
        assert found.gather is not None
        assert found.distribute is not None
        gather, distribute = (
            maps.detach().reshape(batch, -1, height, width) for maps in (found.gather, found.distribute)
        )
        return Context(out, GatherMap(gather, distribute))
