"""The end of the EMA unit on the CPU, some pixels at a time, so that what lies between stays in the caches."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from segcontext.native import split
from segcontext.native.memory import roomy

__all__ = ["finish_channels", "finish_pixels"]

#: Pixels at a time: 8 MiB of 512 channels in bfloat16.
BLOCK = 8192


def finish_channels(base: Tensor, z: Tensor, means: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """Writes ReLU(base + W ReLU(μᵀ z) + b) of one image with a channel in each row.

    Args:
        base: what is added to, (C, N), float32 or bfloat16.
        z: responsibilities, (N, K), in the dtype of the products.
        means: μ, (K, C), likewise.
        weight: W, (C, C), likewise.
        bias: b, (C,), float32.
        out: like `base`.
    """
    channels, pixels = base.shape
    rebuilt, added = (roomy((channels * min(BLOCK, pixels),), weight.dtype) for _ in range(2))
    for start in range(0, pixels, BLOCK):
        end = min(start + BLOCK, pixels)
        again, more = (each[: channels * (end - start)].view(channels, -1) for each in (rebuilt, added))
        torch.mm(means.mT, z[start:end].mT, out=again)
        torch.mm(weight, again.relu_(), out=more)
        _add(base, more, bias, True, out, start)


def finish_pixels(base: Tensor, z: Tensor, means: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """The same with a pixel in each row of `base` and `out`.

    Args:
        base: what is added to, (N, C), float32 or bfloat16.
        z: responsibilities, (N, K), in the dtype of the products.
        means: μ, (K, C), likewise.
        weight: W, (C, C), likewise.
        bias: b, (C,), float32.
        out: like `base`.
    """
    pixels, channels = base.shape
    rebuilt, added = (roomy((min(BLOCK, pixels), channels), weight.dtype) for _ in range(2))
    for start in range(0, pixels, BLOCK):
        end = min(start + BLOCK, pixels)
        again, more = rebuilt[: end - start], added[: end - start]
        torch.mm(z[start:end], means, out=again)
        torch.mm(again.relu_(), weight.mT, out=more)
        _add(base[start:end], more, bias, False, out[start:end], 0)


def _add(base: Tensor, added: Tensor, bias: Tensor, by_row: bool, out: Tensor, start: int) -> None:
    """Writes ReLU(base + added + bias) from a column on, with a bias for each row or for each column."""
    from segcontext.native import em

    kernel = em.finish_half if base.dtype == torch.bfloat16 else em.finish
    if base.dtype != added.dtype:
        kernel = em.finish_mixed
    arrays = _array(base), _array(added), _array(bias), by_row, _array(out), start
    split(len(base), partial(kernel, *arrays), grain=16)


def _array(tensor: Tensor) -> Any:
    """A tensor for compiled loops; bfloat16 as the integers that it is in memory."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
