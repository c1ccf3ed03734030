"""The values that mask files store, and what to say where they mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.data.files import decode
from segcontext.data.matlab import matlab_labels
from segcontext.errors import LabelError, SampleError

__all__ = ["VOID", "Colour", "Integers", "raw_labels", "wrong_labels"]

VOID = 255

Colour: TypeAlias = tuple[int, int, int]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]


def raw_labels(path: Path, colours: Mapping[Colour, int] | None) -> Integers:
    """Reads what a mask file stores.

    Args:
        path: the mask, an image or a MATLAB file (``.mat``).
        colours: RGB colour to value, for masks that store colours; `None` refuses such masks.

    Returns:
        Integers, (H, W), before any label map.

    Raises:
        SampleError: if the file cannot be read or does not store labels.
        LabelError: if it holds a colour that stands for nothing.
    """
    if path.suffix.lower() == ".mat":
        return matlab_labels(path)
    image = decode(path)
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        pixels: Integers = np.asarray(image)
        return pixels.astype(np.uint8) if image.mode == "1" else pixels
    rgb = np.asarray(image.convert("RGB"))
    if colours is None:
        advice = "convert it by the classes' colours, or say which colour is which class: `r g b` on each line of a "
        advice += "folder's classes file, `colours` of a Dataset subclass."
        if (rgb == rgb[..., :1]).all():
            advice = "its channels are all equal, so keep the first."
        raise SampleError(
            f"{path} stores colours (mode {image.mode}). Expected one class index per pixel, in an 8-bit grey or "
            f"palette PNG: {advice}"
        )
    packed = rgb.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    labels = np.full(packed.shape, -1, np.int16)
    for (red, green, blue), value in colours.items():
        labels[packed == red * 65536 + green * 256 + blue] = value
    unknown = rgb[labels < 0]
    if len(unknown):
        raise LabelError(
            f"{path} holds {len(unknown)} pixels of colours that are no class, such as {tuple(unknown[0].tolist())}. "
            "Expected only the data set's colours; a mask that was resized or saved lossily has to be made anew."
        )
    return labels


def wrong_labels(path: Path, raw: Integers, known: Mapping[int, int], classes: int) -> str:
    """Words the error for a mask with values that mean nothing.

    Args:
        path: the mask.
        raw: what it stores, (H, W).
        known: the label map: values to class indices or void.
        classes: how many classes there are.

    Returns:
        What was found, what was expected, and what the reason may be.
    """
    values, counts = np.unique(raw, return_counts=True)
    present = dict(zip(values.tolist(), counts.tolist(), strict=True))
    wrong = {value: count for value, count in present.items() if value not in known}
    shown = ", ".join(f"{value} ({count} pixels)" for value, count in islice(wrong.items(), 5))
    expected = sorted(value for value, label in known.items() if label != VOID)
    void = _spans(sorted(value for value, label in known.items() if label == VOID))
    hint = "Mend the mask or the list of classes."
    if len(wrong) > 20:
        hint = "So many values look like a picture or a resampled mask; labels are resized with nearest-neighbour."
    elif list(wrong) == [classes] and expected == list(range(classes)):
        hint = "Do the labels start at 1? Subtract 1, or name the class that is missing from the list."
    elif len(present) == 2 and classes == 2:
        hint = f"The mask is binary with values {values[0]} and {values[1]}: store 0 and 1 instead."
    return (
        f"{path} holds labels that are no class: {shown}{', …' if len(wrong) > 5 else ''}. "
        f"Expected {_spans(expected)} for the {classes} classes{f' and {void} for void' if void else ''}. {hint}"
    )


def _spans(values: list[int]) -> str:
    """Sorted numbers in words, neighbours joined: "0..18, 255"."""
    starts = [value for value in values if value - 1 not in values]
    ends = [value for value in values if value + 1 not in values]
    spans = [str(first) if first == last else f"{first}..{last}" for first, last in zip(starts, ends, strict=True)]
    return ", ".join(spans[:12]) + (", …" if len(spans) > 12 else "")
