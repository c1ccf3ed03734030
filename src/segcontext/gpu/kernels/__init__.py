"""Kernels in Triton; whoever imports one of these modules imports triton."""
