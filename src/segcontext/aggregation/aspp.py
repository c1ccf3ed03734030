"""Atrous spatial pyramid pooling (DeepLabV3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segcontext.errors import RecipeError
from segcontext.layers import ConvNormAct, SeparableConvNormAct, pixels_at_stride
from segcontext.types import Context

__all__ = ["ASPP"]


class ASPP(nn.Module):
    r"""Dilated convolutions at several rates, with the mean of the image (Chen et al. 2017, §3.3).

    Side by side: a 1×1 convolution, a 3×3 convolution at each rate, and the mean over all pixels through a 1×1
    convolution; concatenated, then projected by a 1×1 convolution. Every convolution has batch norm and ReLU.

    Args:
        in_channels: C.
        out_channels: channels of each branch and of the projection.
        rates: the dilations, in pixels of the map: 12, 24, 36 at output stride 8, and half of each at 16.
        project_kernel: side of the projection's kernel, odd.
        separable: whether the dilated convolutions are depthwise separable (DeepLabV3+ §3.1).
        image_pooling: whether there is the mean's branch; DeepLabV3's ablation has it on and off.
        dropout: share of the projection's values dropped in training.

    Shape:
        (B, C, h, w) to (B, out_channels, h, w).

    Raises:
        RecipeError: for no rates, a rate below 1, or an even kernel.

    Note:
        The mean's branch takes its running statistics when a single image trains, see `segcontext.pooled_norm`.
        No dropout and no 3×3 convolution follow the projection: those belong to the network around it. Others differ:
        torchvision drops half of the projection's values (``dropout=0.5``), OpenMMLab projects by a 3×3 convolution to
        512 channels (``project_kernel=3, out_channels=512``), with separable branches in DeepLabV3+.

    Example:
        >>> import torch
        >>> ASPP(16, out_channels=8)(torch.randn(2, 16, 5, 7)).features.shape
        torch.Size([2, 8, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        project_kernel: int = 1,
        separable: bool = False,
        image_pooling: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not rates or min(rates) < 1:
            raise RecipeError(
                f"rates must be one or more dilations of at least 1 pixel, not {tuple(rates)}; "
                "the paper uses (12, 24, 36) at output stride 8 and (6, 12, 18) at 16."
            )
        if project_kernel < 1 or project_kernel % 2 == 0:
            raise RecipeError(f"project_kernel must be odd, not {project_kernel}; the paper has 1, OpenMMLab 3.")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.rates = tuple(rates)
        self.pointwise = ConvNormAct(in_channels, out_channels)
        self.atrous = nn.ModuleList(
            SeparableConvNormAct(in_channels, out_channels, dilation=rate)
            if separable
            else ConvNormAct(in_channels, out_channels, kernel_size=3, dilation=rate)
            for rate in self.rates
        )
        self.image = ConvNormAct(in_channels, out_channels) if image_pooling else None
        branches = 1 + len(self.rates) + image_pooling
        self.project = ConvNormAct(out_channels * branches, out_channels, kernel_size=project_kernel)
        self.dropout = nn.Dropout(dropout)

    def options_at_stride(self, options: Mapping[str, Any], *, trained: int, now: int) -> dict[str, Any]:
        """The options with rates that keep their extent in the image, see `segcontext.model`.

        Only rates that were given: `segcontext.segmenter` makes the default ones follow the stride by itself.
        """
        given = options.get("rates")
        if given is None:
            return dict(options)
        return {**options, "rates": tuple(pixels_at_stride(rate, trained=trained, now=now) for rate in given)}

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Sees each pixel at every rate, and the image as a whole.

        Args:
            x: (B, C, h, w).
            evidence: has no effect, convolutions do not attend.

        Returns:
            (B, out_channels, h, w).
        """
        branches = [self.pointwise(x), *(atrous(x) for atrous in self.atrous)]
        if self.image is not None:
            wide = torch.float64 if x.dtype == torch.float64 else torch.float32
            mean = x.mean((2, 3), keepdim=True, dtype=wide).to(x.dtype)
            # Resizing a 1×1 map repeats its value, so there is nothing to interpolate.
            branches.append(self.image(mean).expand(-1, -1, x.shape[-2], x.shape[-1]))
        return Context(self.dropout(self.project(torch.cat(branches, 1))))
