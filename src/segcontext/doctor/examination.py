"""Everything that was seen in a data set, for the checks to judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segcontext.doctor.copies import Copies
from segcontext.doctor.finding import Example
from segcontext.doctor.mask_probe import LABELS, MaskFacts
from segcontext.doctor.probe import ImageFacts
from segcontext.doctor.survey import Pair, Survey, role
from segcontext.doctor.tally import MANY, Tally

__all__ = ["Examination", "Record"]


class Record(NamedTuple):
    """What is kept of one image with its mask; sums and histograms are in the tallies.

    Attributes:
        pair: which image.
        image: what it tells, without its histogram; `None` where it cannot be read.
        mask: what it tells, without its counts; `None` where there is none or it cannot be read.
        image_error: why the image cannot be read.
        mask_error: why the mask cannot be read.
    """

    pair: Pair
    image: ImageFacts | None
    mask: MaskFacts | None
    image_error: str
    mask_error: str

    def example(self, remark: str = "") -> Example:
        """The two files, with what is to be seen in them."""
        return Example(image=self.pair.image or self.pair.name, mask=self.pair.mask, remark=remark)


@dataclass(kw_only=True)
class Examination:
    """What was seen.

    Attributes:
        survey: what lies in the folder.
        records: of the images that were opened.
        tallies: the sums of each split.
        whole: the sums of all images together.
        copies: which of the records' images look alike; positions are those of the records.
    """

    survey: Survey
    records: Sequence[Record]
    tallies: Mapping[str, Tally]
    whole: Tally
    copies: Copies

    @property
    def training(self) -> str | None:
        """The split to train on: the first one for training, or else of several uses."""
        names = [split.name for split in self.survey.splits if split.items]
        return next((name for wanted in ("train", None) for name in names if role(name) == wanted), None)

    def masks(self) -> Iterator[tuple[Record, MaskFacts]]:
        """The masks that were read as labels and hold no more than a few wrong values."""
        for record in self.records:
            if record.mask is not None and record.mask.stores == LABELS and record.mask.wrong <= MANY:
                yield record, record.mask
