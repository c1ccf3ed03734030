"""What the files themselves tell: whether they can be read, and how they store what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segcontext.doctor.examination import Examination, Record
from segcontext.doctor.finding import Example, Finding
from segcontext.doctor.words import few, number, plural, share, verb

__all__ = ["check_files"]

_TURNED = (5, 6, 7, 8)
_PLAIN_IMAGES = ("RGB", "L")


def check_files(seen: Examination) -> Iterator[Finding]:
    """Looks for files that cannot be read, sizes that do not fit, and modes that need care.

    Args:
        seen: what was seen in the data set.

    Yields:
        The findings.
    """
    broken = [record for record in seen.records if record.image_error]
    if broken:
        yield _unreadable("image", broken, [record.example(record.image_error) for record in broken])
    broken = [record for record in seen.records if record.mask_error]
    if broken:
        yield _unreadable("mask", broken, [record.example(record.mask_error) for record in broken])
    yield from _sizes(seen)
    yield from _image_modes(seen)
    yield from _mask_modes(seen)
    blank = [seen.records[place] for place in seen.copies.blank]
    if blank:
        yield Finding(
            "blank-image",
            "warning",
            f"{plural(len(blank), 'image')} {verb(len(blank), 'show')} a single tone.",
            "Look at them; they may be failed exports.",
            count=len(blank),
            examples=[record.example() for record in blank],
        )


def _unreadable(what: str, broken: Sequence[Record], examples: Sequence[Example]) -> Finding:
    return Finding(
        f"unreadable-{what}",
        "error",
        f"{plural(len(broken), what)} cannot be read.",
        "Fetch or export them again, or remove them with their "
        f"{'mask' if what == 'image' else 'image'}s; they may be truncated.",
        why="A training stops at the first of them.",
        count=len(broken),
        examples=examples,
    )


def _sizes(seen: Examination) -> Iterator[Finding]:
    turned, other, rotated = [], [], []
    for record in seen.records:
        if record.image is None:
            continue
        size = (record.image.width, record.image.height)
        if record.image.orientation != 1:
            rotated.append(record.example(f"EXIF orientation {record.image.orientation}"))
        if record.mask is None:
            continue
        mask = (record.mask.width, record.mask.height)
        remark = f"image {size[0]}×{size[1]}, mask {mask[0]}×{mask[1]}"
        if mask == size:
            continue
        if record.image.orientation in _TURNED and mask == size[::-1]:
            turned.append(record.example(remark))
        else:
            other.append(record.example(remark))
    if turned:
        yield Finding(
            "exif-rotation",
            "error",
            f"{plural(len(turned), 'image')} {verb(len(turned), 'are')} turned by EXIF, the masks are not.",
            "Turn these masks as the images are seen, or save the images anew without the EXIF orientation "
            "(the pixels as they are stored).",
            why="The labels were drawn on the pixels as they are stored; images are read as they are meant to be seen.",
            count=len(turned),
            examples=turned,
        )
    if other:
        yield Finding(
            "size-mismatch",
            "error",
            f"{plural(len(other), 'mask')} {verb(len(other), 'have')} another size than the image.",
            "Resize the masks with nearest-neighbour, or mend the pairs: they may belong to other images.",
            count=len(other),
            examples=other,
        )
    if rotated and not turned:
        yield Finding(
            "exif-images",
            "note",
            f"{plural(len(rotated), 'image')} {verb(len(rotated), 'have')} an EXIF orientation.",
            "Nothing, if the masks were drawn on the images as they are seen: look at the pictures below.",
            why="Images are read as they are meant to be seen. Masks are taken as they are stored.",
            count=len(rotated),
            examples=rotated,
        )


def _image_modes(seen: Examination) -> Iterator[Finding]:
    unusual = {mode: count for mode, count in seen.whole.modes.items() if mode not in _PLAIN_IMAGES}
    mixed = len(seen.whole.modes) > 1
    for mode, count in sorted(unusual.items()):
        title, cure, severity = _image_mode(mode)
        if severity == "note" and not mixed:
            continue
        files = [record.example() for record in seen.records if record.image and record.image.mode == mode]
        yield Finding(
            "image-mode",
            "warning" if severity == "warning" else "note",
            f"{plural(count, 'image')} of {number(seen.whole.images)} {verb(count, 'have')} {title}.",
            cure,
            count=count,
            examples=files,
        )


def _image_mode(mode: str) -> tuple[str, str, str]:
    if mode == "CMYK":
        return (
            "the colours of a printer (CMYK)",
            "Export them as RGB; a conversion without colour profile shifts the colours.",
            "warning",
        )
    if mode == "F":
        return "floats", "Nothing, if 0 is black and 1 is white: they are read so.", "warning"
    if mode.startswith("I"):
        return "16 bits per pixel", "Export them with 8 bits; the upper eight are read, which may be dark.", "warning"
    if mode in ("RGBA", "LA", "PA"):
        return "an alpha channel", "Nothing, unless it hides something: alpha is dropped when images are read.", "note"
    if mode == "1":
        return "black and white pixels alone (1 bit)", "Look whether these are masks.", "warning"
    return f"the mode {mode}", "Nothing; they are read as RGB.", "note"


def _mask_modes(seen: Examination) -> Iterator[Finding]:
    modes = seen.whole.mask_modes
    deep = [record.example() for record in seen.records if record.mask and record.mask.mode.startswith("I")]
    if deep:
        yield Finding(
            "deep-mask",
            "note",
            f"{plural(len(deep), 'mask')} {verb(len(deep), 'have')} 16 bits per pixel.",
            "Nothing, if the values are right. Masks of 8 bits hold all that is needed in half the space.",
            why="They are read as they are.",
            count=len(deep),
            examples=deep,
        )
    plain = {mode: count for mode, count in modes.items() if mode in ("L", "P", "1") or mode.startswith("I")}
    if len(plain) > 1:
        counts = few((f"{mode} ({share(count, sum(modes.values()))})" for mode, count in plain.items()), 9)
        yield Finding(
            "mask-modes",
            "note",
            f"The masks are stored in different modes: {counts}.",
            "Look whether they come from one source: 1 is black and white, P has a palette, L is grey, I has 16 bits.",
            why="All of them are read. A mixture often means that some were made by another program.",
            count=len(plain),
            examples=_one_per_mode(seen, list(plain)),
        )


def _one_per_mode(seen: Examination, modes: Sequence[str]) -> list[Example]:
    found = []
    for mode in modes:
        record = next(record for record in seen.records if record.mask is not None and record.mask.mode == mode)
        found.append(record.example(f"mode {mode}"))
    return found
