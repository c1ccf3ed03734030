"""How much of its fast memory a GPU gives a program."""

from __future__ import annotations

import torch

__all__ = ["AMPERE", "HOPPER", "shared_memory"]

#: Bytes that a program can have on data-centre GPUs of compute capability 9.0 and of 8.0; on others it may be 99 KiB.
HOPPER, AMPERE = 227 * 1024, 163 * 1024


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program can have.

    Args:
        device: a GPU; for others, on which nothing or the interpreter runs, the most that there is.
    """
    if device.type != "cuda":
        return HOPPER
    # PyTorch's annotations lack it.
    found: int = torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    return found
