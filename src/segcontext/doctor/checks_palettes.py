"""What the palettes of masks tell: such a mask holds indices, and its palette says which colour each of them has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from segcontext.data.masks import Colour
from segcontext.doctor.examination import Examination, Record
from segcontext.doctor.finding import Finding
from segcontext.doctor.words import few, number, plural, verb

__all__ = ["check_palettes"]

_CURE = (
    "Convert the masks by their colours: segcontext convert MASKS --classes FILE --to FOLDER, with the colour of each "
    "class in FILE."
)
_WHY = "Programs that shrink PNG files, such as pngquant, number the colours of each file anew; labels are the numbers."


def check_palettes(seen: Examination) -> Iterator[Finding]:
    """Looks for palettes that contradict the classes' colours, or each other.

    Args:
        seen: what was seen in the data set.

    Yields:
        The findings: errors where indices mean other classes than their colours do.
    """
    masks = [(record, record.mask.palette) for record in seen.records if record.mask and record.mask.palette]
    wrong = list(_misplaced(seen, masks))
    yield from wrong or _different(masks)


def _misplaced(seen: Examination, masks: list[tuple[Record, Mapping[int, Colour]]]) -> Iterator[Finding]:
    """Palettes with the colour of a class at the index of another one."""
    values = {line.colour: line.value for line in seen.survey.lines if line.colour} or dict(
        next((reading.colours for reading in seen.survey.readings if reading.colours), {})
    )
    known = seen.survey.label_map()
    examples = []
    for record, palette in masks:
        odd = [value for value, colour in palette.items() if known.get(values.get(colour, value)) != known.get(value)]
        if odd:
            right = values[palette[odd[0]]]
            index = known.get(right, -1)
            name = seen.survey.classes[index] if 0 <= index < len(seen.survey.classes) else "void"
            examples.append(record.example(f"{odd[0]} has the colour {palette[odd[0]]} of {name!r}, which is {right}"))
    if examples:
        yield Finding(
            "palette-colours",
            "error",
            f"{plural(len(examples), 'mask')} {verb(len(examples), 'have')} the colour of a class at the index of "
            "another.",
            _CURE,
            why=_WHY,
            count=len(examples),
            examples=examples,
        )


def _different(masks: list[tuple[Record, Mapping[int, Colour]]]) -> Iterator[Finding]:
    """Palettes that are not the same in all files."""
    colours: dict[int, Counter[Colour]] = defaultdict(Counter)
    values: dict[Colour, set[int]] = defaultdict(set)
    for _, palette in masks:
        for value, colour in palette.items():
            colours[value][colour] += 1
            values[colour].add(value)
    several = [value for value in sorted(colours) if len(colours[value]) > 1]
    if not several:
        return
    usual = {value: counts.most_common(1)[0][0] for value, counts in colours.items()}
    moved = [(colour, value) for value in several for colour in colours[value] if len(values[colour]) > 1]
    examples = []
    for record, palette in masks:
        odd = next((value for value in several if palette.get(value, usual[value]) != usual[value]), None)
        if odd is not None:
            examples.append(record.example(f"{odd} has the colour {palette[odd]}, in most files {usual[odd]}"))
    title = f"The palettes of {number(len(masks))} masks differ from file to file"
    if moved:
        colour = moved[0][0]
        yield Finding(
            "palette-order",
            "error",
            f"{title}, and one colour has several indices: {colour} has {few(sorted(values[colour]))}.",
            _CURE,
            why=_WHY,
            count=len(examples),
            examples=examples,
        )
        return
    yield Finding(
        "palettes-differ",
        "warning",
        f"{title}: {several[0]} has the colours {few(colours[several[0]], 4)}.",
        "Look whether each index means the same class in all files. If the colours tell the class, convert the masks "
        "by them: segcontext convert MASKS --classes FILE --to FOLDER.",
        why="Labels are the indices, whatever their colours are.",
        count=len(examples),
        examples=examples,
    )
