"""Whether the kernels for a GPU are right and fast on the GPU at hand."""

from segcontext.gpu_check.case import Finding
from segcontext.gpu_check.cases import OPERATIONS
from segcontext.gpu_check.checking import NEEDS, check_kernels, verdicts

__all__ = ["NEEDS", "OPERATIONS", "Finding", "check_kernels", "verdicts"]
