"""The operations on a GPU, in Triton.

Kernels are in modules of their own, which import triton at their top; they are imported inside the calls, and whoever
calls asks `obstacle` first: importing segcontext takes no compiler along.
"""

from segcontext.gpu.availability import obstacle

__all__ = ["obstacle"]
