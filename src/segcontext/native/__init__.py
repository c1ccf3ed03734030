"""Loops compiled to the machine they run on, shared out to threads; without numba there are none.

The kernels themselves are modules below this one. They import numba at their top, so whoever calls one asks
`is_available` first and imports it inside the call: importing segcontext takes no compiler along.
"""

from segcontext.native.availability import is_available, unavailable
from segcontext.native.threads import split

__all__ = ["is_available", "split", "unavailable"]
