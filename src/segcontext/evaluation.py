"""Scores of a network on a data set: the tables, the confusion matrix, and pictures of single images."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from segcontext.data.dataset import VOID, Dataset
from segcontext.errors import DataError, LabelError, OutputExists, RecipeError, ShapeError
from segcontext.inference import Protocol, evaluating, predict_probabilities
from segcontext.metrics import RankSlice, Scores, confusion_matrix, scores
from segcontext.pictures import (
    VOID_COLOUR,
    Colour,
    Pixels,
    atomic_path,
    colourise,
    default_palette,
    error_map,
    grid,
    legend,
    save_picture,
)
from segcontext.types import Sample

__all__ = ["Evaluation", "SamplePicture", "evaluate", "spread"]

FORMAT = 1
TITLES = ("Image", "Truth", "Prediction", "Errors")


class SamplePicture(NamedTuple):
    """One image of an evaluation with what was predicted for it.

    Attributes:
        name: the sample's name.
        miou: mIoU within this image.
        pixel_accuracy: share of its valid pixels that are right.
        image: uint8 RGB, (H, W, 3).
        truth: class indices, (H, W), 255 for void.
        prediction: class indices, (H, W).
    """

    name: str
    miou: float
    pixel_accuracy: float
    image: Pixels
    truth: npt.NDArray[np.integer]
    prediction: npt.NDArray[np.integer]

    @property
    def caption(self) -> str:
        """Name and scores, in one line."""
        return f"{self.name}   mIoU {_percent(self.miou)}, {_percent(self.pixel_accuracy)} of the pixels right"

    def views(self, palette: Sequence[Colour]) -> tuple[Pixels, ...]:
        """Image, truth, prediction and errors, side by side in this order."""
        return (
            self.image,
            colourise(self.truth, palette),
            colourise(self.prediction, palette),
            error_map(self.prediction, self.truth, image=self.image),
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        scores: mIoU and the others, shares from 0 to 1.
        matrix: int64 pixel counts, (classes, classes), rows truth, columns prediction.
        classes: class names.
        palette: one RGB colour per class.
        protocol: how the network was asked.
        dataset: name of the data set.
        split: its split.
        images: how many images were evaluated, over all ranks.
        seconds: wall time for them, reading included, pictures not.
        samples: single images from the worst to the best; empty on ranks other than 0.
    """

    scores: Scores
    matrix: Tensor
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    protocol: Protocol
    dataset: str
    split: str
    images: int
    seconds: float
    samples: tuple[SamplePicture, ...] = ()

    def summary(self) -> str:
        """The four scores and their conditions, in one line."""
        rate = self.images / self.seconds if self.seconds else math.inf
        return (
            f"mIoU {_percent(self.scores.miou)}, pixel accuracy {_percent(self.scores.pixel_accuracy)}, "
            f"mean accuracy {_percent(self.scores.mean_accuracy)}, "
            f"frequency-weighted IoU {_percent(self.scores.frequency_weighted_iou)} "
            f"({self.dataset} {self.split}, {self.images} images, {self.protocol}; "
            f"{self.seconds:.1f} s, {rate:.1f} images/s)"
        )

    def table(self) -> Table:
        """The scores per class and their means, for the terminal."""
        table = Table(title=f"{self.dataset} {self.split}: {self.images} images, {self.protocol}", show_footer=True)
        table.add_column("")
        table.add_column("class", footer="mean")
        means = (self.scores.miou, self.scores.mean_accuracy, self.scores.precision.nanmean().item())
        for heading, mean in zip(("IoU", "accuracy", "precision"), means, strict=True):
            table.add_column(heading, footer=_percent(mean), justify="right")
        table.add_column("pixels", footer=f"{_percent(self.scores.pixel_accuracy)} right", justify="right")
        for row, colour in zip(self._rows(), self.palette, strict=True):
            shares = (_percent(row[key]) for key in ("iou", "accuracy", "precision", "share"))
            table.add_row(Text("██", style="rgb({},{},{})".format(*colour)), str(row["class"]), *shares)
        return table

    def as_dict(self) -> dict[str, Any]:
        """Everything but the matrix and the pictures, ready for JSON; scores that do not exist are `None`."""
        values = self.scores
        return {
            "format": FORMAT,
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "protocol": asdict(self.protocol),
            "miou": _or_none(values.miou),
            "pixel_accuracy": _or_none(values.pixel_accuracy),
            "mean_accuracy": _or_none(values.mean_accuracy),
            "frequency_weighted_iou": _or_none(values.frequency_weighted_iou),
            "per_class": [{key: _or_none(value) for key, value in row.items()} for row in self._rows()],
        }

    def save(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes ``scores.json``, ``per_class.csv``, ``confusion.csv``, ``confusion.png`` and ``pictures/``.

        Args:
            out: the folder to write to.
            overwrite: whether `out` may hold something already; files of an earlier evaluation are then replaced.

        Raises:
            OutputExists: `out` is a file, or holds something and `overwrite` is False.
        """
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise OutputExists(f"{folder} is a file, but a folder is needed for the scores. Choose another name.")
        if folder.is_dir() and any(folder.iterdir()) and not overwrite:
            raise OutputExists(
                f"{folder} is not empty. Choose another folder, or allow overwriting (overwrite=True, --overwrite)."
            )
        _write_text(folder / "scores.json", json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n")
        rows = self._rows()
        cells = [["" if _or_none(value) is None else value for value in row.values()] for row in rows]
        _write_csv(folder / "per_class.csv", [list(rows[0]), *cells])
        counts = self.matrix.tolist()
        named = [[name, *row] for name, row in zip(self.classes, counts, strict=True)]
        _write_csv(folder / "confusion.csv", [["truth \\ prediction", *self.classes], *named])
        _draw_confusion(folder / "confusion.png", self)
        self._save_samples(folder / "pictures")

    def _rows(self) -> list[dict[str, Any]]:
        values = self.scores
        total = max(1, int(values.pixels.sum()))
        return [
            {
                "class": name,
                "iou": values.iou[index].item(),
                "accuracy": values.accuracy[index].item(),
                "precision": values.precision[index].item(),
                "pixels": int(values.pixels[index]),
                "share": int(values.pixels[index]) / total,
            }
            for index, name in enumerate(self.classes)
        ]

    def _save_samples(self, folder: Path) -> None:
        # Pictures of an earlier evaluation would pass for this one's.
        for old in folder.glob("*.png") if folder.is_dir() else ():
            if re.fullmatch(r"\d\d_.*\.png|overview\.png", old.name):
                old.unlink()
        for number, sample in enumerate(self.samples, start=1):
            sheet = grid([sample.views(self.palette)], titles=TITLES, captions=[sample.caption], cell=(640, 640))
            file = re.sub(r"[^\w.-]+", "_", sample.name)[:100]
            save_picture(folder / f"{number:02d}_{file}.png", self._with_legend(sheet, [sample]))
        if self.samples:
            sheet = grid(
                [sample.views(self.palette) for sample in self.samples],
                titles=TITLES,
                captions=[sample.caption for sample in self.samples],
                cell=(320, 320),
            )
            save_picture(folder / "overview.png", self._with_legend(sheet, self.samples))

    def _with_legend(self, sheet: Pixels, samples: Iterable[SamplePicture]) -> Pixels:
        shown: set[int] = set()
        for sample in samples:
            shown.update(np.unique(sample.truth).tolist(), np.unique(sample.prediction).tolist())
        entries = [(self.classes[index], self.palette[index]) for index in sorted(shown) if index < len(self.classes)]
        if VOID in shown and len(self.classes) <= VOID:
            entries.append(("void", VOID_COLOUR))
        names, colours = zip(*entries, strict=True)
        width = sheet.shape[1]
        key = legend(names, colours, width=width, size=max(12, min(20, width // 100)))
        return np.concatenate([sheet, key])


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
    precision: Literal["bf16"] | None = None,
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
        precision: ``"bf16"`` runs the network under bfloat16 autocast; the scores are float64 either way.

    Returns:
        The evaluation.

    Raises:
        DataError: the data set has other classes than the model, or an image has no labels.
        LabelError: labels hold a value that is neither a class nor void.
        RecipeError: `limit`, `batch` or `precision` is out of range.
    """
    protocol = protocol or Protocol()
    if batch < 1 or workers < 0 or pictures < 0 or (limit is not None and limit < 1) or precision not in (None, "bf16"):
        raise RecipeError(
            "evaluate needs batch and limit from 1 up, workers and pictures from 0 up, and precision None or 'bf16'; "
            f"got batch={batch}, limit={limit}, workers={workers}, pictures={pictures}, precision={precision!r}."
        )
    _check_classes(model, dataset)
    if device is not None:
        model.to(device)
    place = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    rank, world = _rank_and_world()
    chosen = spread(dataset, limit)
    share = RankSlice(chosen, rank=rank, world=world)
    # Lists, because images of different sizes do not stack.
    loader = DataLoader(chosen, batch, sampler=share, num_workers=workers, collate_fn=list)
    autocast = torch.autocast(place.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    classes = len(dataset.classes)
    matrix = torch.zeros(classes, classes, dtype=torch.int64, device=place)
    found: list[tuple[float, int]] = []
    positions = iter(share)
    start = time.perf_counter()
    with evaluating(model), torch.inference_mode(), autocast, _bar(console, hidden=not progress or rank > 0) as bar:
        task = bar.add_task("", total=len(share), note="")
        for samples in loader:
            for sample, labels in _predict(model, samples, protocol):
                counts = _count(sample, labels, classes)
                matrix += counts
                found.append((scores(counts).miou, next(positions)))
            bar.update(task, advance=len(samples), note=f"mIoU so far {_percent(scores(matrix).miou)}")
        found = _sum_over_ranks(matrix, found, world)
        seconds = time.perf_counter() - start
        kept: list[SamplePicture] = []
        for position in _spread(found, pictures) if rank == 0 else []:
            (sample, labels), *_ = _predict(model, [chosen[position]], protocol)
            kept.append(_picture(sample, labels, classes))
    return Evaluation(
        scores=scores(matrix),
        matrix=matrix.cpu(),
        classes=tuple(dataset.classes),
        palette=tuple(dataset.palette) or default_palette(classes),
        protocol=protocol,
        dataset=dataset.name,
        split=dataset.split,
        images=len(chosen),
        seconds=seconds,
        samples=tuple(kept),
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


def _check_classes(model: nn.Module, dataset: Dataset) -> None:
    """Refuses data of other classes than the model's."""
    trained = tuple(cast(tuple[str, ...], getattr(model, "classes", ())))
    count = int(cast(int, getattr(model, "num_classes", len(trained))))
    given = tuple(dataset.classes)
    same, other = plain_names(trained), plain_names(given)
    if count == len(given) and (not trained or same == other):
        return
    hint = "Evaluate on the data set that the model was trained for, or name its classes as the model does."
    if sorted(same) == sorted(other):
        hint = "The names are the same, but in another order: bring the data set's classes into the model's order."
    raise DataError(
        f"The model was trained on {count} classes ({listing(trained) or 'unnamed'}), but {dataset.name} has "
        f"{len(given)} ({listing(given)}). {hint}"
    )


def plain_names(names: Iterable[str]) -> list[str]:
    """Class names as they are compared: capitals, spaces and underscores make no difference."""
    return [re.sub(r"[\W_]+", "", name).casefold() for name in names]


def listing(names: Sequence[str]) -> str:
    """The first dozen class names, in one line."""
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def _predict(model: nn.Module, samples: Sequence[Sample], protocol: Protocol) -> Iterable[tuple[Sample, Tensor]]:
    """Each sample with its predicted labels, (H, W), on the model's device; images of one size go together."""
    for _, group in groupby(samples, key=lambda sample: tuple(sample.image.shape)):
        members = list(group)
        images = torch.stack([sample.image.as_subclass(Tensor) for sample in members])
        yield from zip(members, predict_probabilities(model, images, protocol).argmax(1), strict=True)


def _count(sample: Sample, labels: Tensor, classes: int) -> Tensor:
    if sample.mask is None:
        raise DataError(f"{sample.name} has no labels, without which there are no scores. Choose a split with masks.")
    try:
        return confusion_matrix(labels, sample.mask.to(labels.device), classes, ignore_index=VOID)
    except (LabelError, ShapeError) as error:
        raise type(error)(f"{sample.name}: {error}") from error


def _picture(sample: Sample, labels: Tensor, classes: int) -> SamplePicture:
    assert sample.mask is not None, "it was scored before"
    values = scores(_count(sample, labels, classes))
    return SamplePicture(
        name=sample.name,
        miou=values.miou,
        pixel_accuracy=values.pixel_accuracy,
        image=sample.image.permute(1, 2, 0).cpu().numpy(),
        truth=sample.mask.cpu().numpy(),
        prediction=labels.cpu().numpy(),
    )


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _sum_over_ranks(matrix: Tensor, found: list[tuple[float, int]], world: int) -> list[tuple[float, int]]:
    """Sums the matrix in place, and joins the images' scores."""
    if world == 1:
        return found
    torch.distributed.all_reduce(matrix)
    parts: list[list[tuple[float, int]]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(parts, found)
    return [entry for part in parts for entry in part]


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


def _bar(console: Console | None, *, hidden: bool) -> Progress:
    return Progress(
        TextColumn("Evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console or Console(stderr=True),
        disable=hidden,
    )


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    _write_text(path, buffer.getvalue())


def _draw_confusion(path: Path, evaluation: Evaluation) -> None:
    """Draws where each true class went, in shares of its pixels."""
    # Slow to import, and of no use before this point. Never pyplot, which keeps global state and may open a window.
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    names, count = evaluation.classes, len(evaluation.classes)
    true = evaluation.matrix.sum(1, keepdim=True)
    shares = np.ma.masked_invalid((evaluation.matrix.double() / true.double()).numpy())
    cell, letters = (0.52, 9.0) if count <= 25 else (0.26, 7.0) if count <= 70 else (0.14, 5.0)
    side = cell * count
    margin = letters / 72 * 0.62 * max(len(name) for name in names) + 0.4
    figure = Figure(figsize=(max(side, 2.5) + margin + 1.1, max(side, 2.5) + margin + 0.7), layout="constrained")
    axes = figure.add_subplot()
    # The root brings out the small confusions, which are most of them.
    colours = colormaps["Blues"].with_extremes(bad="0.93")
    picture = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1))
    axes.set_xticks(range(count), names, rotation=90, fontsize=letters)
    axes.set_yticks(range(count), names, fontsize=letters)
    large = min(22.0, max(10.0, side))
    axes.set_xlabel("prediction", fontsize=large)
    axes.set_ylabel("truth", fontsize=large)
    axes.set_title(f"Share of each true class, in percent (mIoU {_percent(evaluation.scores.miou)})", fontsize=large)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2 if count <= 25 else 0.4)
    axes.tick_params(which="minor", length=0)
    if count <= 25:
        for (row, column), share in np.ndenumerate(shares.filled(0)):
            if share >= 0.005:
                ink = "white" if share > 0.45 else "0.2"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(
        picture, ax=axes, shrink=0.85, aspect=max(25, side * 4), pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1]
    )
    bar.ax.set_yticklabels(["0", "5", "20", "50", "100"], fontsize=0.9 * large)
    bar.outline.set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
