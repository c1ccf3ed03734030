"""Names the mistake behind mask values that do not fit the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from segcontext.data.masks import VOID
from segcontext.doctor.classes_file import ClassLine, classes_file, made_up_names, void_lines
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Finding, Mend
from segcontext.doctor.label_facts import LabelFacts, examples, label_facts
from segcontext.doctor.values_binary import binary, some_binary, unnamed_pair
from segcontext.doctor.values_matched import matched
from segcontext.doctor.values_shifted import shifted, shifted_onto_last, some_shifted, starts_at_1
from segcontext.doctor.values_single import single_class
from segcontext.doctor.words import few, number, plural, verb

__all__ = ["diagnose_values"]

# More values than that are not called void one by one.
_FEW = 3
_INSTANCES = 1000


def diagnose_values(seen: Examination) -> Iterator[Finding]:
    """Compares the values of the masks with those of the classes.

    Args:
        seen: what was seen in the data set.

    Yields:
        The mistakes: first those of some of the masks, then the one that runs through all others, with the classes
        file that mends it where one can.
    """
    facts = label_facts(seen)
    if not facts.values:
        return
    if not seen.survey.classes:
        yield from filter(None, [_unnamed(seen, facts)])
        return
    some: list[Finding] = []
    if seen.survey.own_folder:
        for kind in (some_binary, some_shifted):
            finding, facts = kind(seen, facts)
            some += filter(None, [finding])
    yield from some
    rules = (single_class, binary, shifted, matched, _outside, starts_at_1, _void_or_class)
    finding = next(filter(None, (rule(seen, facts) for rule in rules)), None)
    if finding is not None and some and finding.mend:
        # Lines for all masks would change what these mean.
        finding = replace(finding, mend=(), cure="Mend the masks of the other finding on values, and examine again.")
    if finding is not None:
        yield finding
    if all(found.code != "off-by-one" for found in (*some, *filter(None, [finding]))):
        yield from filter(None, [shifted_onto_last(seen, facts)])


def _outside(seen: Examination, facts: LabelFacts) -> Finding | None:
    """Values that are no class, and nothing more is known of them."""
    wrong = facts.wrong
    if not wrong:
        return None
    pixels = Counter[int]()
    for _, mask in seen.masks():
        if frozenset(mask.values) in facts.masks:
            pixels.update(mask.values)
    expected = sorted(value for value in facts.known if facts.is_class(value))
    mend = _as_void(facts)
    return Finding(
        "outside-classes",
        "error",
        f"The masks hold {plural(len(wrong), 'value')} that {verb(len(wrong), 'are')} no class: "
        f"{few((f'{value} ({number(pixels[value])} pixels)' for value in wrong), 8)}.",
        _advice(seen, facts, lines=bool(mend)),
        why=f"Expected {few(expected, 20)} for the {plural(len(seen.survey.classes), 'class', 'classes')}.",
        count=facts.count(lambda held: not held.isdisjoint(wrong)),
        examples=examples(seen, facts, lambda held: not held.isdisjoint(wrong)),
        mend=mend,
    )


def _advice(seen: Examination, facts: LabelFacts, *, lines: bool) -> str:
    wrong, unseen = facts.wrong, [line.name for line in facts.unseen]
    if not seen.survey.own_folder:
        return f"Are these the labels of {seen.survey.name}'s own release? Another release may number them otherwise."
    if max(wrong) >= _INSTANCES:
        return "Numbers that high are instances (class · 1000 + instance): export the classes instead."
    if lines:
        named = " If one of them is a class, such as background, put its name in place of the word for void."
        return f"Mend the masks, or name the values in the classes file; the lines below call them void.{named}"
    if unseen and len(unseen) <= len(wrong):
        asked = f"is {wrong[0]}" if len(wrong) == 1 else "are some of the values"
        return (
            f"No mask shows {few(map(repr, unseen))}: {asked} {'it' if len(unseen) == 1 else 'these'}? If so, say so "
            "in the classes file, with the value before the name; otherwise name what they are, or mend the masks."
        )
    return "Mend the masks, or name each of the values in the classes file, as a class or as void."


def _as_void(facts: LabelFacts) -> Sequence[Mend]:
    """Lines that call the wrong values void, unless one of them may well be a class."""
    wrong, unseen = facts.wrong, facts.unseen
    if len(wrong) > _FEW or not 0 <= wrong[0] <= wrong[-1] <= VOID:
        return []
    # While a class is in no mask, it may be what a frequent value stands for.
    masks, shown = facts.count(lambda held: True), len(facts.classes) - len(unseen)
    slips = all(2 * facts.holding(value) < masks for value in wrong) and len(unseen) != len(wrong)
    if shown < 2 or (unseen and not slips):
        return []
    more = void_lines(wrong, facts.lines)
    return [] if more is None else [classes_file([*facts.lines, *more])]


def _void_or_class(seen: Examination, facts: LabelFacts) -> Finding | None:
    """255 is void, and a class is never seen: it may be that one."""
    unseen, last = facts.unseen, max(facts.classes, key=lambda line: line.value, default=None)
    if VOID not in facts.values or not facts.is_void(VOID) or facts.void_is_said or not unseen:
        return None
    if last not in unseen and len(unseen) + 1 < len(facts.classes):
        return None
    names = few(map(repr, (line.name for line in unseen)))
    first = last if last in unseen else unseen[0]
    asked = repr(first.name) if len(unseen) == 1 else f"one of these, such as {first.name!r}"
    return Finding(
        "void-or-class",
        "warning",
        f"{VOID} is read as void, and no mask shows {names}.",
        f"Look at the masks: is {VOID} {asked}? If so, give it that value, which makes the classes file "
        f"{_in_words([line._replace(value=VOID) if line == first else line for line in facts.lines])}. If not, say so "
        f"with a line '{VOID} void'.",
        why="Void is neither learnt nor scored.",
        count=facts.holding(VOID),
        examples=examples(seen, facts, lambda held: VOID in held),
    )


def _in_words(lines: Sequence[ClassLine]) -> str:
    return ", ".join(f"`{line}`" for line in classes_file(lines).text.splitlines())


def _unnamed(seen: Examination, facts: LabelFacts) -> Finding | None:
    """The values of masks whose classes have no names yet."""
    values = facts.values
    if values[-1] > VOID or values[0] < 0 or not seen.survey.own_folder:
        return None
    lines = [ClassLine(value, name) for value, name in zip(values, made_up_names(values), strict=True)]
    if values == [0, VOID]:
        lines = [ClassLine(0, "background"), ClassLine(VOID, "thing")]
    elif VOID in values and len(values) > 2:
        lines[-1] = ClassLine(VOID, "void", void=True)
    cure = "Put the classes' names beside them."
    if len(values) == 1:
        lines, cure = [], "With one value there is nothing to tell apart: label something else, too."
    elif unnamed_pair(facts):
        lines, cure = [], f"Some masks hold 0 and {VOID} alone, others do not: store all of them alike first."
    return Finding(
        "unnamed-values",
        "note",
        f"The masks hold {plural(len(values), 'value')}: {few(values, 20)}.",
        cure,
        count=len(values),
        examples=examples(seen, facts, lambda held: values[-1] in held),
        mend=[classes_file(lines)] if lines else [],
    )
