"""All cases, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Collection

import torch

from segcontext.gpu_check.case import Case
from segcontext.gpu_check.float_cases import em_cases, gate_cases, local_cases
from segcontext.gpu_check.label_cases import argmax_cases, boundary_cases, confusion_cases, fusion_cases
from segcontext.gpu_check.spoilt_cases import spoilt_cases

__all__ = ["OPERATIONS", "all_cases"]

#: What has kernels.
OPERATIONS = (
    "em_attention",
    "local_attention",
    "gated_by_mask",
    "resized_argmax",
    "confusion_from_logits",
    "boundary_matches",
    "fused_labels",
)


def all_cases(*, small: bool, interpreted: bool, only: Collection[str] = ()) -> list[Case]:
    """Every operation, on every dtype that its kernels take.

    Args:
        small: whether tiny ones, which Triton's interpreter can run, and none that is timed.
        interpreted: whether that is what runs them; it multiplies bfloat16 wrongly.
        only: names of operations, for those alone.
    """
    dtypes = [torch.float32, torch.float16] if interpreted else [torch.float32, torch.bfloat16, torch.float16]
    found: list[Case] = []
    for cases in (em_cases, local_cases, gate_cases, argmax_cases, confusion_cases, fusion_cases, spoilt_cases):
        for dtype in dtypes:
            found += cases(dtype, small=small)
    found += boundary_cases(small=small)
    return [case for case in found if not only or case.operation in only]
