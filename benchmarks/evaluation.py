"""The evaluation path beside what is usual: boundary F, upsampling to labels and counts, fusion of scales and flips.

    python benchmarks/evaluation.py [--quick]

Needs the `bench` extra (scikit-image and OpenCV). Logits and labels are drawn, smooth with some noise. All of it has
the size of a Cityscapes image, 1024 × 2048, and features at stride 8.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from measuring import Case, alone
from segcontext.inference import Protocol
from segcontext.inference.fusing import fused_labels
from segcontext.inference.views import Answer
from segcontext.metrics import boundary_matches, boundary_tally, confusion_matrix
from segcontext.metrics.maps import as_maps
from segcontext.ops import resized_argmax
from segcontext.types import Output

TOPIC = "Evaluation"
SIZE = (1024, 2048)
FEATURES = (128, 256)
SLACKS = (3, 5, 9, 12)
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def smooth(seed: int, classes: int, size: tuple[int, int], *, noise: float = 0.1) -> Tensor:
    """Logits, (1, classes, h, w), in blobs of a quarter of the image's height and more."""
    draw = torch.Generator().manual_seed(seed)
    blobs = F.interpolate(3 * torch.randn(1, classes, 8, 16, generator=draw), size=size, mode="bicubic")
    return (blobs + noise * torch.randn(1, classes, *size, generator=draw)).contiguous()


def maps(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction that departs from the truth here and there, and the truth with 2 % void, uint8."""
    logits = smooth(0, classes, FEATURES)
    other = logits + 0.6 * F.interpolate(smooth(1, classes, (24, 48)), size=FEATURES, mode="bicubic") / 3
    found = [resized_argmax(each, SIZE, align_corners=False)[0].numpy().copy() for each in (other, logits)]
    void = torch.rand(32, 64, generator=torch.Generator().manual_seed(2)) < 0.02
    found[1][void.repeat_interleave(32, 0).repeat_interleave(32, 1).numpy()] = 255
    return found[0], found[1]


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """A mask's pixels that differ from their right, lower or lower-right neighbour, uint8."""
    found = np.zeros(mask.shape, dtype=bool)
    found[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    found[:-1] |= mask[1:] != mask[:-1]
    found[:-1, :-1] |= mask[1:, 1:] != mask[:-1, :-1]
    return found.view(np.uint8)


def dilated_counts(prediction: np.ndarray, truth: np.ndarray, classes: int, library: str) -> list[np.ndarray]:
    """Boundary pixels and their counterparts by dilating the boundaries of each class with each disk."""
    import cv2
    from skimage.morphology import dilation, disk

    def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
        return cv2.dilate(mask, disk(radius)) if library == "opencv" else dilation(mask, disk(radius))

    counts = np.zeros((2, 1 + len(SLACKS), classes), dtype=np.int64)
    for index in range(classes):
        masks = [boundary_pixels(labels == index) for labels in (prediction, truth)]
        for side in (0, 1):
            counts[side, 0, index] = masks[side].sum()
            for place, radius in enumerate(SLACKS):
                counts[side, 1 + place, index] = (masks[side] & dilate(masks[1 - side], radius)).sum()
    return [counts[0, 0], counts[1, 0], counts[0, 1:], counts[1, 1:]]


def boundary_case(library: str, name: str, goal: float) -> Case:
    classes = 19
    prediction, truth = maps(classes)
    ours, theirs = (found[0] for found in as_maps(prediction, truth, classes, 255))

    def agreement() -> str:
        found = boundary_matches(ours, theirs, classes, SLACKS)
        wanted = dilated_counts(ours, theirs, classes, library)
        for mine, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(mine, other)
        return f"identical counts ({found.predicted.sum()} and {found.true.sum()} boundary pixels)"

    return Case(
        TOPIC,
        f"boundary F, {classes} classes × {len(SLACKS)} slacks, {SIZE[0]}×{SIZE[1]}",
        lambda: boundary_tally(prediction, truth, classes, SLACKS),
        lambda: dilated_counts(ours, theirs, classes, library),
        name,
        agreement,
        goal=goal,
        rounds=9,
        baseline_rounds=1 if library == "skimage" else 3,
        memory=library != "skimage",
    )


def labels_case(classes: int, dtype: torch.dtype) -> Case:
    logits = smooth(3, classes, FEATURES).to(dtype)
    _, truth = maps(min(classes, 19))
    target = torch.from_numpy(truth)

    def ours() -> Tensor:
        return confusion_matrix(resized_argmax(logits, SIZE, align_corners=False)[0], target, classes)

    def plain_labels() -> Tensor:
        return F.interpolate(logits.float(), size=SIZE, mode="bilinear", align_corners=False).argmax(1)[0]

    def baseline() -> Tensor:
        labels, true = plain_labels(), target.long()
        valid = true != 255
        counts = torch.bincount(true[valid] * classes + labels[valid], minlength=classes**2)
        return counts.view(classes, classes)

    def agreement() -> str:
        assert torch.equal(resized_argmax(logits, SIZE, align_corners=False)[0].long(), plain_labels())
        assert torch.equal(ours(), baseline())
        return "identical labels and counts"

    name = str(dtype).removeprefix("torch.")
    what = f"{FEATURES[0]}×{FEATURES[1]} → {SIZE[0]}×{SIZE[1]}, argmax and confusion matrix, {classes} classes, {name}"
    return Case(
        TOPIC,
        what,
        ours,
        baseline,
        "interpolate → argmax → bincount",
        agreement,
        goal=100,
        most_memory=4 * 2**20,
        rounds=15,
        baseline_rounds=3,
    )


def confusion_case() -> Case:
    prediction, truth = (torch.from_numpy(labels) for labels in maps(19))

    def baseline() -> Tensor:
        valid = truth != 255
        return torch.bincount(truth[valid].long() * 19 + prediction[valid].long(), minlength=361).view(19, 19)

    def agreement() -> str:
        assert torch.equal(confusion_matrix(prediction, truth, 19), baseline())
        return "identical counts"

    what = f"confusion matrix with void, 19 classes, {SIZE[0]}×{SIZE[1]}"
    return Case(TOPIC, what, lambda: confusion_matrix(prediction, truth, 19), baseline, "masked bincount", agreement)


def fusion_case(average: str) -> Case:
    protocol = Protocol(scales=SCALES, flip=True, average=average)
    views = []
    for scale in SCALES:
        size = (round(SIZE[0] * scale), round(SIZE[1] * scale))
        features = (-(-size[0] // 8), -(-size[1] // 8))
        for flipped in (False, True):
            # What the network says at each scale and of the mirror image is nearly the same.
            logits = smooth(4, 19, features) + 0.3 * smooth(5 + len(views), 19, features, noise=0)
            logits = logits.flip(-1).contiguous() if flipped else logits
            views.append(Answer(Output(logits, size, True), size, flipped))

    def baseline() -> Tensor:
        total: Tensor | float = 0.0
        for view in views:
            answer = view.logits()
            if view.size != SIZE:
                answer = F.interpolate(answer, size=SIZE, mode="bilinear", align_corners=False)
            answer = answer.softmax(1) if average == "probabilities" else answer
            total = total + (answer.flip(-1) if view.flipped else answer)
        return total

    def agreement() -> str:
        labels, total = fused_labels(views, SIZE, protocol).long(), baseline()
        differ = int((labels != total.argmax(1)).sum())
        gap = float((total.amax(1) - total.gather(1, labels[:, None])[:, 0]).max())
        assert gap < 1e-5 * len(views), f"a class was named that is {gap} below the largest"
        return f"{differ} of {labels.numel()} labels differ, by at most {gap:.1g} of the sum"

    what = f"{len(SCALES)} scales with flip, 19 classes, {SIZE[0]}×{SIZE[1]}, mean of {average}"
    return Case(
        TOPIC,
        what,
        lambda: fused_labels(views, SIZE, protocol),
        lambda: baseline().argmax(1),
        "interpolate, softmax, un-flip, sum, argmax",
        agreement,
        goal=15,
        most_memory=4 * 2**20,
        rounds=5,
        baseline_rounds=2,
    )


def cases(quick: bool) -> Iterable[Case]:
    """All of them, or those that take seconds."""
    yield boundary_case("opencv", "dilation of each class (OpenCV)", 50)
    yield labels_case(19, torch.float32)
    yield labels_case(171, torch.float32)
    yield confusion_case()
    yield fusion_case("probabilities")
    if not quick:
        yield boundary_case("skimage", "dilation of each class (scikit-image)", 3000)
        yield labels_case(19, torch.bfloat16)
        yield labels_case(171, torch.bfloat16)
        yield fusion_case("logits")


def main() -> None:
    alone(__doc__, cases)


if __name__ == "__main__":
    main()
