"""A network compiled for training."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from segcontext.model import KeepsBases
from segcontext.speed.processor import compiler_missing, first_line
from segcontext.speed.rehearsal import rehearse
from segcontext.types import Output

__all__ = ["Compiled"]

_logger = logging.getLogger(__name__)


class Compiled:
    """Calls a network through `torch.compile`, forward and backward; or as it is, where it cannot be compiled.

    Random numbers (dropout) are drawn as without the compiler. The kernels of both directions are made at the first
    call with images of a size, by a pass that leaves the network and the random numbers as they were: a compiler that
    fails, in either direction, fails before anything was learnt, and the same call goes on without it.

    Args:
        network: is shared, not copied: its weights, buffers and modes stay its own.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._kernels: Any = torch.compile(network, dynamic=False, options={"fallback_random": True})
        self._keepers = [part for part in network.modules() if isinstance(part, KeepsBases)]
        self._rehearsed: set[object] = set()
        self._fails = False

    def __call__(self, images: Tensor, **options: bool) -> Output:
        """The network's output."""
        if not self._fails:
            try:
                missing = compiler_missing(images.device)
                if missing is None:
                    self._rehearse(images, options)
                    compiled: Output = self._kernels(images, **options)
                    return compiled
            except torch.OutOfMemoryError:
                raise
            # What goes wrong inside a compiler has no common class; an error of the network's own comes again below.
            except Exception as error:
                missing = f"the compiler failed ({first_line(error)})"
            self._fails = True
            _logger.warning("The network trains uncompiled: %s.", missing)
        plain: Output = self.network(images, **options)
        return plain

    def _rehearse(self, images: Tensor, options: dict[str, bool]) -> None:
        """Has the kernels of both directions made, where that has not happened yet for such images."""
        if not torch.is_grad_enabled():
            return
        # A step's later micro-batches find what the first has left with the bases, and get kernels of their own.
        held = tuple(sum(isinstance(each, Tensor) for each in vars(part).values()) for part in self._keepers)
        kind = (images.shape, images.dtype, images.device, tuple(options.items()), held)
        if kind not in self._rehearsed:
            rehearse(self._kernels, self.network, images, **options)
            self._rehearsed.add(kind)
