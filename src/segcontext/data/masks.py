"""The values that mask files store, and what to say where they mean nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcontext.data.decoding import quick_pixels
from segcontext.data.files import decode
from segcontext.data.matlab import matlab_labels
from segcontext.errors import LabelError, SampleError
from segcontext.native import is_available

__all__ = ["VOID", "Colour", "Integers", "class_indices", "raw_labels", "wrong_labels"]

VOID = 255

Colour: TypeAlias = tuple[int, int, int]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]


def raw_labels(
    path: Path,
    colours: Mapping[Colour, int] | None,
    palette_colours: bool = False,
    names: Mapping[int, str] | None = None,
) -> Integers:
    """Reads what a mask file stores.

    Args:
        path: the mask, an image or a MATLAB file (``.mat``).
        colours: RGB colour to value, for masks that store colours; `None` refuses such masks.
        palette_colours: whether the colours of a palette PNG count, as if it stored them; otherwise its indices are
            the values.
        names: what each value stands for; where it is given, palette PNGs whose indices count are refused if their
            palette gives the colour of one value to another. Palettes of other colours say nothing.

    Returns:
        Integers, (H, W), before any label map.

    Raises:
        SampleError: if the file cannot be read or does not store labels.
        LabelError: if it holds a colour that stands for nothing, or indices and colours contradict each other.
    """
    if path.suffix.lower() == ".mat":
        return matlab_labels(path)
    # Where the classes have colours, a palette has to be looked at.
    grey = quick_pixels(path, grey=True, palette=colours is None)
    if grey is not None:
        return grey.numpy()
    image = decode(path)
    by_colour = image.mode == "P" and palette_colours and colours is not None
    if (image.mode in ("1", "L", "P") and not by_colour) or image.mode.startswith("I"):
        pixels: Integers = np.asarray(image)
        if image.mode == "P" and colours and names:
            _check_palette(path, image, pixels, colours, names)
        return pixels.astype(np.uint8) if image.mode == "1" else pixels
    # Straight to RGB, Pillow warns of palettes that hold transparency.
    rgb = np.asarray(image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB"))
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


def _check_palette(
    path: Path, image: Image.Image, pixels: Integers, colours: Mapping[Colour, int], names: Mapping[int, str]
) -> None:
    """Refuses a palette that has the colour of one class at the index of another, where that index occurs."""
    flat = image.getpalette("RGB") or []
    table: list[Colour] = list(zip(flat[::3], flat[1::3], flat[2::3], strict=False))
    # A colour that stands there several times fills the palette up and says nothing.
    times = Counter(table)
    moved = {
        index: colour
        for index, colour in enumerate(table)
        if times[colour] == 1 and names.get(colours.get(colour, index)) != names.get(index)
    }
    if not moved:
        return
    used = np.bincount(pixels.ravel(), minlength=len(table))
    for index, colour in moved.items():
        if used[index]:
            right = colours[colour]
            raise LabelError(
                f"{path}: its palette gives the index {index}, which stands for {_said(index, names)}, the colour "
                f"{colour} of {_said(right, names)}, whose index is {right}. Palette PNGs are read by their indices. "
                "If the colours are right, convert the masks by them: segcontext convert MASKS --classes FILE --to "
                "FOLDER, with the classes and their colours in FILE. If the indices are right, save the masks without "
                "palette, or leave the colours out of the classes file."
            )


def _said(value: int, names: Mapping[int, str]) -> str:
    return f"'{names[value]}'" if value in names else "no class"


def class_indices(raw: Integers, known: Mapping[int, int]) -> npt.NDArray[np.uint8] | None:
    """Looks up what raw values mean.

    Args:
        raw: what a mask stores, (H, W).
        known: the label map: values to class indices or void.

    Returns:
        Class indices, 255 for void, (H, W); `None` where a value means nothing.
    """
    classes = len(known) - 1
    if raw.dtype == np.uint8 and known == {**{index: index for index in range(classes)}, VOID: VOID}:
        # Most masks hold the indices themselves; comparing is quicker than looking up. One more, and void is 0.
        if (raw + np.uint8(1)).max(initial=0) > classes:
            return None
        return raw.astype(np.uint8, copy=not raw.flags.writeable)
    table = np.full(max(VOID, *known) + 1, -1, np.int16)
    table[list(known)] = list(known.values())
    if raw.dtype == np.uint8 and is_available():
        from segcontext.native.labels import look_up

        found = np.empty(raw.shape, np.uint8)
        return found if look_up(np.ascontiguousarray(raw, np.uint8).reshape(-1), table, found.reshape(-1)) else None
    labels = table[raw] if raw.min() >= 0 and raw.max() < len(table) else None
    return None if labels is None or labels.min() < 0 else labels.astype(np.uint8)


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
