"""What an evaluation found: the tables, the confusion matrix, and pictures of single images."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import Tensor

from segcontext.errors import OutputExists
from segcontext.evaluation.conditions import Conditions
from segcontext.evaluation.confusion import draw_confusion
from segcontext.evaluation.measured import Measured
from segcontext.evaluation.provenance import provenance
from segcontext.evaluation.samples import SamplePicture, picture_name, save_samples
from segcontext.evaluation.tally import ImageScore
from segcontext.evaluation.words import or_none, percent, without_nan
from segcontext.evaluation.writing import write_csv, write_text
from segcontext.inference import Protocol
from segcontext.metrics import Scores
from segcontext.pictures import Colour

__all__ = ["Evaluation"]

FORMAT = 1
#: How many of the worst images are named in ``scores.json`` and on the terminal; ``images.csv`` has all.
WORST = 5


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
        measured: what was asked for besides.
        ranking: the scores of every image, from the worst to the best; those without a score come last.
        conditions: weights, stride, iterations, precision and the data's folder.
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
    measured: Measured = field(default_factory=Measured)
    ranking: tuple[ImageScore, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)

    def summary(self) -> str:
        """The four scores and their conditions, in one line."""
        rate = self.images / self.seconds if self.seconds else math.inf
        return (
            f"mIoU {percent(self.scores.miou)}, pixel accuracy {percent(self.scores.pixel_accuracy)}, "
            f"mean accuracy {percent(self.scores.mean_accuracy)}, "
            f"frequency-weighted IoU {percent(self.scores.frequency_weighted_iou)} "
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
            table.add_column(heading, footer=percent(mean), justify="right")
        table.add_column("pixels", footer=f"{percent(self.scores.pixel_accuracy)} right", justify="right")
        for row, colour in zip(self._rows(), self.palette, strict=True):
            shares = (percent(row[key]) for key in ("iou", "accuracy", "precision", "share"))
            table.add_row(Text("██", style="rgb({},{},{})".format(*colour)), str(row["class"]), *shares)
        return table

    def tables(self) -> list[Table]:
        """All tables for the terminal: the scores, what was measured besides, and the worst images."""
        worst = Table(title="Worst images")
        for heading in ("", "image", "mIoU", "pixels right"):
            worst.add_column(heading, justify="left" if heading == "image" else "right", overflow="fold")
        for number, image in enumerate(self.ranking[:WORST], start=1):
            worst.add_row(str(number), Text(image.name), percent(image.miou), percent(image.pixel_accuracy))
        return [self.table(), *self.measured.tables(self.classes, self.palette), *([worst] if self.ranking else [])]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the matrix and the pictures, ready for JSON; scores that do not exist are `None`."""
        values = self.scores
        return {
            "format": FORMAT,
            "segcontext": provenance(),
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            **self.conditions._asdict(),
            "seconds": round(self.seconds, 3),
            "protocol": asdict(self.protocol),
            "miou": or_none(values.miou),
            "pixel_accuracy": or_none(values.pixel_accuracy),
            "mean_accuracy": or_none(values.mean_accuracy),
            "frequency_weighted_iou": or_none(values.frequency_weighted_iou),
            "per_class": [{key: or_none(value) for key, value in row.items()} for row in self._rows()],
            **self.measured.as_dict(),
            "worst_images": without_nan(
                [
                    {"name": image.name, "miou": image.miou, "pixel_accuracy": image.pixel_accuracy}
                    for image in self.ranking[:WORST]
                ]
            ),
        }

    def save(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes ``scores.json``, tables (``.csv``), pictures of them (``.png``), and ``pictures/`` of single images.

        There are always ``per_class.csv``, ``confusion.csv``, ``confusion.png`` and ``images.csv``, which lists all
        images from the worst to the best; ``boundary.csv``, ``sizes.csv``, ``band.csv``, ``calibration.csv`` and
        ``reliability.png`` where that was measured.

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
        write_text(folder / "scores.json", json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n")
        rows = self._rows()
        write_csv(folder / "per_class.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
        counts = self.matrix.tolist()
        named = [[name, *row] for name, row in zip(self.classes, counts, strict=True)]
        write_csv(folder / "confusion.csv", [["truth \\ prediction", *self.classes], *named])
        title = f"Share of each true class, in percent (mIoU {percent(self.scores.miou)})"
        draw_confusion(folder / "confusion.png", self.matrix, self.classes, title=title)
        self.measured.save(folder, self.classes)
        shown = {sample.name: picture_name(number, sample) for number, sample in enumerate(self.samples, start=1)}
        images = [[image.name, image.miou, image.pixel_accuracy, shown.get(image.name)] for image in self.ranking]
        write_csv(folder / "images.csv", [["image", "miou", "pixel_accuracy", "picture"], *images])
        save_samples(folder / "pictures", self.samples, self.classes, self.palette)

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
