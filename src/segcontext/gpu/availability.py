"""Whether Triton's kernels can run on given tensors."""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache

import torch
from torch import Tensor

__all__ = ["obstacle"]

#: Set to 0, it switches the kernels off; set to 1, the automatic choice takes them unchecked.
SWITCH = "SEGCONTEXT_TRITON"

#: What the kernels compute on; bfloat16 and float16 meet in tensor cores, float32 as three TensorFloat-32 products.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

#: The oldest compute capability that multiplies bfloat16 matrices.
CAPABILITY = 8

_logger = logging.getLogger(__name__)
_TOLD: set[str] = set()


def obstacle(*tensors: Tensor | None) -> str | None:
    """Why no kernel can run on these tensors, in a few words; `None` where it can.

    Args:
        tensors: what an operation was given; all on one device.

    Note:
        Under ``TRITON_INTERPRET=1`` tensors on the CPU are taken too: there Triton's interpreter runs the kernels,
        slowly, for tests; it multiplies bfloat16 wrongly, so bfloat16 is refused there.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return "an exported program has to run without segcontext"
    given = [tensor for tensor in tensors if tensor is not None]
    device = given[0].device
    lacking = _lacking(device.type, device.index)
    if lacking is not None:
        return lacking
    for tensor in given:
        if tensor.device != device:
            return "tensors on several devices"
        if tensor.dtype not in DTYPES or (device.type == "cpu" and tensor.dtype == torch.bfloat16):
            return f"{str(tensor.dtype).removeprefix('torch.')} values"
        if tensor.numel() == 0:
            return "an empty tensor"
    return None


def _lacking(kind: str, index: int | None) -> str | None:
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH}=0 switches it off"
    if kind != "cpu" or os.environ.get("TRITON_INTERPRET") != "1":
        if kind != "cuda":
            return "no CUDA device"
        if torch.version.cuda is None:
            return _told("a GPU that is not NVIDIA's")
        # The compiler knows the answer to this question, but not to the one for the capability.
        if torch.cuda.get_device_properties(index).major < CAPABILITY:
            return _told(f"a GPU older than compute capability {CAPABILITY}")
    # The compiler cannot follow an import; on a GPU it needs triton itself.
    return None if torch.compiler.is_compiling() else _missing()


@cache
def _missing() -> str | None:
    try:
        importlib.import_module("triton")
    # A triton that does not fit this PyTorch or this Python fails in many ways while it is imported.
    except Exception as error:
        return _told(f"triton cannot be imported ({type(error).__name__}: {error})")
    return None


def _told(reason: str) -> str:
    """The reason, which a user with a GPU should hear once."""
    if not torch.compiler.is_compiling() and reason not in _TOLD:
        _TOLD.add(reason)
        _logger.warning("No kernels for the GPU: %s. Plain PyTorch runs instead, more slowly.", reason)
    return reason
