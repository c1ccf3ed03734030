"""Scores a network on a data set, over all ranks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from segcontext.data.class_names import check_classes
from segcontext.data.dataset import Dataset
from segcontext.errors import RecipeError
from segcontext.evaluation.conditions import Conditions
from segcontext.evaluation.measured import Measured
from segcontext.evaluation.measures import Measures
from segcontext.evaluation.result import Evaluation
from segcontext.evaluation.samples import SamplePicture
from segcontext.evaluation.tally import ImageScore, Tally, image_matrix
from segcontext.evaluation.words import percent
from segcontext.inference import Protocol, autocast, compact_labels, device_of, evaluating, predict_probabilities
from segcontext.inference.memory import prediction_memory
from segcontext.metrics import RankSlice, confidence, entropy, scores
from segcontext.pictures import default_palette
from segcontext.speed import Precision, Speed, check_speed, fast_network
from segcontext.types import Sample

__all__ = ["evaluate", "spread"]

_logger = logging.getLogger(__name__)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    protocol: Protocol | None = None,
    batch: int = 1,
    workers: int = 0,
    device: str | torch.device | None = None,
    limit: int | None = None,
    progress: bool = True,
    console: Console | None = None,
    pictures: int = 8,
    worst: int = 0,
    precision: Precision | None = None,
    speed: Speed = "plain",
    measures: Measures | None = None,
    weights: str | Path | None = None,
) -> Evaluation:
    """Scores a network on a data set, at the images' own sizes.

    Where `torch.distributed` is initialised every rank takes its share of the images, each image exactly once, and
    all ranks return the same scores. The network is in evaluation mode meanwhile, and afterwards as it was.

    Args:
        model: a `Segmenter`, or any module with `Output`, `num_classes` and, where it has them, `classes`.
        dataset: images with labels.
        protocol: how the network is asked; by default the whole image, once.
        batch: images per step; only images of one size share a step, so nothing is padded.
        workers: processes that read images; 0 reads in this one.
        device: where the model is moved; by default it stays where it is.
        limit: evaluates this many images only, spread evenly over the data set.
        progress: whether a progress bar is shown (on rank 0).
        console: where it is shown; by default on standard error.
        pictures: how many single images are kept to look at, from the worst to the best, denser among the worst;
            they are predicted a second time, so that the others need not be held in memory.
        worst: so many of the worst images are kept in any case.
        precision: ``"bf16"`` runs the network under bfloat16 autocast; the scores are float64 either way. `None` is
            ``"32"`` for the network as it is; a faster one takes bfloat16 where the processor multiplies it.
        speed: ``"plain"`` scores the network itself; ``"folded"`` and ``"compiled"`` a faster copy of it, see
            `segcontext.speed.fast_network`.
        measures: what is measured besides the scores of the confusion matrix: boundaries, sizes, calibration.
        weights: the file that the model was loaded from; it is named in ``scores.json`` and not read.

    Returns:
        The evaluation.

    Raises:
        DataError: the data set has other classes than the model, or an image has no labels.
        LabelError: labels hold a value that is neither a class nor void.
        RecipeError: `limit`, `batch`, `precision`, `speed` or a number of pictures is out of range.
        OutOfMemory: memory does not suffice; the message says what of the protocol to change.

    Note:
        Calibration needs probabilities. Where two classes are equally likely but for the rounding of the softmax,
        another of the two may then be named than without it.
    """
    protocol, measures = protocol or Protocol.of(model), measures or Measures()
    if batch < 1 or min(workers, pictures, worst) < 0 or (limit is not None and limit < 1):
        raise RecipeError(
            "evaluate needs batch and limit from 1 up, workers, pictures and worst from 0 up; "
            f"got batch={batch}, limit={limit}, workers={workers}, pictures={pictures}, worst={worst}."
        )
    check_speed(speed, precision)
    check_classes(model, dataset)
    if device is not None:
        model.to(device)
    place = device_of(model, torch.device("cpu"))
    rank, world = _rank_and_world()
    chosen = spread(dataset, limit)
    share = RankSlice(chosen, rank=rank, world=world)
    # Lists, because images of different sizes do not stack.
    loader = DataLoader(chosen, batch, sampler=share, num_workers=workers, collate_fn=list)
    classes = len(dataset.classes)
    tally = Tally(measures, classes, place)
    positions = iter(share)
    hidden = not progress or rank > 0
    console = console or Console(stderr=True)
    if speed != "plain":
        model = fast_network(model, speed=speed, precision=precision, tell=_logger.info if hidden else console.print)
        precision = model.precision
    start = time.perf_counter()
    with (
        prediction_memory(f"Evaluating on {dataset.name}", protocol, precision=precision, batch=batch),
        evaluating(model),
        torch.inference_mode(),
        autocast(model, precision),
        _bar(console, hidden=hidden) as bar,
    ):
        task = bar.add_task("", total=len(share), note="")
        for samples in loader:
            for sample, labels, probabilities in _predict(model, samples, protocol, measures):
                tally.add(sample, labels, probabilities, next(positions))
            bar.update(task, advance=len(samples), note=f"mIoU so far {percent(tally.scores.miou)}")
        tally.sum_over_ranks(world)
        seconds = time.perf_counter() - start
        kept: list[SamplePicture] = []
        for position in _positions(tally.images, pictures, worst) if rank == 0 else []:
            (sample, labels, probabilities), *_ = _predict(model, [chosen[position]], protocol, measures)
            kept.append(_picture(sample, labels, probabilities, classes))
    return Evaluation(
        scores=tally.scores,
        matrix=tally.matrix.cpu(),
        classes=tuple(dataset.classes),
        palette=tuple(dataset.palette) or default_palette(classes),
        protocol=protocol,
        dataset=dataset.name,
        split=dataset.split,
        images=len(chosen),
        seconds=seconds,
        samples=tuple(kept),
        measured=Measured.of(measures, tally.totals),
        ranking=tuple(tally.images),
        conditions=Conditions.of(model, dataset, weights=weights, precision=precision, speed=speed),
    )


def spread(dataset: Dataset, limit: int | None) -> Subset[Sample]:
    """A few samples that stand for the whole.

    Args:
        dataset: the samples.
        limit: how many, at most; `None` or 0 takes all.

    Returns:
        That many of them, in order and evenly spaced.
    """
    count = min(len(dataset), limit or len(dataset))
    return Subset(dataset, [index * len(dataset) // count for index in range(count)])


def _predict(
    model: nn.Module, samples: Sequence[Sample], protocol: Protocol, measures: Measures
) -> Iterable[tuple[Sample, Tensor, Tensor | None]]:
    """Each sample with its labels, (H, W), on the model's device, and its probabilities where they are needed."""
    # Images of one size go together.
    for _, group in groupby(samples, key=lambda sample: tuple(sample.image.shape)):
        members = list(group)
        images = torch.stack([sample.image.as_subclass(Tensor) for sample in members])
        if measures.calibration:
            answers = predict_probabilities(model, images, protocol)
            yield from zip(members, answers.argmax(1), answers, strict=True)
        else:
            yield from zip(members, compact_labels(model, images, protocol), [None] * len(members), strict=True)


def _picture(sample: Sample, labels: Tensor, probabilities: Tensor | None, classes: int) -> SamplePicture:
    assert sample.mask is not None, "it was scored before"
    values = scores(image_matrix(sample, labels, classes))
    return SamplePicture(
        name=sample.name,
        miou=values.miou,
        pixel_accuracy=values.pixel_accuracy,
        image=sample.image.permute(1, 2, 0).cpu().numpy(),
        truth=sample.mask.cpu().numpy(),
        prediction=labels.long().cpu().numpy(),
        confidence=None if probabilities is None else confidence(probabilities).cpu().numpy(),
        entropy=None if probabilities is None else entropy(probabilities, normalised=True).cpu().numpy(),
    )


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _positions(ranking: Sequence[ImageScore], pictures: int, worst: int) -> list[int]:
    """Positions of the images to keep, from the worst to the best."""
    scored = [image for image in ranking if not math.isnan(image.miou)]
    wanted = {image.position for image in scored[:worst]}
    wanted.update(_spread([(image.miou, image.position) for image in scored], pictures))
    return [image.position for image in scored if image.position in wanted]


def _spread(found: Sequence[tuple[float, int]], wanted: int) -> list[int]:
    """Positions of images from the worst to the best, by squares, so that bad ones are the majority."""
    ranked = [position for score, position in sorted(found) if not math.isnan(score)]
    if wanted < 2 or len(ranked) <= wanted:
        return ranked[:wanted]
    places = {round((step / (wanted - 1)) ** 2 * (len(ranked) - 1)) for step in range(wanted)}
    # In small data sets squares fall together.
    spare = (place for place in range(len(ranked)) if place not in places)
    places |= {next(spare) for _ in range(wanted - len(places))}
    return [ranked[place] for place in sorted(places)]


def _bar(console: Console, *, hidden: bool) -> Progress:
    return Progress(
        TextColumn("Evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=hidden,
    )
