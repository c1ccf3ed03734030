"""Cases of logits that are not finite: labels have to be those of the reference, to the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from segcontext import ops
from segcontext.gpu_check.case import Case, Results, Work
from segcontext.inference import Protocol
from segcontext.inference.fusing import fused_labels
from segcontext.inference.views import Answer
from segcontext.metrics import confusion_from_logits
from segcontext.types import Output

__all__ = ["spoilt", "spoilt_cases"]

Size: TypeAlias = tuple[int, int]

#: Logits' sizes, those they are brought to, and whether corners are aligned. All weights are exact, so that an infinity
#: meets a weight of 0, and becomes no number, in the same places however weights are rounded.
RESIZED: list[tuple[Size, Size, bool]] = [((5, 6), (17, 21), True), ((5, 6), (20, 24), False)]

#: Such a size is left as it is by PyTorch on a GPU, but on the CPU infinities are multiplied by 0.
COPIED: tuple[Size, Size, bool] = ((5, 6), (5, 6), True)


def spoilt_cases(dtype: torch.dtype, *, small: bool) -> Iterator[Case]:
    """Labels, counts and the fusion of views, of logits some of which are not finite."""
    for sizes in RESIZED if small else [*RESIZED, COPIED]:
        for operation, make in (("resized_argmax", _argmax), ("confusion_from_logits", _confusion)):
            what = f"{sizes[0][0]}×{sizes[0][1]} to {sizes[1][0]}×{sizes[1][1]}, not all finite"
            yield Case(operation, dtype, False, what, False, partial(make, *sizes, dtype))
    for aligned in (True, False):
        for average in ("probabilities", "logits"):
            what = f"3 views{', aligned' if aligned else ''}, {average}, not all finite"
            make_views = partial(_fusion, Protocol(average=average), aligned, dtype)
            yield Case("fused_labels", dtype, False, what, False, make_views)


def spoilt(logits: Tensor) -> Tensor:
    """Logits with values in several places that are not finite.

    Args:
        logits: (B, K, h, w), at least 4 classes on 4×5.
    """
    logits = logits.clone()
    nan, infinity = float("nan"), float("inf")
    # Two classes that are no number in one pixel; two that are infinite; one whose infinities meet; none above -∞.
    for place, value in (
        *(((0, 2, 0, 0), nan), ((0, 3, 0, 0), nan), ((-1, 1, 0, 3), infinity), ((-1, 3, 0, 3), infinity)),
        *(((0, 2, 2, 1), infinity), ((0, 2, 2, 2), -infinity), ((0, 0, 2, 4), -infinity), ((0, 1, -1, -1), nan)),
    ):
        logits[place] = value
    logits[0, :, 3, 2] = -infinity
    return logits


def _argmax(few: Size, size: Size, aligned: bool, dtype: torch.dtype, device: torch.device) -> Work:
    logits = _drawn(few, dtype, device)
    return _work(lambda: ops.resized_argmax(logits, size, align_corners=aligned))


def _confusion(few: Size, size: Size, aligned: bool, dtype: torch.dtype, device: torch.device) -> Work:
    logits = _drawn(few, dtype, device)
    target = torch.randint(0, 5, (2, *size), dtype=torch.uint8).to(device)
    return _work(lambda: confusion_from_logits(logits, target, align_corners=aligned))


def _fusion(protocol: Protocol, aligned: bool, dtype: torch.dtype, device: torch.device) -> Work:
    more = int(aligned)
    # The second has the image's size, so that it is not resized once more.
    sizes = (((4, 10), (16, 80), False), ((4, 5), (8, 40), False), ((4, 10), (16, 80), True))
    views: list[Answer] = []
    for (rows, columns), view, flipped in sizes:
        logits = _drawn((rows + more, columns + more), dtype, device)
        views.append(Answer(Output(logits, (view[0] + more, view[1] + more), aligned), view, flipped))
    return _work(lambda: fused_labels(views, (8, 40), protocol))


def _drawn(size: Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    torch.manual_seed(sum(size))
    return spoilt(4 * torch.randn(2, 5, *size)).to(device, dtype)


def _work(once: Callable[[], Tensor]) -> Work:
    def call() -> Results:
        # Triton's interpreter computes in NumPy, which warns of what is no number.
        with np.errstate(invalid="ignore"):
            return (once(),)

    def error(found: Results) -> float:
        with ops.use_implementation("reference"):
            return float((found[0] != once()).double().mean())

    return Work(call, error, 0.0)
