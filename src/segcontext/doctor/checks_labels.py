"""What the values in the masks tell."""

from __future__ import annotations

from collections.abc import Iterator

from segcontext.data.masks import VOID
from segcontext.doctor.checks_palettes import check_palettes
from segcontext.doctor.classes_file import classes_by_colour
from segcontext.doctor.examination import Examination, Record
from segcontext.doctor.finding import Finding
from segcontext.doctor.mask_probe import COLOURED, GREY, LABELS, SCALED, STRANGE
from segcontext.doctor.tally import MANY
from segcontext.doctor.values import diagnose_values
from segcontext.doctor.words import few, plural, share, verb

__all__ = ["check_labels"]

# More colours than that come from smoothed edges or lossy files, not from classes.
_FEW_COLOURS = 64
_MOSTLY = 0.5
# Mistakes that take a class for void.
_ABOUT_VOID = ("binary-0-255", "single-class", "stretched-labels", "other-values")


def check_labels(seen: Examination) -> Iterator[Finding]:
    """Looks for masks that hold no labels, for values that are no class, and for the usual mistakes behind them.

    Args:
        seen: what was seen in the data set.

    Yields:
        The findings.
    """
    yield from _colours(seen)
    yield from _strange_colours(seen)
    yield from _many_values(seen)
    yield from _scaled(seen)
    palettes = list(check_palettes(seen))
    yield from palettes
    if any(finding.severity == "error" for finding in palettes):
        # Their indices have another meaning in each file, so nothing can be said of the values.
        return
    values = list(diagnose_values(seen))
    yield from values
    codes = {finding.code for finding in values}
    yield from _void(seen, explained=not codes.isdisjoint(_ABOUT_VOID), asked="void-or-class" in codes)


def _storing(seen: Examination, what: str) -> list[Record]:
    """The masks that store this."""
    return [record for record in seen.records if record.mask is not None and record.mask.stores == what]


def _colours(seen: Examination) -> Iterator[Finding]:
    own = seen.survey.own_folder
    for stores, code, what in (
        (COLOURED, "colour-mask", "colours (RGB)"),
        (GREY, "grey-colour-mask", "grey as three equal channels (RGB)"),
    ):
        found, colours = _storing(seen, stores), seen.whole.colours[stores]
        if not found:
            continue
        lines = seen.survey.lines
        # Beside masks of indices, lines in another order would give those another meaning.
        usable = own and len(colours) <= _FEW_COLOURS and not seen.whole.masks
        yield Finding(
            code,
            "error",
            f"{plural(len(found), 'mask')} {verb(len(found), 'store')} {what}, not class indices.",
            (
                "Say which colour is which class: check the names in the lines below."
                if usable
                else "Convert them to class indices: segcontext convert MASKS --classes FILE --to FOLDER."
            ),
            why=f"They hold {plural(len(colours), 'colour')}: {few(colours, 8)}.",
            count=len(found),
            examples=[record.example(f"mode {record.mask.mode}") for record in found if record.mask],
            mend=[classes_by_colour(lines, colours, rising=stores == GREY)] if usable else [],
        )


def _strange_colours(seen: Examination) -> Iterator[Finding]:
    found, colours = _storing(seen, STRANGE), seen.whole.colours[STRANGE]
    if not found:
        return
    many = len(colours) > MANY
    yield Finding(
        "strange-colour",
        "error",
        f"{plural(len(found), 'mask')} {verb(len(found), 'hold')} colours that are no class.",
        (
            "So many colours come from smoothing or lossy compression: make the masks anew, or let "
            "`segcontext convert MASKS --classes FILE --unknown nearest` take the nearest class."
            if many
            else "Add the colours to the classes file, or mend the masks."
        ),
        why=f"Such as {few(colours, 8)}.",
        count=len(found),
        examples=[record.example(plural(record.mask.distinct, "colour")) for record in found if record.mask],
    )


def _many_values(seen: Examination) -> Iterator[Finding]:
    found = [
        (record, record.mask)
        for record in seen.records
        if record.mask is not None and record.mask.stores == LABELS and record.mask.wrong > MANY
    ]
    if not found:
        return
    yield Finding(
        "many-values",
        "error",
        f"{plural(len(found), 'mask')} {verb(len(found), 'hold')} dozens of values that are no class.",
        "Make them anew from the original labels, resized with nearest-neighbour.",
        why="So many values come from a mask that was resized with smoothing, saved lossily, or is a picture.",
        count=len(found),
        examples=[record.example(f"{mask.distinct} values, {mask.wrong} of them no class") for record, mask in found],
    )


def _scaled(seen: Examination) -> Iterator[Finding]:
    for factor, stores in SCALED.items():
        found = _storing(seen, stores)
        if found:
            yield Finding(
                "scaled-labels",
                "error",
                f"{plural(len(found), 'mask')} {verb(len(found), 'hold')} {factor} times the labels, in 16 bits.",
                f"Divide every value of these masks by {factor}, and save them with 8 bits.",
                why=f"Labels of 8 bits were stretched to 16: {factor} for 1, {2 * factor} for 2, and so on.",
                count=len(found),
                examples=[record.example(f"holds {few(record.mask.values, 12)}") for record in found if record.mask],
            )


def _void(seen: Examination, *, explained: bool, asked: bool) -> Iterator[Finding]:
    """Masks without a single labelled pixel, and data sets that are mostly void."""
    whole = seen.whole
    if not seen.survey.classes or not whole.masks:
        return
    # Values that mean nothing are counted as void, too, but they are told of otherwise.
    empty = [record for record, mask in seen.masks() if not mask.labelled and not mask.wrong]
    if empty and not explained:
        yield Finding(
            "all-void",
            "error" if len(empty) == whole.masks else "warning",
            f"{plural(len(empty), 'mask')} {verb(len(empty), 'hold')} nothing but void.",
            "Label these images or remove them; nothing is learnt from them.",
            count=len(empty),
            examples=[record.example() for record in empty],
        )
    elif whole.void > _MOSTLY * (whole.void + whole.labelled) and not (explained or asked):
        values = [value for value, index in seen.survey.label_map().items() if index == VOID and whole.values[value]]
        yield Finding(
            "mostly-void",
            "warning",
            f"{share(whole.void, whole.void + whole.labelled)} of the pixels are void.",
            "Look whether void stands for a class, such as background; if so, name it in the classes file.",
            why=f"Void pixels are neither learnt nor scored. They have the value {few(values)}.",
            count=whole.masks,
        )
