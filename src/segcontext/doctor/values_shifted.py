"""Names labels that are one too high or one too low."""

from __future__ import annotations

from typing import NamedTuple

from segcontext.data.masks import VOID
from segcontext.doctor.classes_file import BACKGROUND, ClassLine, classes_file, made_up_names
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Finding
from segcontext.doctor.label_facts import Held, LabelFacts, examples
from segcontext.doctor.words import plural, verb

__all__ = ["shifted", "shifted_onto_last", "some_shifted", "starts_at_1"]

# Where so large a part of the other masks shows the first class, masks without it are not there by chance.
_NEARLY_ALL = 0.9
_SEVERAL = 5


class _Shift(NamedTuple):
    """Labels that are one too high (1) or too low (-1).

    Attributes:
        step: which of the two.
        low: the lowest value of the classes file.
        high: the highest one.
    """

    step: int
    low: int
    high: int

    @property
    def beyond(self) -> int:
        """The value that shifted labels hold and no line names."""
        return self.high + 1 if self.step > 0 else self.low - 1

    @property
    def left(self) -> int:
        """The value that shifted labels do not hold."""
        return self.low if self.step > 0 else self.high

    @property
    def word(self) -> str:
        """Which of the two, in words."""
        return "one too high" if self.step > 0 else "one too low"


def _shifts(facts: LabelFacts) -> list[_Shift]:
    """The ways in which labels may be shifted, where the values follow each other, with those for void or without."""
    runs = (sorted(line.value for line in lines) for lines in (facts.lines, facts.classes))
    values = next((run for run in runs if run == list(range(run[0], run[0] + len(run)))), []) if facts.lines else []
    if not values or len(facts.classes) < 2:
        return []
    both = (_Shift(step, values[0], values[-1]) for step in (1, -1))
    return [shift for shift in both if 0 <= shift.beyond < VOID and facts.is_class(shift.left)]


def shifted(seen: Examination, facts: LabelFacts) -> Finding | None:
    """Labels that are one too high or too low in all masks, or of which there is one more than there are classes.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks.

    Returns:
        The mistake.
    """
    for shift in _shifts(facts):
        if facts.wrong == [shift.beyond]:
            if shift.left not in facts.values:
                return _all(seen, facts, shift)
            if shift.step > 0:
                return _one_more(seen, facts, shift)
    return None


def some_shifted(seen: Examination, facts: LabelFacts) -> tuple[Finding | None, LabelFacts]:
    """Some masks whose labels are one too high or too low, among others that are right.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks of a folder of one's own.

    Returns:
        The mistake, and the facts without those masks.
    """
    for shift in _shifts(facts):
        # Masks with other wrong values tell nothing of this one.
        doubtful = {held for held in facts.masks if list(filter(facts.is_wrong, held)) == [shift.beyond]}
        off = {held for held in doubtful if shift.left not in held}
        others = facts.without(off.__contains__)
        rest, right = others.count(lambda held: True), others.holding(shift.left)
        # Where the two are in one mask, both mean something.
        if off and off == doubtful and 2 * right > rest:
            # A mask of one value alone tells little.
            several = all(len(held - {VOID}) > 1 for held in off)
            clear = several and right >= max(2, _NEARLY_ALL * rest)
            return _some(seen, facts, shift, off, right, clear=clear), others
    return None, facts


def shifted_onto_last(seen: Examination, facts: LabelFacts) -> Finding | None:
    """Asks of the masks that alone hold the last class, and not the first, whether their labels are one too high.

    Where the last class is in no mask but for them, labels that are one too high are all labels of classes.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks of a folder of one's own.

    Returns:
        The question.
    """
    shift = next((shift for shift in _shifts(facts) if shift.step > 0 and facts.is_class(shift.high)), None)
    if shift is None:
        return None
    off = {held for held in facts.masks if shift.high in held}
    others = facts.without(off.__contains__)
    rest, right = others.count(lambda held: True), others.holding(shift.low)
    # One mask with few classes may lack the first of them by chance.
    telling = all(shift.low not in held and len(held - {VOID}) > 2 for held in off)
    count = facts.count(off.__contains__)
    if not off or not telling or 2 * count > rest or right < max(_SEVERAL, _NEARLY_ALL * rest):
        return None
    first, last = (next(line.name for line in facts.classes if line.value == end) for end in (shift.low, shift.high))
    return Finding(
        "off-by-one",
        "warning",
        f"{last!r} is in {plural(count, 'mask')} alone, none of which shows {first!r}: are their labels one too high?"
        if count > 1
        else f"{last!r} is in one mask alone, which does not show {first!r}: are its labels one too high?",
        f"Look at the pictures; if so, subtract 1 from every label of {'them' if count > 1 else 'it'}.",
        why=f"Of the other {plural(rest, 'mask')}, {right} {verb(right, 'hold')} {shift.low}, which is {first!r}.",
        count=count,
        examples=examples(seen, facts, off.__contains__),
    )


def _some(seen: Examination, facts: LabelFacts, shift: _Shift, off: set[Held], right: int, *, clear: bool) -> Finding:
    count, rest = facts.count(off.__contains__), facts.count(lambda held: held not in off)
    one = count == 1
    advice = "subtract 1 from" if shift.step > 0 else "add 1 to"
    return Finding(
        "off-by-one",
        "error",
        f"The labels of {plural(count, 'mask')} are {shift.word}: {'it holds' if one else 'they hold'} "
        f"{shift.beyond} and no {shift.left}."
        if clear
        else f"{plural(count, 'mask')} {verb(count, 'hold')} {shift.beyond}, which is no class, and no {shift.left}: "
        f"are {'its' if one else 'their'} labels {shift.word}?",
        f"Look at the pictures; {'' if clear else 'if so, '}{advice} every label of {'it' if one else 'them'}.",
        why=f"Of the other {plural(rest, 'mask')}, {right} {verb(right, 'hold')} {shift.left}.",
        count=count,
        examples=examples(seen, facts, off.__contains__),
    )


def starts_at_1(seen: Examination, facts: LabelFacts) -> Finding | None:
    """Asks whether the labels start at 1, where 0 is a class and no mask holds it.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks, all of which are known.

    Returns:
        The question.
    """
    values = [value for value in facts.values if value != VOID]
    if len(facts.classes) < 2 or not facts.is_class(0) or not values or values != list(range(1, values[-1] + 1)):
        return None
    first = next(line for line in facts.classes if line.value == 0)
    return Finding(
        "off-by-one",
        "warning",
        f"No mask holds 0, which is {first.name!r}; the values are {values[0]} to {values[-1]}.",
        f"Look at the masks: do the labels start at 1, so that 1 is {first.name!r}? If so, write each class's value "
        f"before its name in the classes file: `1 {first.name}`, and so on. If {first.name!r} is just not there, leave "
        "all as it is.",
        why="Every class would be read as the next one.",
        count=seen.whole.masks,
        examples=examples(seen, facts, lambda held: 1 in held),
    )


def _all(seen: Examination, facts: LabelFacts, shift: _Shift) -> Finding:
    first, count = shift.low + shift.step, shift.high + 1 - shift.low
    lines = [
        line._replace(value=line.value + shift.step) if shift.low <= line.value <= shift.high else line
        for line in facts.lines
    ]
    start = f"The labels start at {first}" if shift.low == 0 or first == 0 else f"The labels are {shift.word}"
    return Finding(
        "off-by-one",
        "error",
        f"{start}: the {plural(count, 'value')} of the classes file go from {shift.low} to {shift.high}, "
        f"those of the masks from {min(facts.values)} to {max(v for v in facts.values if v != VOID)}.",
        "Give each class its value: see the lines below.",
        why="Every class would be read as the next one.",
        count=facts.holding(shift.beyond),
        examples=examples(seen, facts, lambda held: shift.beyond in held),
        mend=[classes_file(lines)],
    )


def _one_more(seen: Examination, facts: LabelFacts, shift: _Shift) -> Finding | None:
    """Values from 0 to the number of classes."""
    names = [line.name for line in facts.classes]
    if facts.voids or shift.low != 0 or facts.unseen:
        return None
    last = len(names)
    if names[0].lower() in BACKGROUND:
        lines = [*facts.lines, ClassLine(last, made_up_names([last])[0])]
        cure = f"Put the name of what {last} is in place of '{lines[-1].name}', or '{last} void' if it is no class."
    else:
        lines = [ClassLine(0, "void", void=True), *(line._replace(value=line.value + 1) for line in facts.lines)]
        cure = (
            "If 0 is what was not labelled, take the lines below (others call this reduce_zero_label). If 0 is a "
            "class, such as background, put its name in place of 'void'. If the last value is the one without a name, "
            "add that name to the end of the classes file instead."
        )
    return Finding(
        "off-by-one",
        "error",
        f"The masks hold 0 to {last}, one value more than the {last} classes.",
        cure,
        why=f"The value {last} has no name, or every class is read as the next one.",
        count=facts.holding(last),
        examples=examples(seen, facts, lambda held: last in held),
        mend=[classes_file(lines)],
    )
