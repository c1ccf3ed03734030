"""Single images of an evaluation, as sheets to look at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segcontext.data.dataset import VOID
from segcontext.evaluation.words import percent
from segcontext.pictures import VOID_COLOUR, Colour, Pixels, colourise, error_map, grid, legend, save_picture

__all__ = ["SamplePicture", "picture_name", "save_samples"]

TITLES = ("Image", "Truth", "Prediction", "Errors", "Confidence", "Entropy")


class SamplePicture(NamedTuple):
    """One image of an evaluation with what was predicted for it.

    Attributes:
        name: the sample's name.
        miou: mIoU within this image.
        pixel_accuracy: share of its valid pixels that are right.
        image: uint8 RGB, (H, W, 3).
        truth: class indices, (H, W), 255 for void.
        prediction: class indices, (H, W).
        confidence: probability of the likeliest class, float32, (H, W), where calibration was measured.
        entropy: of the classes' distribution, as a share of the largest there is, float32, (H, W), likewise.
    """

    name: str
    miou: float
    pixel_accuracy: float
    image: Pixels
    truth: npt.NDArray[np.integer]
    prediction: npt.NDArray[np.integer]
    confidence: npt.NDArray[np.float32] | None = None
    entropy: npt.NDArray[np.float32] | None = None

    @property
    def caption(self) -> str:
        """Name and scores, in one line."""
        return f"{self.name}   mIoU {percent(self.miou)}, {percent(self.pixel_accuracy)} of the pixels right"

    def views(self, palette: Sequence[Colour]) -> tuple[Pixels, ...]:
        """Image, truth, prediction and errors, side by side in this order; then confidence and entropy, if known."""
        known = [
            _shaded(values, colours)
            for values, colours in ((self.confidence, "viridis"), (self.entropy, "magma"))
            if values is not None
        ]
        return (
            self.image,
            colourise(self.truth, palette),
            colourise(self.prediction, palette),
            error_map(self.prediction, self.truth, image=self.image),
            *known,
        )


def picture_name(number: int, sample: SamplePicture) -> str:
    """The file of a sample's sheet; `number` is its rank among the samples that are kept, from 1."""
    plain = re.sub(r"[^\w.-]+", "_", sample.name)[:100]
    return f"{number:02d}_{plain}.png"


def save_samples(
    folder: Path, samples: Sequence[SamplePicture], classes: Sequence[str], palette: Sequence[Colour]
) -> None:
    """Writes a sheet per sample, and ``overview.png`` with all of them; sheets of an earlier evaluation are removed.

    Args:
        folder: the folder to write to.
        samples: from the worst to the best.
        classes: class names.
        palette: one RGB colour per class.
    """
    # Pictures of an earlier evaluation would pass for this one's.
    for old in folder.glob("*.png") if folder.is_dir() else ():
        if re.fullmatch(r"\d\d+_.*\.png|overview\.png", old.name):
            old.unlink()
    sheets = [(picture_name(number, sample), [sample], 640) for number, sample in enumerate(samples, start=1)]
    if samples:
        sheets.append(("overview.png", list(samples), 320))
    for name, shown, side in sheets:
        views = [sample.views(palette) for sample in shown]
        captions = [sample.caption for sample in shown]
        sheet = grid(views, titles=TITLES[: len(views[0])], captions=captions, cell=(side, side))
        save_picture(folder / name, _with_legend(sheet, shown, classes, palette))


def _with_legend(
    sheet: Pixels, samples: Iterable[SamplePicture], classes: Sequence[str], palette: Sequence[Colour]
) -> Pixels:
    shown: set[int] = set()
    for sample in samples:
        shown.update(np.unique(sample.truth).tolist(), np.unique(sample.prediction).tolist())
    entries = [(classes[index], palette[index]) for index in sorted(shown) if index < len(classes)]
    if VOID in shown and len(classes) <= VOID:
        entries.append(("void", VOID_COLOUR))
    names, colours = zip(*entries, strict=True)
    width = sheet.shape[1]
    key = legend(names, colours, width=width, size=max(12, min(20, width // 100)))
    return np.concatenate([sheet, key])


def _shaded(values: npt.NDArray[np.float32], colours: str) -> Pixels:
    """Shares in colours: dark for 0, bright for 1."""
    # Slow to import, and only needed where probabilities were asked for.
    from matplotlib import colormaps

    shaded: Pixels = colormaps[colours](np.clip(values, 0, 1), bytes=True)[..., :3]
    return shaded
