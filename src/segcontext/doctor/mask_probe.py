"""Examines the labels of one image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcontext.data.files import UNREADABLE, decode
from segcontext.data.masks import VOID, Colour, raw_labels
from segcontext.doctor.objects import Counts, object_sizes
from segcontext.doctor.survey import Reading
from segcontext.errors import DataError

__all__ = ["COLOURED", "GREY", "LABELS", "SCALED", "STRANGE", "MaskFacts", "probe_labels", "probe_mask"]

Integers: TypeAlias = npt.NDArray[np.integer[Any]]

# What a mask stores.
LABELS, COLOURED, GREY, STRANGE = "labels", "colours", "equal channels", "colours that are no class"
# Labels of 8 bits that were stretched to 16 are 257, seldom 256, times as high.
SCALED = {257: "labels times 257", 256: "labels times 256"}
# A mask with more values or colours than that is described by the most frequent of them.
_KEPT = 300
_PLAUSIBLE = 200


class MaskFacts(NamedTuple):
    """What a mask tells.

    Attributes:
        width: in pixels, as it is meant to be seen.
        height: likewise.
        mode: Pillow's name for how it stores colours.
        stores: ``labels``; or, where it does not, what it stores instead.
        values: raw values and how many pixels have them; at most 300.
        distinct: how many values, or colours, there are.
        wrong: how many of the values are neither a class nor void.
        labelled: pixels that belong to a class.
        pixels: (classes,), pixels of each class.
        void: pixels that are void.
        objects: for each class in the mask how many regions it has of 2ᵇ to 2ᵇ⁺¹ − 1 pixels, (32,).
        colours: where it stores colours, those and how many pixels have them; at most 300.
        digest: of the labels and their size; equal for equal masks.
        palette: of palette masks whose indices count, the values that occur and their colours.
    """

    width: int
    height: int
    mode: str
    stores: str = LABELS
    values: Mapping[int, int] = {}
    distinct: int = 0
    wrong: int = 0
    labelled: int = 0
    pixels: Counts = np.zeros(0, np.int64)
    void: int = 0
    objects: Mapping[int, Counts] = {}
    colours: Mapping[Colour, int] = {}
    digest: bytes = b""
    palette: Mapping[int, Colour] = {}


def probe_mask(path: Path, reading: Reading) -> tuple[MaskFacts | None, str]:
    """Examines a mask file.

    Args:
        path: the file.
        reading: what its values and colours mean.

    Returns:
        What was found, or `None` and the reason why it cannot be read.
    """
    mode = path.suffix.lower().removeprefix(".")
    try:
        if mode != "mat":
            with Image.open(path) as header:
                mode = header.mode
        facts = probe_labels(raw_labels(path, reading.colours, reading.palette_colours), reading, mode)
        # Where the indices count, their colours are compared with those of the classes and of other masks.
        indexed = mode == "P" and not (reading.palette_colours and reading.colours)
        return (facts._replace(palette=_palette(path, facts.values)) if indexed else facts), ""
    except UNREADABLE as error:
        if not isinstance(error, DataError):
            return None, str(error) or type(error).__name__
        reason = str(error.__cause__ or error)
    try:
        return _coloured(decode(path), reading), ""
    except DataError:
        return None, reason


def probe_labels(raw: Integers, reading: Reading, mode: str = "L") -> MaskFacts:
    """Examines labels that are read already.

    Args:
        raw: what the mask stores, (H, W).
        reading: what the values mean.
        mode: how the file stores them.

    Returns:
        What was found. Values that mean nothing are void in the counts of classes.
    """
    values, counts = _unique(raw)
    known = reading.label_map
    meaning = np.array([known.get(value, VOID) for value in values.tolist()], np.uint8)
    wrong = sum(value not in known for value in values.tolist())
    if not known:
        # Where the classes are not known, a value is wrong only if there are too many for any classes.
        wrong = len(values) if len(values) > _PLAUSIBLE else 0
    scaled = [stores for factor, stores in SCALED.items() if _is_scaled(values, factor, known)]
    labels = _mapped(raw, values, meaning)
    totals = np.bincount(meaning, weights=counts, minlength=VOID + 1).astype(np.int64)
    sizes = object_sizes(labels, reading.classes)
    return MaskFacts(
        width=raw.shape[1],
        height=raw.shape[0],
        mode=mode,
        stores=scaled[0] if scaled else LABELS,
        values=_most(dict(zip(values.tolist(), counts.tolist(), strict=True))),
        distinct=len(values),
        wrong=wrong,
        labelled=int(totals[: reading.classes].sum()),
        pixels=totals[: reading.classes],
        void=int(totals[VOID]) if reading.classes <= VOID else 0,
        objects={index: row for index, row in enumerate(sizes) if row.any()},
        digest=hashlib.blake2b(
            (labels if known else raw).tobytes() + repr(raw.shape).encode(), digest_size=16
        ).digest(),
    )


def _is_scaled(values: npt.NDArray[np.int64], factor: int, known: Mapping[int, int]) -> bool:
    """Whether all values are so many times those of classes and void."""
    if values.max() <= VOID or (values % factor).any():
        return False
    return all(value in known if known else value <= VOID for value in (values // factor).tolist())


def _palette(path: Path, values: Mapping[int, int]) -> dict[int, Colour]:
    """The values that occur and their colours."""
    with Image.open(path) as image:
        flat = image.getpalette("RGB") or []
    # Colours that stand there several times fill the palette up.
    table = list(zip(flat[::3], flat[1::3], flat[2::3], strict=False))
    times = Counter(table)
    return {value: colour for value, colour in enumerate(table) if value in values and times[colour] == 1}


def _coloured(image: Image.Image, reading: Reading) -> MaskFacts:
    rgb = np.asarray(image.convert("RGBA" if image.mode == "P" else "RGB"))[..., :3].astype(np.int32)
    packed, counts = np.unique(rgb @ np.array([65536, 256, 1], np.int32), return_counts=True)
    colours = {
        (value >> 16, value >> 8 & 255, value & 255): count
        for value, count in zip(packed.tolist(), counts.tolist(), strict=True)
    }
    if reading.colours is not None:
        stores = STRANGE
        colours = {colour: count for colour, count in colours.items() if colour not in reading.colours}
    else:
        stores = GREY if all(len(set(colour)) == 1 for colour in colours) else COLOURED
    return MaskFacts(*image.size, image.mode, stores, distinct=len(colours), colours=_most(colours))


def _unique(raw: Integers) -> tuple[npt.NDArray[np.int64], Counts]:
    if raw.dtype != np.uint8:
        values, counts = np.unique(raw, return_counts=True)
        return values.astype(np.int64), counts.astype(np.int64)
    # Much quicker than sorting the pixels.
    totals = np.bincount(raw.ravel(), minlength=256)
    values = np.flatnonzero(totals)
    return values.astype(np.int64), totals[values].astype(np.int64)


def _mapped(raw: Integers, values: npt.NDArray[np.int64], meaning: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if raw.dtype != np.uint8:
        return meaning[np.searchsorted(values, raw)]
    table = np.zeros(256, np.uint8)
    table[values] = meaning
    return table[raw]


def _most(counts: dict[Any, int]) -> dict[Any, int]:
    """The most frequent entries, in the order of their keys."""
    kept = sorted(counts, key=lambda entry: -counts[entry])[:_KEPT]
    return {entry: counts[entry] for entry in sorted(kept)}
