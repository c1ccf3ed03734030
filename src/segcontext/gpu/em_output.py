"""The end of the EM attention unit on a GPU, for prediction."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from segcontext.gpu.shared_memory import AMPERE, shared_memory

__all__ = ["em_output"]


@torch.library.custom_op("segcontext::em_output", mutates_args=())
def em_output(x: Tensor, shares: Tensor, means: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    r"""The unit's output from its bases, :math:`\mathrm{ReLU}(x + W\,\mathrm{ReLU}(z\mu) + b)`.

    Args:
        x: what the unit was given, (B, N, C), contiguous.
        shares: z of the last E step, (B, N, K), in the dtype of `x`, contiguous.
        means: μ, (B, K, C), in the dtype of `x`, contiguous.
        weight: W, (C, C), in the dtype of `x`, contiguous; with the frozen batch norm's factors.
        shift: b, (C,): what the batch norm adds.

    Returns:
        (B, N, C). Without gradients.
    """
    from segcontext.gpu.kernels import output

    batch, pixels, channels = x.shape
    bases, out_channels = shares.shape[2], weight.shape[0]
    out = x.new_empty(batch, pixels, out_channels)
    # Three-part products of float32 take the registers of three.
    narrow = x.dtype != torch.float32
    tile, chunk, out_chunk = (128, 64, 256) if narrow else (64, 32, 64)
    output.output[ceil(out_channels / out_chunk), ceil(pixels / tile), batch](
        *(x, shares, means, weight, shift, out, pixels),
        **{"BASES": bases, "CHANNELS": channels, "OUT_CHANNELS": out_channels, "TILE": tile, "CHUNK": chunk},
        **{"WIDE_BASES": max(16, 1 << (bases - 1).bit_length()), "OUT_CHUNK": out_chunk},
        num_warps=8,
        num_stages=3 if shared_memory(x.device) >= AMPERE else 2,
    )
    return out


@em_output.register_fake
def _(x: Tensor, shares: Tensor, means: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], weight.shape[0])
