"""3×3 convolutions with fewer products, in bfloat16 on the CPU."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segcontext import native

__all__ = ["Winograd", "use_winograd"]

#: Tiles at once: enough of them for the matrix product, few enough for the cache.
TILES = 256

#: Fewer channels than these make the transforms dearer than the products that they save.
CHANNELS = 256


class Winograd(nn.Module):
    r"""A 3×3 convolution by F(2×2, 3×3) of Lavin and Gray (arXiv:1509.09308): 4 products an output instead of 9.

    :math:`Y = A^\top[(G g G^\top) \odot (B^\top d B)]A` for tiles of 2×2 outputs from 4×4 inputs; summed over the
    channels that is one matrix product for each of the 16 places. A dilated convolution is one over every r-th pixel.

    Note:
        Inputs, transformed maps and products are rounded to bfloat16 each, sums are float32: the error is about twice
        that of a plain bfloat16 convolution.

    Args:
        convolution: stride 1, padding as wide as the dilation, one group.

    Shape:
        (B, C, h, w) to (B, K, h, w), bfloat16, channels-last.
    """

    kernel: Tensor
    shift: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.dilation = int(convolution.dilation[0])
        weight, bias = convolution.weight.detach(), convolution.bias
        g = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
        kernel = torch.einsum("ij,ocjk,lk->ilco", g, weight.double(), g).flatten(0, 1)
        self.register_buffer("kernel", kernel.bfloat16().contiguous())
        self.register_buffer("shift", torch.zeros(len(weight)) if bias is None else bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """Convolves."""
        height, width = x.shape[-2:]
        if x.device.type != "cpu":
            elsewhere: Tensor = self.convolution(x)
            return elsewhere
        # On maps that a few wide steps cover, most of the tiles would hang over the edge.
        if 4 * _lines(height, self.dilation) * _lines(width, self.dilation) > 1.3 * height * width:
            plain: Tensor = self.convolution(x)
            return plain
        found: Tensor = _convolution(x, self.kernel, self.shift, self.dilation)
        return found

    @staticmethod
    def takes(module: nn.Module) -> bool:
        """Whether a layer is a convolution of this kind, and wide enough for it to pay."""
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or module.groups > 1:
            return False
        shape = (module.kernel_size, module.stride, module.padding, module.dilation[0])
        wide = min(module.in_channels, module.out_channels) >= CHANNELS
        return wide and shape == ((3, 3), (1, 1), module.dilation, module.dilation[1])


def use_winograd(network: nn.Module) -> int:
    """Replaces every convolution that `Winograd.takes` in a network.

    Args:
        network: is changed.

    Returns:
        How many were replaced; none without compiled loops.
    """
    if not native.is_available():
        return 0
    count = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if Winograd.takes(child):
                assert isinstance(child, nn.Conv2d)
                setattr(parent, name, Winograd(child))
                count += 1
    return count


def _lines(length: int, dilation: int) -> int:
    """Tiles along one side."""
    return sum(-(-(length - start) // (2 * dilation)) for start in range(min(dilation, length)))


@lru_cache(maxsize=64)
def _places(height: int, width: int, dilation: int) -> npt.NDArray[np.int32]:
    """Row and column of every tile's upper left output, (tiles, 2)."""
    found = []
    for top in range(min(dilation, height)):
        for left in range(min(dilation, width)):
            y, x = np.arange(top, height, 2 * dilation), np.arange(left, width, 2 * dilation)
            found.append(np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2))
    return np.concatenate(found).astype(np.int32)


@torch.library.custom_op("segcontext::winograd_convolution", mutates_args=())
def _convolution(x: Tensor, kernel: Tensor, shift: Tensor, dilation: int) -> Tensor:
    from segcontext.native import winograd

    batch, channels, height, width = x.shape
    filters = kernel.shape[2]
    x = x.bfloat16().contiguous(memory_format=torch.channels_last)
    out = torch.empty(batch, filters, height, width, dtype=x.dtype, memory_format=torch.channels_last)
    places, bias = _places(height, width, dilation), shift.numpy()
    # One piece of memory for all parts: to ask the system for it each time would take longer than to fill it.
    memory = x.new_empty(16 * min(TILES, len(places)) * (channels + filters))
    for image in range(batch):
        source, target = _bits(x[image].permute(1, 2, 0)), _bits(out[image].permute(1, 2, 0))
        for start in range(0, len(places), TILES):
            some = places[start : start + TILES]
            size = 16 * len(some)
            taken = memory[: size * channels].view(16, -1, channels)
            products = memory[size * channels : size * (channels + filters)].view(16, -1, filters)
            native.split(len(some), partial(winograd.take, source, some, dilation, _bits(taken)))
            torch.bmm(taken, kernel, out=products)
            native.split(len(some), partial(winograd.bring, _bits(products), some, dilation, bias, target))
    return out


@_convolution.register_fake
def _(x: Tensor, kernel: Tensor, shift: Tensor, dilation: int) -> Tensor:
    size = (x.shape[0], kernel.shape[2], x.shape[2], x.shape[3])
    return torch.empty(size, dtype=torch.bfloat16, device=x.device, memory_format=torch.channels_last)


def _bits(values: Tensor) -> npt.NDArray[np.uint16]:
    bits: npt.NDArray[np.uint16] = values.view(torch.uint16).numpy()
    return bits
