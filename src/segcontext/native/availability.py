"""Whether loops can be compiled on this machine."""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache

__all__ = ["is_available", "unavailable"]

#: Set to 0, it switches compiled loops off.
SWITCH = "SEGCONTEXT_NATIVE"

_logger = logging.getLogger(__name__)


def unavailable() -> str | None:
    """Why no loop can be compiled here, in a few words; `None` where they can.

    Note:
        The first call imports numba, which takes about half a second, and logs it once where that fails.
    """
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH}=0 switches them off"
    return _missing()


def is_available() -> bool:
    """Whether loops can be compiled here."""
    return unavailable() is None


@cache
def _missing() -> str | None:
    try:
        importlib.import_module("numba")
    # A numba that does not fit this numpy or this Python fails in many ways while it is imported.
    except Exception as error:
        reason = f"numba cannot be imported ({type(error).__name__}: {error})"
        _logger.warning("No compiled loops: %s. Plain PyTorch and NumPy run instead, more slowly.", reason)
        return reason
    return None
