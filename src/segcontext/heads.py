"""What may stand behind the context parts: the DeepLabV3+ decoder and the auxiliary head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segcontext.layers import ConvNormAct, SeparableConvNormAct, resize

__all__ = ["AuxiliaryHead", "Decoder"]


class Decoder(nn.Module):
    """The decoder of DeepLabV3+ (Chen et al. 2018, §3.1): sharpens with the stride-4 features.

    Args:
        in_channels: channels of the context features.
        low_channels: channels of the stride-4 features, which a 1×1 convolution brings to `reduced_channels`.
        channels: channels of the two 3×3 convolutions and of the output.
        reduced_channels: 48 in the paper.
        separable: whether the two 3×3 convolutions are depthwise separable.

    Shape:
        (B, in_channels, h, w) and (B, low_channels, H/4, W/4) to (B, channels, H/4, W/4).

    Note:
        The convolutions are plain, as in the paper's experiments with ResNet-101. Its Xception (§4.3) and OpenMMLab's
        port have depthwise separable ones, ``separable=True``.
    """

    def __init__(
        self,
        in_channels: int,
        low_channels: int,
        *,
        channels: int = 256,
        reduced_channels: int = 48,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = channels
        self.low = ConvNormAct(low_channels, reduced_channels)
        widths = ((in_channels + reduced_channels, channels), (channels, channels))
        self.mix = nn.Sequential(
            *(SeparableConvNormAct(*each) if separable else ConvNormAct(*each, kernel_size=3) for each in widths)
        )

    def forward(self, x: Tensor, low: Tensor, *, align_corners: bool = True) -> Tensor:
        """Upsamples `x` to the low-level map, concatenates, and mixes."""
        low = self.low(low)
        x = resize(x, (low.shape[-2], low.shape[-1]), align_corners=align_corners)
        mixed: Tensor = self.mix(torch.cat([x, low], 1))
        return mixed


class AuxiliaryHead(nn.Sequential):
    """Deep supervision on the stage before the last (PSPNet §3.3; GALD: 3×3 to 512, BN, ReLU, dropout, 1×1).

    Args:
        in_channels: channels of that stage.
        num_classes: the classes.
        channels: width of the 3×3 convolution.
        dropout: share of channels dropped in training.
        bias: whether the 3×3 convolution has a bias, as in the GALD authors' checkpoints.

    Shape:
        (B, in_channels, h, w) to (B, num_classes, h, w).
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, channels: int = 512, dropout: float = 0.1, bias: bool = False
    ) -> None:
        super().__init__(
            ConvNormAct(in_channels, channels, kernel_size=3, bias=bias),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, num_classes, 1),
        )
