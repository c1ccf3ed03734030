"""The layers that every part is built from, and the one that images go through first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.pooled_norm import PooledNorm

__all__ = ["ConvNormAct", "Normalize", "SeparableConvNormAct", "StridedConv2d", "pixels_at_stride", "resize"]


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel; the padding keeps the map's size at stride 1.
        stride: stride of the convolution.
        dilation: dilation of the convolution.
        groups: groups of the convolution.
        bias: whether the convolution has a bias (batch norm makes it redundant).
        act: whether a ReLU follows.
        padding: overrides the padding that keeps the size.

    Shape:
        (B, in_channels, h, w) to (B, out_channels, ⌈h/stride⌉, ⌈w/stride⌉) for odd kernels.

    Example:
        >>> import torch
        >>> ConvNormAct(8, 4, kernel_size=3)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 4, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        act: bool = True,
        padding: int | None = None,
    ) -> None:
        self_padding = dilation * (kernel_size - 1) // 2 if padding is None else padding
        # Only strided convolutions need the care that `StridedConv2d` takes.
        convolution = nn.Conv2d if stride == 1 else StridedConv2d
        layers: list[nn.Module] = [
            convolution(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=self_padding,
                dilation=dilation,
                groups=groups,
                bias=bias,
            ),
            PooledNorm(out_channels),
        ]
        if act:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)
        self.in_channels = in_channels
        self.out_channels = out_channels


class StridedConv2d(nn.Conv2d):
    """A strided convolution whose bfloat16 gradients are right on maps narrower than its kernel, too.

    Note:
        On such maps PyTorch's CPU kernels (oneDNN; seen in 2.15 at stride 2 on maps one pixel wide, depthwise ones
        where they are channels-last) leave parts of a bfloat16 weight gradient unwritten. Only there, on the CPU and in
        bfloat16, this convolution runs in float32 on the same rounded numbers; its result is bfloat16 as always.

    Args:
        in_channels: channels of the input, and the other arguments of `torch.nn.Conv2d`.

    Shape:
        As `torch.nn.Conv2d`.

    Example:
        >>> import torch
        >>> StridedConv2d(4, 4, 3, stride=2, padding=1, groups=4).bfloat16()(torch.randn(1, 4, 2, 2).bfloat16()).shape
        torch.Size([1, 4, 1, 1])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._affected(input):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        exact, kernel = input.bfloat16().float(), weight.bfloat16().float()
        shift = None if bias is None else bias.bfloat16().float()
        with torch.autocast("cpu", enabled=False):
            wide: Tensor = super()._conv_forward(exact, kernel, shift)
        return wide.bfloat16()

    def _affected(self, input: Tensor) -> bool:
        # Exported programs have no gradients, and asking for a size would tie them to it.
        if input.device.type != "cpu" or torch.compiler.is_exporting():
            return False
        dtype = input.dtype
        if dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
        height, width = input.shape[-2:]
        return dtype == torch.bfloat16 and (height < self.kernel_size[0] or width < self.kernel_size[1])


class SeparableConvNormAct(nn.Sequential):
    """A depthwise 3×3 convolution, then a 1×1 convolution, each with batch norm and ReLU (DeepLabV3+ §3.1).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        dilation: dilation of the depthwise convolution.

    Shape:
        (B, in_channels, h, w) to (B, out_channels, h, w).

    Example:
        >>> import torch
        >>> SeparableConvNormAct(8, 4, dilation=2)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 4, 5, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, kernel_size=3, dilation=dilation, groups=in_channels),
            ConvNormAct(in_channels, out_channels),
        )
        self.in_channels = in_channels
        self.out_channels = out_channels


class Normalize(nn.Module):
    """Brings RGB images to what the backbone was trained on.

    Args:
        mean: per RGB channel, with images in [0, 1].
        std: per RGB channel, likewise.
        bgr: whether the backbone wants its channels in the order blue, green, red.

    Shape:
        (B, 3, H, W), uint8 in 0..255 or floats in [0, 1], to floats of the same shape.

    Note:
        The GALD authors' input (BGR, 0-255, mean subtracted, not divided) is
        ``Normalize((122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255), (1 / 255,) * 3, bgr=True)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        *,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.bgr = bgr

    def forward(self, images: Tensor) -> Tensor:
        """Scales, centres and orders the channels."""
        x = images.to(self.mean.dtype)
        x = x / 255 if images.dtype == torch.uint8 else x
        x = (x - self.mean) / self.std
        return x.flip(1) if self.bgr else x


def pixels_at_stride(pixels: int, *, trained: int, now: int) -> int:
    """A distance on the feature map that spans, at another output stride, as much of the image as before.

    Args:
        pixels: the distance in pixels of the map, at the stride of the training.
        trained: pixels of the image per pixel of the map in training.
        now: the same now.

    Returns:
        The nearest whole number of pixels, halves rounded up, at least 1.

    Example:
        >>> pixels_at_stride(3, trained=16, now=8), pixels_at_stride(3, trained=8, now=16)
        (6, 2)
    """
    return max(1, (2 * pixels * trained + now) // (2 * now))


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Bilinear resizing without antialiasing, as the papers' networks do inside.

    Args:
        x: (B, C, h, w).
        size: the target (h', w').
        align_corners: whether the corner pixels' centres (True, the papers' code) or their outer edges are aligned.

    Returns:
        (B, C, h', w'); `x` itself where it already has that size, a copy in an exported program.
    """
    # To ask whether the sizes are equal would tie an exported program to maps where the answer is the same.
    if not torch.compiler.is_exporting() and x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
