"""The two layers that every part is built from."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.pooled_norm import PooledNorm

__all__ = ["ConvNormAct", "resize"]


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
        layers: list[nn.Module] = [
            nn.Conv2d(
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


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Bilinear resizing without antialiasing, as the papers' networks do inside.

    Args:
        x: (B, C, h, w).
        size: the target (h', w').
        align_corners: whether the corner pixels' centres (True, the papers' code) or their outer edges are aligned.

    Returns:
        (B, C, h', w'); `x` itself where it already has that size.
    """
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
