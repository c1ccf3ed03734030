"""Names the mistake of a single class, beside which there is nothing to tell it from."""

from __future__ import annotations

from segcontext.data.masks import VOID
from segcontext.doctor.classes_file import BACKGROUND, ClassLine, classes_file
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Finding
from segcontext.doctor.label_facts import LabelFacts, examples
from segcontext.doctor.words import few, plural

__all__ = ["single_class"]


def single_class(seen: Examination, facts: LabelFacts) -> Finding | None:
    """A classes file that names one class alone.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks.

    Returns:
        The mistake, with a second class if it is clear which value that has.
    """
    if len(facts.classes) != 1:
        return None
    values = facts.values
    if all(facts.is_void(value) for value in values):
        # Another check tells of masks that are nothing but void.
        return None
    (own,) = facts.classes
    lines = _two_classes(facts, own)
    pair = values == [0, VOID] and own.value == 0
    return Finding(
        "binary-0-255" if pair else "single-class",
        "error",
        f"The masks hold 0 and {VOID}, and {own.name!r} is the only class."
        if pair
        else f"{own.name!r} is the only class, and the masks hold {plural(len(values), 'value')}: {few(values, 12)}.",
        (
            "Name what lies around it, too: check the names in the lines below."
            if lines
            else "Name what lies around it, too, with the value that the masks hold there."
        ),
        why=(
            f"0 is read as {own.name!r} and {VOID} as void, so a network learns to answer {own.name!r} everywhere."
            if pair
            else f"Beside void there is nothing else to learn, so a network answers {own.name!r} everywhere."
        ),
        count=seen.whole.masks,
        examples=examples(seen, facts, lambda held: len(held) > 1),
        mend=[] if lines is None else [classes_file(lines)],
    )


def _two_classes(facts: LabelFacts, own: ClassLine) -> list[ClassLine] | None:
    """The class with its background, where the values tell which is which."""
    values = facts.values
    if values[0] < 0 or values[-1] > VOID:
        return None
    void = VOID in values and own.value != VOID
    ground, thing = _ground_and_thing(values[:-1] if void else values, void, own.value)
    if ground is None or thing is None or facts.is_slip(thing):
        return None
    colours = {line.value: line.colour for line in facts.lines}
    # Where the class itself is the background, the other one has no name yet.
    names = (own.name, "thing") if own.name.lower() in BACKGROUND else ("background", own.name)
    lines = [
        ClassLine(value, name, colour=own.colour if name == own.name else colours.get(value))
        for value, name in zip((ground, thing), names, strict=True)
    ]
    lines += [line for line in facts.voids if line.value not in (ground, thing)]
    said = {VOID, *(line.value for line in lines)}
    return lines if said.issuperset(values) else None


def _ground_and_thing(values: list[int], void: bool, own: int) -> tuple[int | None, int | None]:
    """Values of the background and of the class.

    Args:
        values: those of the masks, rising, but 255 where it is void.
        void: whether masks hold 255 as void.
        own: the class's value in the classes file; 0 is what a file without values gives it.

    Returns:
        The two, or `None` for what cannot be told.
    """
    if own != 0 and own in values:
        others = [value for value in values if value != own] or ([VOID] if void else [])
        return (0 if 0 in others else others[0] if len(others) == 1 else None), own
    if 0 in values:
        others = values[1:] or ([VOID] if void else [])
        return 0, (others[0] if len(others) == 1 else None)
    return (values[0], values[1]) if len(values) == 2 else (None, None)
