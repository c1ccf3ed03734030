"""A network compiled for training."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from segcontext.speed.processor import compiler_missing, first_line
from segcontext.types import Output

__all__ = ["Compiled"]

_logger = logging.getLogger(__name__)


class Compiled:
    """Calls a network through `torch.compile`, forward and backward; or as it is, where it cannot be compiled.

    Kernels of the backward pass are made at the first one; a compiler that fails there ends the training.

    Random numbers (dropout) are drawn as without the compiler. The kernels are made at the first call.

    Args:
        network: is shared, not copied: its weights, buffers and modes stay its own.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._kernels: Any = torch.compile(network, dynamic=False, options={"fallback_random": True})
        self._fails = False

    def __call__(self, images: Tensor, **options: bool) -> Output:
        """The network's output."""
        if not self._fails:
            try:
                missing = compiler_missing(images.device)
                if missing is None:
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
