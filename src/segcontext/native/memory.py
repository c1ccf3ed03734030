"""Memory for large tensors that is quick to write to for the first time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["roomy"]

#: Bytes of a cache line, which vectors should not straddle.
LINE = 64


def roomy(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU with nothing in it yet.

    NumPy asks Linux for pages of 2 MiB where an array is large, PyTorch does not: with pages of 4 KiB, a map of 64 MiB
    takes longer to be handed out by the system, when it is first written to, than to be computed.

    Args:
        shape: of the tensor.
        dtype: of the tensor.

    Returns:
        A contiguous tensor that starts on a cache line.

    Example:
        >>> roomy((2, 3), torch.bfloat16).shape
        torch.Size([2, 3])
    """
    size = math.prod(shape) * dtype.itemsize
    room = torch.from_numpy(np.empty(size + LINE, np.uint8))
    start = -room.data_ptr() % LINE
    return room[start : start + size].view(dtype).view(tuple(shape))
