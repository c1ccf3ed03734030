"""Whether compiled loops can run on some tensors now."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from segcontext.native import unavailable

__all__ = ["has_batches", "is_transformed", "obstacle_to_joined_steps", "obstacle_to_loops"]


def obstacle_to_loops(*tensors: Tensor) -> str | None:
    """Why compiled loops cannot run on tensors of float32 or bfloat16, in a few words; `None` where they can.

    Args:
        tensors: all that they would read.

    Example:
        >>> obstacle_to_loops(torch.zeros(2, device="meta"))
        'compiled loops run on the CPU'
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return "an exported program has to run without segcontext"
    if is_transformed():
        return "forward-mode derivatives and torch.func cannot look into compiled loops"
    if any(each.device.type != "cpu" for each in tensors):
        return "compiled loops run on the CPU"
    if any(each.dtype not in (torch.float32, torch.bfloat16) for each in tensors):
        return "compiled loops take float32 or bfloat16"
    if any(each.numel() == 0 for each in tensors):
        return "a map is empty"
    missing: str | None = _unavailable()
    return missing


def obstacle_to_joined_steps(features: Tensor) -> str | None:
    """Why one loop cannot stand in for several of a module's operators, in a few words; `None` where it can.

    Args:
        features: what the loop would read first.
    """
    if torch.compiler.is_compiling():
        return "the compiler sees more in the single steps"
    if _is_watched():
        return "somebody looks at the single steps"
    if type(features) is not Tensor:
        return "it is no plain tensor"
    return obstacle_to_loops(features)


def _is_watched() -> bool:
    """Whether somebody looks at the single operators of PyTorch now."""
    # A default device is such a mode, too: it only says where new tensors are made.
    modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return is_in_torch_dispatch_mode() or any(not isinstance(mode, DeviceContext) for mode in modes)


def is_transformed() -> bool:
    """Whether forward-mode derivatives or a transformation of `torch.func` are under way."""
    # The compiler traces through them, and then there is nothing left of them.
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def has_batches(*tensors: Tensor) -> bool:
    """Whether any tensor stands for many, without an address of its own, as gradients with `is_grads_batched` do."""
    if torch.compiler.is_compiling():
        return False
    # Autograd has a `vmap` of its own beside that of `torch.func`, which the latter does not know of.
    functorch = torch._C._functorch
    return any(functorch.is_legacy_batchedtensor(each) or functorch.is_batchedtensor(each) for each in tensors)


# The compiler cannot look for numba, and need not: it is there or it is not.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _unavailable() -> str | None:
    return unavailable()
