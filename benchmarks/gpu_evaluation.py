"""What `gpu_ops.py` compares of the evaluation path: counts, boundaries and the fusion of several views."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpu_works import Sizes, Work
from measuring import Case
from segcontext.gpu.boundary import boundary_matches
from segcontext.gpu.fusion import View, fuse
from segcontext.gpu.largest import confusion
from segcontext.metrics import confusion_matrix
from segcontext.metrics.boundary_matches import boundary_matches as by_trees

__all__ = ["boundaries", "counting", "fusion"]


def counting(sizes: Sizes) -> Iterable[Work]:
    """The confusion matrix from small logits."""
    for classes in (19, 171):
        logits = torch.randn(1, classes, sizes.height // 8 or 1, sizes.width // 8 or 1, device=sizes.device)
        # Smooth, as a network's are.
        logits = F.interpolate(logits, (sizes.height, sizes.width), mode="bicubic").to(sizes.dtype)
        target = torch.randint(0, classes, (1, *sizes.image), device=sizes.device, dtype=torch.uint8)

        def plain(logits: Tensor = logits, target: Tensor = target, classes: int = classes) -> Tensor:
            labels = F.interpolate(logits.float(), target.shape[1:], mode="bilinear", align_corners=True).argmax(1)
            return confusion_matrix(labels, target, classes)

        ours = partial(confusion, logits, target)

        def agreement(ours: Callable[[], tuple[Tensor, Tensor]] = ours, plain: Callable[[], Tensor] = plain) -> str:
            wrong = int((ours()[0] - plain()).abs().sum()) // 2
            if wrong > 1e-5 * sizes.image[0] * sizes.image[1]:
                raise ArithmeticError(f"{wrong} pixels are counted elsewhere.")
            return f"{wrong} pixels elsewhere"

        case = Case(
            *("Evaluation", f"upsample, argmax, confusion, {classes} classes, {sizes.image}"),
            *(ours, plain, "upsample, argmax, bincount", agreement),
        )
        goal = 20 if classes == 19 else None
        yield Work(case, 0, logits.numel() * logits.element_size() + target.numel(), goal, waits=True)


def boundaries(sizes: Sizes) -> Iterable[Work]:
    """Boundary counts of 19 classes at four slacks against k-d trees on the CPU."""
    slacks, classes = [3.0, 5.0, 9.0, 12.0], 19
    coarse = torch.randint(0, classes, (2, 1, sizes.image[0] // 16, sizes.image[1] // 16)).float()
    labels = F.interpolate(coarse, sizes.image, mode="nearest").int()[:, 0]
    # The second is the first with its boundaries moved by a few pixels, as a prediction's are.
    labels[1] = labels[0].roll((4, 3), (0, 1))
    prediction, truth = labels.to(sizes.device)
    maps = [each.numpy() for each in labels]
    ours = partial(boundary_matches, prediction, truth, classes, slacks)

    def agreement() -> str:
        for mine, theirs in zip(ours(), by_trees(*maps, classes, slacks), strict=True):
            if not np.array_equal(mine.cpu().numpy(), theirs):
                raise ArithmeticError("The counts differ.")
        return "identical counts"

    case = Case(
        *("Evaluation", f"boundary F, {classes} classes × {len(slacks)} slacks, {sizes.image}"),
        *(ours, partial(by_trees, *maps, classes, slacks), "k-d trees on the CPU", agreement),
    )
    yield Work(case, 0, 2 * labels.numel() * labels.element_size(), 100, waits=True)


def fusion(sizes: Sizes) -> Iterable[Work]:
    """Six scales, each with its mirror image, against resizing and adding up."""
    views, classes = [], 19
    for scale in (0.5, 0.75, 1, 1.25, 1.5, 1.75):
        size = (int(sizes.image[0] * scale), int(sizes.image[1] * scale))
        small = torch.randn(2, classes, max(1, size[0] // 64), max(1, size[1] // 64), device=sizes.device)
        logits = F.interpolate(small, (size[0] // 8, size[1] // 8), mode="bicubic").to(sizes.dtype)
        views += [View(each[None], size, size, mirrored) for each, mirrored in zip(logits, (False, True), strict=True)]

    def plain() -> Tensor:
        total: Tensor | float = 0.0
        for logits, padded, _, mirrored in views:
            values = F.interpolate(logits.float(), padded, mode="bilinear", align_corners=True)
            values = F.interpolate(values, sizes.image, mode="bilinear", align_corners=False).softmax(1)
            total = total + (values.flip(-1) if mirrored else values)
        return total.argmax(1)

    ours = partial(fuse, views, sizes.image)

    def agreement() -> str:
        wrong = int((ours() != plain()).sum())
        if wrong > 1e-4 * sizes.image[0] * sizes.image[1]:
            raise ArithmeticError(f"{wrong} labels differ.")
        return f"{wrong} labels differ"

    moved = sum(view.logits.numel() * view.logits.element_size() for view in views)
    case = Case(
        *("Evaluation", f"fusion of {len(views)} views, {classes} classes, {sizes.image}"),
        *(ours, plain, "resize, softmax, add", agreement),
    )
    yield Work(case, 0, moved + 8 * sizes.image[0] * sizes.image[1])
