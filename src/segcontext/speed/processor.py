"""What the processor at hand can do."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

import torch

__all__ = ["compiler_missing", "first_line", "has_bf16"]


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 numbers in hardware; elsewhere they are slower than float32.

    Args:
        device: where the network is.

    Returns:
        For the CPU, whether it has AVX-512 BF16, AMX or ARM's BF16 instructions.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Where PyTorch is too old to say, float32 is the safe answer.
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def compiler_missing(device: torch.device) -> str | None:
    """Why `torch.compile` cannot make kernels here, in a few words; `None` where nothing is known to stand in its way.

    Args:
        device: where the network is.
    """
    if device.type == "cuda":
        return None if find_spec("triton") else "Triton is not installed"
    if device.type != "cpu":
        return f"it is not tried on {device.type}"
    known = ("cl", "clang-cl") if sys.platform == "win32" else ("g++", "clang++", "c++")
    asked = os.environ.get("CXX")
    if any(map(shutil.which, (asked,) if asked else known)):
        return None
    return f"there is no C++ compiler ({asked or ', '.join(known)})"


def first_line(error: Exception) -> str:
    """What a compiler complains of, without the pages that follow.

    Args:
        error: what it raised.
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
