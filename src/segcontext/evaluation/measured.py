"""What an evaluation measured besides the scores of the confusion matrix, as tables and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text
from torch import Tensor

from segcontext.evaluation.measures import Measures
from segcontext.evaluation.reliability import draw_reliability
from segcontext.evaluation.words import percent, without_nan
from segcontext.evaluation.writing import write_csv
from segcontext.metrics import (
    BandScores,
    Reliability,
    Scores,
    SizeScores,
    band_scores,
    mean,
    reliability,
    size_scores,
)
from segcontext.metrics.boundary_iou import iou_of_counts
from segcontext.pictures import Palette

__all__ = ["Measured"]


class Columns(NamedTuple):
    """A table of shares per class.

    Attributes:
        file: name of its file, without suffix.
        title: what stands above it.
        columns: float64 shares, (classes,), by their headings.
    """

    file: str
    title: str
    columns: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured besides the scores of the confusion matrix; `None` for what was not asked for.

    Attributes:
        measures: what was asked for.
        boundary_f: boundary F-score, float64, (slacks, classes).
        boundary_iou: Boundary IoU, float64, (classes,).
        sizes: scores by the size of the objects.
        band: scores inside and outside of the band along true boundaries.
        calibration: expected calibration error and reliability diagram.
    """

    measures: Measures = field(default_factory=Measures)
    boundary_f: Tensor | None = None
    boundary_iou: Tensor | None = None
    sizes: SizeScores | None = None
    band: BandScores | None = None
    calibration: Reliability | None = None

    @classmethod
    def of(cls, measures: Measures, totals: Mapping[str, Tensor]) -> Measured:
        """Reads the scores off counts.

        Args:
            measures: what was asked for.
            totals: the counts of `Measures.count`, over all images.
        """
        return cls(
            measures,
            boundary_f=mean(totals["boundary"]) if "boundary" in totals else None,
            boundary_iou=iou_of_counts(totals["boundary_iou"]) if "boundary_iou" in totals else None,
            sizes=size_scores(totals["sizes"]) if "sizes" in totals else None,
            band=band_scores(totals["band"].cpu()) if "band" in totals else None,
            calibration=reliability(totals["calibration"]) if "calibration" in totals else None,
        )

    def tables(self, classes: Sequence[str], palette: Palette) -> Iterator[Table]:
        """One table per measure, for the terminal.

        Args:
            classes: class names.
            palette: one RGB colour per class.
        """
        for _, title, columns in self._groups():
            table = Table(title=title, show_footer=True)
            table.add_column("")
            table.add_column("class", footer="mean", min_width=min(20, max(map(len, classes))))
            for heading, values in columns.items():
                table.add_column(heading, footer=percent(values.nanmean().item()), justify="right")
            for index, (name, colour) in enumerate(zip(classes, palette, strict=True)):
                shares = (percent(values[index].item()) for values in columns.values())
                table.add_row(Text("██", style="rgb({},{},{})".format(*colour)), name, *shares)
            yield table
        if self.calibration is not None:
            yield self._calibration_table(self.calibration)

    def as_dict(self) -> dict[str, Any]:
        """Everything that was measured, ready for JSON; scores that do not exist are `None`."""
        asked = self.measures
        found: dict[str, Any] = {}
        if self.boundary_f is not None:
            found["boundary_f"] = {
                "protocol": asked.boundary_protocol,
                "slacks": list(asked.boundary),
                "mean": self.boundary_f.nanmean(1).tolist(),
                "per_class": self.boundary_f.tolist(),
            }
        if self.boundary_iou is not None:
            found["boundary_iou"] = {
                "width": asked.boundary_iou,
                "mean": self.boundary_iou.nanmean().item(),
                "per_class": self.boundary_iou.tolist(),
            }
        if self.sizes is not None:
            values = {name: value.tolist() for name, value in self.sizes._asdict().items()}
            found["sizes"] = {"names": list(self.size_names()), "areas": list(asked.sizes), **values}
        if self.band is not None:
            parts = {name: _plain(part) for name, part in self.band._asdict().items()}
            found["band"] = {"width": asked.band, **parts}
        if self.calibration is not None:
            found["calibration"] = _plain(self.calibration)
        answer: dict[str, Any] = without_nan(found)
        return answer

    def save(self, folder: Path, classes: Sequence[str]) -> None:
        """Writes one CSV file per measure, and ``reliability.png``; files of measures not taken are removed.

        Args:
            folder: the folder to write to.
            classes: class names.
        """
        # Tables of an earlier evaluation would pass for this one's.
        for name in ("boundary.csv", "sizes.csv", "band.csv", "calibration.csv", "reliability.png"):
            (folder / name).unlink(missing_ok=True)
        for file, _, columns in self._groups():
            rows = zip(classes, *(values.tolist() for values in columns.values()), strict=True)
            write_csv(folder / f"{file}.csv", [["class", *columns], *rows])
        if self.calibration is not None:
            found = self.calibration
            edges = found.edges.tolist()
            values = (part.tolist() for part in (found.pixels, found.bin_accuracy, found.bin_confidence))
            heading = ["from", "to", "pixels", "accuracy", "confidence"]
            write_csv(folder / "calibration.csv", [heading, *zip(edges[:-1], edges[1:], *values, strict=True)])
            draw_reliability(folder / "reliability.png", found)

    def size_names(self) -> tuple[str, ...]:
        """What the sizes are called, from the smallest to the largest."""
        areas = self.measures.sizes
        if len(areas) == 2:
            return ("small", "medium", "large")
        return (f"below {areas[0]} px", *(f"from {area} px" for area in areas)) if areas else ()

    def _groups(self) -> Iterator[Columns]:
        asked = self.measures
        edges: dict[str, Tensor] = {}
        if self.boundary_f is not None:
            edges |= {f"F {_width(slack)}": row for slack, row in zip(asked.boundary, self.boundary_f, strict=True)}
        if self.boundary_iou is not None:
            edges[f"IoU {_width(asked.boundary_iou)}"] = self.boundary_iou
        if edges:
            title = f"Boundaries ({asked.boundary_protocol} protocol)" if self.boundary_f is not None else "Boundaries"
            yield Columns("boundary", title, edges)
        if self.sizes is not None:
            names = self.size_names()
            columns = {f"IoU {name}": row for name, row in zip(names, self.sizes.iou, strict=True)}
            columns |= {f"accuracy {name}": row for name, row in zip(names, self.sizes.accuracy, strict=True)}
            counted = zip(names, self.sizes.objects.sum(1).tolist(), strict=True)
            objects = ", ".join(f"{number:,} {name}" for name, number in counted)
            yield Columns("sizes", f"Objects by size: {objects}", columns)
        if self.band is not None:
            inside, outside = self.band
            shares = inside.pixels.double() / (inside.pixels + outside.pixels).double()
            columns = {"IoU inside": inside.iou, "IoU outside": outside.iou, "pixels inside": shares}
            yield Columns("band", f"Inside and outside {_width(asked.band)} from true boundaries", columns)

    def _calibration_table(self, found: Reliability) -> Table:
        means = f"mean confidence {percent(found.confidence)}, {percent(found.accuracy)} of the pixels right"
        table = Table(title=f"Expected calibration error {percent(found.ece)}", caption=means)
        for heading in ("confidence from", "to", "pixels", "mean confidence", "accuracy"):
            table.add_column(heading, justify="right")
        for index, count in enumerate(found.pixels.tolist()):
            if count:
                values = (found.edges[index], found.edges[index + 1])
                shares = (found.bin_confidence[index], found.bin_accuracy[index])
                cells = [percent(value.item()) for value in (*values, *shares)]
                table.add_row(*cells[:2], f"{count:,}", *cells[2:])
        return table


def _width(width: float | None) -> str:
    assert width is not None, "what was measured has a width"
    return f"{width:g} px" if width >= 1 else f"{100 * width:g} %"


def _plain(values: Scores | Reliability) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values._asdict().items()}
