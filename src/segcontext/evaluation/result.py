"""What an evaluation found: the tables, the confusion matrix, and pictures of single images."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text
from torch import Tensor

from segcontext.data.dataset import VOID
from segcontext.errors import OutputExists
from segcontext.evaluation.confusion import draw_confusion
from segcontext.evaluation.words import or_none, percent
from segcontext.files import atomic_path
from segcontext.inference import Protocol
from segcontext.metrics import Scores
from segcontext.pictures import VOID_COLOUR, Colour, Pixels, colourise, error_map, grid, legend, save_picture

__all__ = ["Evaluation", "SamplePicture"]

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
        return f"{self.name}   mIoU {percent(self.miou)}, {percent(self.pixel_accuracy)} of the pixels right"

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
            "miou": or_none(values.miou),
            "pixel_accuracy": or_none(values.pixel_accuracy),
            "mean_accuracy": or_none(values.mean_accuracy),
            "frequency_weighted_iou": or_none(values.frequency_weighted_iou),
            "per_class": [{key: or_none(value) for key, value in row.items()} for row in self._rows()],
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
        cells = [["" if or_none(value) is None else value for value in row.values()] for row in rows]
        _write_csv(folder / "per_class.csv", [list(rows[0]), *cells])
        counts = self.matrix.tolist()
        named = [[name, *row] for name, row in zip(self.classes, counts, strict=True)]
        _write_csv(folder / "confusion.csv", [["truth \\ prediction", *self.classes], *named])
        title = f"Share of each true class, in percent (mIoU {percent(self.scores.miou)})"
        draw_confusion(folder / "confusion.png", self.matrix, self.classes, title=title)
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


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    _write_text(path, buffer.getvalue())
