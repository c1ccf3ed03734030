"""Matches values that are no class with classes that are in no mask."""

from __future__ import annotations

import itertools

from segcontext.data.masks import VOID
from segcontext.doctor.classes_file import ClassLine, classes_file
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Finding
from segcontext.doctor.label_facts import LabelFacts, examples
from segcontext.doctor.words import few, plural

__all__ = ["matched"]


def matched(seen: Examination, facts: LabelFacts) -> Finding | None:
    """As many values as there are classes, but others, such as 0, 127 and 255.

    Where several classes have their values, and a value that is no class is in a few masks alone, it is a slip.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks.

    Returns:
        The mistake, with the values that the classes may have.
    """
    wrong = facts.wrong
    if not wrong or wrong[0] < 0 or wrong[-1] > VOID or not facts.unseen:
        return None
    values, lines = _in_order(facts)
    stretched = False
    if lines:
        steps = {second - first for first, second in itertools.pairwise(values)}
        stretched = max(steps) - min(steps) <= 1 and min(steps) > 1
    else:
        lines = _for_unseen(facts)
    if not lines:
        return None
    return Finding(
        "stretched-labels" if stretched else "other-values",
        "error",
        f"The masks hold {plural(len(values), 'value')}, as many as there are classes, but others: {few(values, 12)}."
        if values
        else f"The masks hold {few(wrong, 12)}, which no class has, and no mask shows "
        f"{few(repr(line.name) for line in facts.unseen)}.",
        "Say which value is which class: check the names in the lines below.",
        why=(
            "Evenly spaced values are labels that were stretched to be seen." if stretched else "They have no meaning."
        ),
        count=max(facts.holding(value) for value in wrong),
        examples=examples(seen, facts, lambda held: not held.isdisjoint(wrong)),
        mend=[classes_file(lines)],
    )


def _in_order(facts: LabelFacts) -> tuple[list[int], list[ClassLine]]:
    """The values of the masks with the classes of a list of names alone, in their order; nothing if they do not fit."""
    named = {line.value for line in facts.voids}
    values = [value for value in facts.values if value not in named]
    if len(values) == len(facts.classes) + 1 and values[-1] == VOID:
        values = values[:-1]
    # Where several of the values are classes as they are, the others are slips.
    slips = len(facts.classes) - len(facts.unseen) > 1
    if slips or not facts.plain or len(values) != len(facts.classes) or len(values) < 2:
        return [], []
    lines = [line._replace(value=value) for line, value in zip(facts.classes, values, strict=True)]
    return values, [*lines, *facts.voids]


def _for_unseen(facts: LabelFacts) -> list[ClassLine]:
    """The classes that are in no mask, with the values that are no class in their order."""
    wrong, unseen = facts.wrong, facts.unseen
    if len(facts.classes) < 2:
        return []
    masks = facts.count(lambda held: True)
    often = all(2 * facts.holding(value) >= masks for value in wrong)
    if len(wrong) != len(unseen) or not (often or len(facts.classes) - len(unseen) < 2):
        return []
    new = dict(zip((line.name for line in unseen), wrong, strict=True))
    return [line._replace(value=new.get(line.name, line.value)) for line in facts.lines]
