"""Large fresh tensors in large pages."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["empty_like"]

#: Below this many bytes small pages do.
LARGE = 4 * 2**20
#: Linux's MADV_HUGEPAGE, and the size of such a page on most machines.
ADVICE, PAGE = 14, 2**21


def empty_like(x: Tensor) -> Tensor:
    """An uninitialised tensor like another, for which Linux is asked for large pages.

    Writing into fresh memory costs more than the writing: each page of 4 KiB is handed out by the kernel at its first
    touch. Elsewhere this is `torch.empty_like`.

    Args:
        x: any tensor.

    Example:
        >>> empty_like(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """
    out = torch.empty_like(x)
    size = out.untyped_storage().nbytes()
    advise = _advise()
    if advise is not None and out.device.type == "cpu" and size >= LARGE:
        begin = out.untyped_storage().data_ptr()
        first = -(-begin // PAGE) * PAGE
        advise(ctypes.c_void_p(first), ctypes.c_size_t((begin + size - first) // PAGE * PAGE), ADVICE)
    return out


@cache
def _advise() -> Any:
    return getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
