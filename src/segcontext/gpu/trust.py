"""Whether the automatic choice takes an operation's kernels: where they were checked on this GPU, and do not fail."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import NamedTuple, Self

import torch
from torch import Tensor

from segcontext.gpu.availability import SWITCH
from segcontext.gpu.record import machine, read_verdicts

__all__ = ["Site", "distrust", "forget", "is_trusted"]

_logger = logging.getLogger(__name__)
_FAILED: set[tuple[str, str, int | None]] = set()
_TOLD: set[str] = set()


class Site(NamedTuple):
    """Where and on what an operation's kernels would run.

    Attributes:
        device: of the tensors.
        dtype: that decides which kernels run.
        gradients: whether autograd follows.
    """

    device: torch.device
    dtype: torch.dtype
    gradients: bool

    @classmethod
    def of(cls, *tensors: Tensor | None, dtype: torch.dtype | None = None, follows: bool = True) -> Self:
        """The site of some tensors.

        Args:
            tensors: what the operation was given, the first of which there is.
            dtype: the decisive one, where that is not the first tensor's.
            follows: whether autograd is to follow at all.
        """
        first = tensors[0]
        assert first is not None
        learning = any(each is not None and each.requires_grad for each in tensors)
        return cls(first.device, dtype or first.dtype, follows and learning and torch.is_grad_enabled())


def is_trusted(operation: str, site: Site) -> bool:
    """Whether the automatic choice takes an operation's kernels at a site where they can run.

    ``SEGCONTEXT_TRITON=1`` has it take all of them; else those that `segcontext check-gpu` found right and not slower.
    Kernels that have failed in this process are not taken again.

    Args:
        operation: its name.
        site: where.
    """
    taken: bool = _is_trusted(operation, site.device.type, site.device.index, site.dtype, site.gradients)
    return taken


# The compiler cannot read files, and need not: what they say holds for the process.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_trusted(operation: str, kind: str, index: int | None, dtype: torch.dtype, gradients: bool) -> bool:
    if (operation, kind, index) in _FAILED:
        return False
    if os.environ.get(SWITCH) == "1":
        return True
    if kind != "cuda":
        return False
    place = torch.cuda.current_device() if index is None else index
    return (operation, str(dtype).removeprefix("torch."), gradients) in _taken(place)


@cache
def _taken(index: int) -> frozenset[tuple[str, str, bool]]:
    """What is taken on a GPU."""
    found_on = machine(index)
    verdicts = read_verdicts(found_on)
    if verdicts is None:
        if found_on["gpu"] not in _TOLD:
            _TOLD.add(found_on["gpu"])
            _logger.warning(
                "The kernels for the GPU have not been checked on this %s, so plain PyTorch runs instead. "
                "'segcontext check-gpu' checks and times them once, in a few minutes.",
                found_on["gpu"],
            )
        return frozenset()
    return frozenset(verdict[:3] for verdict in verdicts if verdict.taken)


def distrust(operation: str, device: torch.device, reason: str) -> None:
    """Has an operation's kernels not be taken again on a device in this process, and logs it once.

    Args:
        operation: its name.
        device: where they failed.
        reason: in a few words.
    """
    failed = (operation, device.type, device.index)
    if failed not in _FAILED:
        _FAILED.add(failed)
        _logger.warning("The kernels of %s for the GPU are not used any more: %s.", operation, reason)


def forget() -> None:
    """Forgets what was read, told and failed: for a record that was just written, and for tests."""
    _FAILED.clear()
    _TOLD.clear()
    _taken.cache_clear()
