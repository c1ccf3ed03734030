"""How far a faster copy of a network is from the network itself, on labelled images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from segcontext.data.class_names import check_classes
from segcontext.data.dataset import Dataset
from segcontext.errors import DataError
from segcontext.evaluation.scoring import spread
from segcontext.inference import Protocol, evaluating, predict_labels
from segcontext.metrics import confusion_matrix, scores
from segcontext.speed import Precision, Speed, fast_network

__all__ = ["SpeedComparison", "compare_speed"]


class SpeedComparison(NamedTuple):
    """What a faster copy of a network gains and loses.

    Attributes:
        images: how many were asked about.
        precision: of the copy, ``"32"`` or ``"bf16"``.
        plain_miou: the network's own, from 0 to 1.
        fast_miou: the copy's.
        agreement: share of the pixels that both give the same label.
        worst_logit: largest difference between two logits, at the resolution of the features.
        largest_logit: the network's largest one by amount, to compare that with.
        plain_seconds: median time per image.
        fast_seconds: the same of the copy; what compiling took is not in it.
    """

    images: int
    precision: Precision
    plain_miou: float
    fast_miou: float
    agreement: float
    worst_logit: float
    largest_logit: float
    plain_seconds: float
    fast_seconds: float

    def __str__(self) -> str:
        points = 100 * (self.fast_miou - self.plain_miou)
        return (
            f"{self.images} images, network beside its faster copy ({self.precision}): mIoU "
            f"{100 * self.plain_miou:.2f} % and {100 * self.fast_miou:.2f} % ({points:+.2f} points), the same label "
            f"for {100 * self.agreement:.2f} % of the pixels, worst logit error {self.worst_logit:.3g} (logits up to "
            f"{self.largest_logit:.3g}), {1000 * self.plain_seconds:.0f} ms and {1000 * self.fast_seconds:.0f} ms an "
            f"image ({self.plain_seconds / self.fast_seconds:.1f} times as fast)"
        )


def compare_speed(
    model: nn.Module,
    dataset: Dataset,
    *,
    speed: Speed = "compiled",
    precision: Precision | None = None,
    protocol: Protocol | None = None,
    limit: int | None = None,
    console: Console | None = None,
) -> SpeedComparison:
    """Asks a network and a faster copy of it about the same images, in turn.

    Args:
        model: a `Segmenter`, or any module with `Output` and `num_classes`.
        dataset: images with labels.
        speed: ``"folded"`` or ``"compiled"``.
        precision: of the copy; `None` takes bfloat16 where the processor multiplies it.
        protocol: how both are asked; by default the whole image, once.
        limit: takes this many images only, spread evenly over the data set.
        console: is told of compilations; `None` tells nobody.

    Returns:
        Scores, differences and times.

    Raises:
        RecipeError: there is no such speed or precision.
        DataError: the data set has other classes than the model, or an image has no labels.
    """
    check_classes(model, dataset)
    protocol = protocol or Protocol.of(model)
    tell: Callable[[str], None] = (console or Console(quiet=True)).print
    fast = fast_network(model, speed=speed, precision=precision, tell=tell)
    chosen = spread(dataset, limit)
    classes = len(dataset.classes)
    matrices = torch.zeros(2, classes, classes, dtype=torch.int64)
    equal = pixels = 0
    worst = largest = 0.0
    seconds: tuple[list[float], list[float]] = ([], [])
    sizes: set[torch.Size] = set()
    with evaluating(model), torch.no_grad(), _noting(model) as plain_logits, _noting(fast) as fast_logits:
        for index in range(len(chosen)):
            sample = chosen[index]
            image = sample.image.as_subclass(Tensor)[None]
            if sample.mask is None:
                raise DataError(f"{sample.name} has no labels, without which there are no scores.")
            if image.shape not in sizes:
                # The second time that a size comes it is compiled.
                predict_labels(fast, image, protocol)
                predict_labels(fast, image, protocol)
                fast_logits.clear()
                sizes.add(image.shape)
            found = []
            for network, times in zip((model, fast), seconds, strict=True):
                started = time.perf_counter()
                # To the CPU, so that a GPU has finished.
                found.append(predict_labels(network, image, protocol)[0].cpu())
                times.append(time.perf_counter() - started)
            for matrix, labels in zip(matrices, found, strict=True):
                matrix += confusion_matrix(labels, sample.mask.cpu(), classes).cpu()
            equal += int((found[0] == found[1]).sum())
            pixels += found[0].numel()
            for plain, other in zip(plain_logits, fast_logits, strict=True):
                worst = max(worst, (plain - other).abs().max().item())
                largest = max(largest, plain.abs().max().item())
            plain_logits.clear()
            fast_logits.clear()
    return SpeedComparison(
        images=len(chosen),
        precision=fast.precision,
        plain_miou=scores(matrices[0]).miou,
        fast_miou=scores(matrices[1]).miou,
        agreement=equal / pixels,
        worst_logit=worst,
        largest_logit=largest,
        plain_seconds=statistics.median(seconds[0]),
        fast_seconds=statistics.median(seconds[1]),
    )


@contextmanager
def _noting(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the logits of every pass of a network."""
    found: list[Tensor] = []

    def note(module: nn.Module, given: Any, output: Any) -> None:
        found.append(output.features_logits.detach().float())

    handle = network.register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()
