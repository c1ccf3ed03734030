"""Counting as EMANet's Table 1 was counted: layer by layer, by a tool that hooks modules."""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from segcontext.costs.stand_in import without_numbers

__all__ = ["MEBIBYTE", "Layers", "by_modules"]

MEBIBYTE = 2**20


class Layers(NamedTuple):
    """What the layers of a part add up to.

    Attributes:
        operations: multiply-adds of convolutions, and the layers' small operations.
        mebibytes: of what the layers put out, in 32-bit.
    """

    operations: int = 0
    mebibytes: float = 0.0


def by_modules(model: nn.Module, size: tuple[int, int]) -> dict[str, Layers]:
    """Counts what the layers of each part do and put out.

    Source: EMANet's first author names torchstat, for everything but the EMA unit (answers 16 and 46 on
    github.com/XiaLiPKU/EMANet). That tool looks at every module without children: a convolution counts its
    multiply-adds and its biases, batch norm 2 per value, ReLU 1, pooling 1 per value that goes in. Its memory is the
    size of all outputs, 4 bytes a value, in units of 2²⁰ bytes.

    Args:
        model: a `Segmenter`, or any module with children.
        size: (H, W) of one image.

    Returns:
        Operations and memory by child.

    Note:
        The tool writes what it finds into the module, so a module that runs several times counts as it ran last. The
        authors' residual blocks have one ReLU that runs three times; timm's have three, which count as one here.
        Functions, sums, concatenations and matrix products are not seen: `segcontext.cost` counts those.

    Example:
        >>> by_modules(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), (8, 8))["0"].operations
        1024
    """
    found: dict[tuple[str, int], Layers] = {}
    with torch.inference_mode(False), torch.no_grad(), FakeTensorMode() as mode:
        twin = without_numbers(model, mode).eval()
        one = {
            id(activation): id(block)
            for block in twin.modules()
            if isinstance(block, (BasicBlock, Bottleneck))
            for activation in (getattr(block, name, None) for name in ("act1", "act2", "act3"))
        }
        for part, module in twin.named_children():
            for layer in module.modules():
                if not any(True for _ in layer.children()):

                    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, part: str = part) -> None:
                        counted = _layer(layer, inputs[0], output)
                        if counted is not None:
                            found[part, one.get(id(layer), id(layer))] = counted

                    layer.register_forward_hook(look)
        dtype = next((each.dtype for each in model.parameters()), torch.float32)
        twin(torch.empty(1, 3, *size, dtype=dtype))
    total: dict[str, Layers] = {}
    for (part, _), layers in found.items():
        before = total.get(part, Layers())
        total[part] = Layers(before.operations + layers.operations, before.mebibytes + layers.mebibytes)
    return total


def _layer(layer: nn.Module, x: Tensor, out: Tensor) -> Layers | None:
    if isinstance(layer, nn.Conv2d):
        operations = out.numel() * (layer.weight[0].numel() + (layer.bias is not None))
    elif isinstance(layer, nn.BatchNorm2d):
        operations = 2 * x.numel()
    elif isinstance(layer, nn.ReLU | nn.MaxPool2d | nn.AvgPool2d):
        operations = x.numel()
    elif isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.p > 0:
        operations = 0
    else:
        return None
    return Layers(operations, 4 * out.numel() / MEBIBYTE)
