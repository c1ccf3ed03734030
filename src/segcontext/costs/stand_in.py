"""A network without numbers, which runs as fast as its shapes can be worked out."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["without_numbers"]

Module = TypeVar("Module", bound=nn.Module)


def without_numbers(model: Module, mode: FakeTensorMode) -> Module:
    """A copy of a network whose tensors have shapes and nothing else; within `mode` it runs without computing.

    Args:
        model: any module, on any device; it is left as it is.
        mode: PyTorch's mode for such tensors. They pass for tensors of the CPU, so that the network does what it would
            do there; on the meta device autocast does not work, and attention is not fused.

    Returns:
        The copy.

    Example:
        >>> with FakeTensorMode() as mode:
        ...     without_numbers(nn.Linear(3, 4), mode)(torch.empty(2, 3)).shape
        torch.Size([2, 4])
    """
    memo: dict[int, Any] = {}
    with mode:
        for module in model.modules():
            # Parts may keep tensors beside their parameters and buffers, such as the bases that a step has seen.
            held = (value for value in vars(module).values() if isinstance(value, Tensor))
            for tensor in (*module.buffers(recurse=False), *held):
                memo[id(tensor)] = _hollow(tensor)
        for parameter in model.parameters():
            memo[id(parameter)] = nn.Parameter(_hollow(parameter), parameter.requires_grad)
        return copy.deepcopy(model, memo)


def _hollow(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
