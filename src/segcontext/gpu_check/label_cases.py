"""Cases of what is computed from logits and labels: labels, counts, boundaries, the fusion of views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext import ops
from segcontext.gpu_check.case import Case, Results, Work
from segcontext.inference import Protocol
from segcontext.inference.fusing import fused_labels
from segcontext.inference.views import Answer
from segcontext.metrics import confusion_from_logits, confusion_matrix
from segcontext.metrics.boundary_matches import boundary_matches
from segcontext.types import Output

__all__ = ["argmax_cases", "boundary_cases", "confusion_cases", "fusion_cases"]

Size: TypeAlias = tuple[int, int]

#: By how much a class that is named may be below the largest, beside the largest of all.
SLACK = 3e-6


def argmax_cases(dtype: torch.dtype, *, small: bool) -> Iterator[Case]:
    """Labels straight from small logits."""
    for sizes in _label_sizes(small):
        make = partial(_argmax, *sizes, dtype)
        yield Case("resized_argmax", dtype, False, _named(*sizes[:2]), sizes[1][1] > 1000, make)


def confusion_cases(dtype: torch.dtype, *, small: bool) -> Iterator[Case]:
    """Counts straight from small logits."""
    for sizes in _label_sizes(small):
        make = partial(_confusion, *sizes, dtype)
        yield Case("confusion_from_logits", dtype, False, _named(*sizes[:2]), sizes[1][1] > 1000, make)


def boundary_cases(*, small: bool) -> Iterator[Case]:
    """Boundary pixels and their counterparts."""
    sizes: list[tuple[Size, int, list[float]]] = (
        [((9, 12), 3, [1, 2])]
        if small
        else [
            ((203, 131), 4, [3, 1, 3**0.5, 2.5]),
            ((1, 9), 2, [1]),
            ((90, 77), 70, [1.5, 2]),
            ((1024, 2048), 19, [3, 5, 9, 12]),
        ]
    )
    for size, classes, slacks in sizes:
        what = f"{size[0]}×{size[1]}, {classes} classes, {len(slacks)} slacks"
        make = partial(_boundary, size, classes, slacks)
        yield Case("boundary_matches", torch.int32, False, what, size[1] > 1000, make)


def fusion_cases(dtype: torch.dtype, *, small: bool) -> Iterator[Case]:
    """Labels of several scales and their mirror images together."""
    sizes: list[tuple[int, Size, tuple[float, ...]]] = (
        [(3, (6, 9), (0.5, 1))] if small else [(7, (41, 75), (0.75, 1)), (19, (512, 1024), (0.5, 1, 1.5))]
    )
    for classes, size, scales in sizes:
        for average in ("probabilities", "logits"):
            protocol = Protocol(scales=scales, flip=True, average=average)
            what = f"{2 * len(scales)} views to {size[0]}×{size[1]}, {classes} classes, {average}"
            make = partial(_fusion, classes, size, protocol, dtype)
            yield Case("fused_labels", dtype, False, what, size[1] > 1000, make)


def _argmax(shape: tuple[int, ...], size: Size, aligned: bool, dtype: torch.dtype, device: torch.device) -> Work:
    torch.manual_seed(0)
    logits = _smooth(*shape).to(device, dtype)

    def call() -> Results:
        return (ops.resized_argmax(logits, size, align_corners=aligned),)

    return Work(call, lambda found: _shortfall(found[0], _resized(logits, size, aligned)), SLACK)


def _confusion(shape: tuple[int, ...], size: Size, aligned: bool, dtype: torch.dtype, device: torch.device) -> Work:
    torch.manual_seed(0)
    logits = _smooth(*shape).to(device, dtype)
    target = torch.randint(0, shape[1], (shape[0], *size), dtype=torch.uint8)
    target[:, -1:, size[1] // 2 :] = 255
    target = target.to(device)

    def call() -> Results:
        return (confusion_from_logits(logits, target, align_corners=aligned),)

    def error(found: Results) -> float:
        exact = _resized(logits, size, aligned)
        first, second = exact.topk(2, 1).values.unbind(1)
        doubtful = int((first - second < SLACK * exact.abs().max()).sum())
        wanted = confusion_matrix(exact.argmax(1), target, shape[1])
        return max(0.0, int((found[0] - wanted).abs().sum()) / 2 - doubtful) / target.numel()

    return Work(call, error, 0.0)


def _boundary(size: Size, classes: int, slacks: Sequence[float], device: torch.device) -> Work:
    torch.manual_seed(0)
    coarse = torch.randint(-1, classes, (1, 1, -(-size[0] // 16), -(-size[1] // 16))).float()
    truth = F.interpolate(coarse, size, mode="nearest")[0, 0].int()
    # Moved by a few pixels, as a prediction's boundaries are.
    maps = [each.contiguous() for each in (truth.roll((2, 3), (0, 1)), truth)]
    there = [each.to(device) for each in maps]

    def call() -> Results:
        return tuple(torch.from_numpy(each) for each in boundary_matches(there[0], there[1], classes, slacks))

    def error(found: Results) -> float:
        with ops.use_implementation("reference"):
            wanted = boundary_matches(maps[0].numpy(), maps[1].numpy(), classes, slacks)
        return float(sum(int((mine.numpy() != theirs).sum()) for mine, theirs in zip(found, wanted, strict=True)))

    return Work(call, error, 0.0)


def _fusion(classes: int, size: Size, protocol: Protocol, dtype: torch.dtype, device: torch.device) -> Work:
    torch.manual_seed(0)
    views: list[Answer] = []
    for scale in protocol.scales:
        seen = (int(size[0] * scale), int(size[1] * scale))
        padded = (seen[0] + 3, seen[1] + 1)
        logits = _smooth(1, classes, padded[0] // 8 + 1, padded[1] // 8 + 1).to(device, dtype)
        for each, flipped in ((logits, False), (logits.flip(-1), True)):
            views.append(Answer(Output(each.contiguous(), padded, True), seen, flipped))

    def error(found: Results) -> float:
        total: Tensor | float = 0.0
        for view in views:
            answer = _resized(view.output.features_logits, view.output.size, True)[..., : view.size[0], : view.size[1]]
            answer = F.interpolate(answer, size, mode="bilinear", align_corners=False)
            answer = answer.softmax(1) if protocol.average == "probabilities" else answer
            total = total + (answer.flip(-1) if view.flipped else answer)
        assert isinstance(total, Tensor)
        return _shortfall(found[0], total)

    return Work(lambda: (fused_labels(views, size, protocol),), error, SLACK)


def _smooth(*shape: int) -> Tensor:
    """Logits with neighbours that are alike, as a network's are."""
    small = torch.randn(*shape[:2], max(1, shape[2] // 4), max(1, shape[3] // 4))
    return 4 * F.interpolate(small, shape[2:], mode="bicubic")


def _resized(logits: Tensor, size: Size, align_corners: bool) -> Tensor:
    return F.interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners)


def _shortfall(labels: Tensor, exact: Tensor) -> float:
    """By how much the classes that were named are below the largest, beside the largest of all."""
    below = exact.amax(1) - exact.gather(1, labels.long().unsqueeze(1))[:, 0]
    return float(below.max() / exact.abs().max())


def _label_sizes(small: bool) -> list[tuple[tuple[int, ...], Size, bool]]:
    """Shapes of logits, sizes of labels, and whether corners are aligned."""
    if small:
        return [((1, 3, 2, 3), (9, 14), True)]
    return [
        ((2, 23, 5, 7), (33, 150), False),
        ((1, 2, 1, 2), (1, 9), True),
        ((1, 171, 33, 65), (257, 513), True),
        ((1, 19, 128, 256), (1024, 2048), True),
    ]


def _named(shape: tuple[int, ...], size: Size) -> str:
    return f"{'×'.join(map(str, shape))} to {size[0]}×{size[1]}"
