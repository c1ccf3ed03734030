"""Names the mistake behind mask values that do not fit the classes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from segcontext.data.masks import VOID
from segcontext.doctor.classes_file import classes_by_value, made_up_names
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Example, Finding
from segcontext.doctor.words import few, number, plural, verb

__all__ = ["diagnose_values"]

_INSTANCES = 1000


def diagnose_values(seen: Examination) -> Finding | None:
    """Compares the values of all masks with those of the classes.

    Args:
        seen: what was seen in the data set.

    Returns:
        The mistake, with the classes file that mends it where one can; `None` where all is well.
    """
    values = sorted(seen.whole.values)
    if not values:
        return None
    names = seen.survey.classes
    if not names:
        return _unnamed(seen, values)
    known = seen.survey.label_map()
    wrong = [value for value in values if value not in known]
    if not wrong:
        return _binary(seen, values)
    # Only for masks that hold plain indices is there a simple mistake to be named.
    plain = seen.survey.own_folder and sorted(v for v, i in known.items() if i != VOID) == list(range(len(names)))
    if plain:
        finding = _off_by_one(seen, values, wrong) or _other_values(seen, values, wrong)
        if finding is not None:
            return finding
    return _outside(seen, wrong)


def _binary(seen: Examination, values: Sequence[int]) -> Finding | None:
    """Masks of 0 and 255, where 255 is read as void."""
    names = seen.survey.classes
    if set(values) != {0, VOID} or seen.survey.label_map().get(VOID) != VOID or len(names) < 2:
        return None
    return Finding(
        "binary-0-255",
        "error",
        "The masks hold 0 and 255 alone, and 255 means void.",
        f"Say that 255 is '{names[1]}'.",
        why=f"Every pixel that is not '{names[0]}' is ignored, so a network learns to answer '{names[0]}' everywhere.",
        count=seen.whole.masks,
        examples=_examples(seen, [VOID]),
        mend=[classes_by_value({0: names[0], VOID: names[1]})] if seen.survey.own_folder else [],
    )


def _off_by_one(seen: Examination, values: Sequence[int], wrong: Sequence[int]) -> Finding | None:
    """Labels from 1 to the number of classes."""
    names = seen.survey.classes
    if list(wrong) != [len(names)]:
        return None
    shifted = dict(enumerate(names, start=1))
    if 0 not in values:
        return Finding(
            "off-by-one",
            "error",
            f"The labels start at 1: there are {len(names)} classes, and the masks hold 1 to {len(names)}.",
            "Give each class its value.",
            why="Every class would be read as the next one.",
            count=seen.whole.value_masks[len(names)],
            examples=_examples(seen, wrong),
            mend=[classes_by_value(shifted)],
        )
    return Finding(
        "off-by-one",
        "error",
        f"The masks hold 0 to {len(names)}, one value more than the {len(names)} classes.",
        "If 0 is what was not labelled, take the lines below (others call this reduce_zero_label). If 0 is a class, "
        "such as background, put its name in place of 'void'. If the last value is the one without a name, add "
        "that name to the end of the classes file instead.",
        why=f"The value {len(names)} has no name, or every class is read as the next one.",
        count=seen.whole.value_masks[len(names)],
        examples=_examples(seen, wrong),
        mend=[classes_by_value(shifted, [0])],
    )


def _other_values(seen: Examination, values: Sequence[int], wrong: Sequence[int]) -> Finding | None:
    """As many values as there are classes, but others, such as 0, 127 and 255."""
    names = seen.survey.classes
    void: list[int] = []
    if len(values) == len(names) + 1 and VOID in values:
        void, values = [VOID], [value for value in values if value != VOID]
    # Where several of the values are classes as they are, the others are slips.
    slips = sum(value < len(names) for value in values) > 1
    if slips or len(values) != len(names) or max(values) > VOID or min(values) < 0:
        return None
    steps = {second - first for first, second in itertools.pairwise(values)}
    stretched = len(names) > 1 and max(steps) - min(steps) <= 1 and min(steps) > 1
    return Finding(
        "stretched-labels" if stretched else "other-values",
        "error",
        f"The masks hold {plural(len(values), 'value')}, as many as there are classes, but others: {few(values, 12)}.",
        "Say which value is which class: check the names in the lines below.",
        why=(
            "Evenly spaced values are labels that were stretched to be seen." if stretched else "They have no meaning."
        ),
        count=max(seen.whole.value_masks[value] for value in wrong),
        examples=_examples(seen, wrong),
        mend=[classes_by_value(dict(zip(values, names, strict=True)), void)],
    )


def _outside(seen: Examination, wrong: Sequence[int]) -> Finding:
    known = seen.survey.label_map()
    pixels = seen.whole.values
    hint = "Mend the masks, or name the values in the classes file; the lines below call them void."
    if not seen.survey.own_folder:
        hint = f"Are these the labels of {seen.survey.name}'s own release? Another release may number them otherwise."
    elif max(wrong) >= _INSTANCES:
        hint = "Numbers that high are instances (class · 1000 + instance): export the classes instead."
    named = dict(zip(range(len(seen.survey.classes)), seen.survey.classes, strict=True))
    by_value = {value: seen.survey.classes[index] for value, index in known.items() if index != VOID}
    writable = seen.survey.own_folder and len(wrong) <= 3 and max(wrong) <= VOID and min(wrong) >= 0
    return Finding(
        "outside-classes",
        "error",
        f"The masks hold {plural(len(wrong), 'value')} that {verb(len(wrong), 'are')} no class: "
        f"{few((f'{value} ({number(pixels[value])} pixels)' for value in wrong), 8)}.",
        hint,
        why=f"Expected {few(sorted(by_value), 20)} for the {plural(len(named), 'class', 'classes')}.",
        count=sum(any(value not in known for value in mask.values) for _, mask in seen.masks()),
        examples=_examples(seen, wrong),
        mend=[classes_by_value(by_value, wrong)] if writable else [],
    )


def _unnamed(seen: Examination, values: Sequence[int]) -> Finding | None:
    """The values of masks whose classes have no names yet."""
    if max(values) > VOID or min(values) < 0 or not seen.survey.own_folder:
        return None
    shown = dict(zip(values, made_up_names(values), strict=True))
    if values == [0, VOID]:
        shown = {0: "background", VOID: "thing"}
    void = [VOID] if VOID in values and len(values) > 2 else []
    for value in void:
        del shown[value]
    return Finding(
        "unnamed-values",
        "note",
        f"The masks hold {plural(len(values), 'value')}: {few(values, 20)}.",
        "Put the classes' names beside them.",
        count=len(values),
        examples=_examples(seen, values[-1:]),
        mend=[classes_by_value(shown, void)],
    )


def _examples(seen: Examination, wanted: Sequence[int]) -> list[Example]:
    return [
        record.example(f"holds {few((value for value in mask.values), 12)}")
        for record, mask in seen.masks()
        if any(value in mask.values for value in wanted)
    ]
