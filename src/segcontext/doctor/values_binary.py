"""Names the mistakes about binary masks that hold 0 and 255, or 0 and 1."""

from __future__ import annotations

from segcontext.data.masks import VOID
from segcontext.doctor.classes_file import classes_file, void_lines
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Finding, Mend
from segcontext.doctor.label_facts import Held, LabelFacts, examples
from segcontext.doctor.words import few, plural, verb

__all__ = ["binary", "some_binary", "unnamed_pair"]

_PAIR: Held = frozenset((0, VOID))
_ONES: Held = frozenset((0, 1))


def binary(seen: Examination, facts: LabelFacts) -> Finding | None:
    """Masks of 0 and 255 where 255 is read as void, and masks of 0 and 1 where the classes file says 255.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks.

    Returns:
        The mistake.
    """
    names, values = seen.survey.classes, facts.values
    if len(names) < 2:
        return None
    if facts.is_class(VOID):
        return _reversed(seen, facts)
    others = [value for value in values if value not in _PAIR]
    # A slip in a few masks does not hide what all of them are.
    slips = [value for value in others if facts.is_slip(value)]
    odd = any(value not in slips and not facts.is_void(value) for value in others)
    if not _PAIR.issubset(values) or odd or (len(names) > 2 and (slips or facts.is_void(0))):
        return None
    own = seen.survey.own_folder
    first, second = _pair_of(facts) if own else (names[0], names[1])
    mend = _as_pair(facts, slips) if own else []
    advice = f"Say that {VOID} is {second!r}."
    if len(names) > 2:
        advice = f"Say which class {VOID} is" + (
            f": the lines below take {second!r}; if it is another one, give that the value {VOID} instead."
            if mend
            else "."
        )
    return Finding(
        "binary-0-255",
        "error",
        f"The masks hold 0 and {VOID} alone, and {VOID} means void."
        if not slips
        else f"Most masks hold 0 and {VOID} alone, and {VOID} means void; others hold {few(slips)}, too.",
        advice,
        why=(
            f"Every pixel that is not {first!r} is ignored, so a network learns to answer {first!r} everywhere."
            if facts.is_class(0)
            else "0 is no class either, so there is nothing to learn."
        ),
        count=facts.count(lambda held: VOID in held),
        examples=examples(seen, facts, lambda held: VOID in held),
        mend=mend,
    )


def some_binary(seen: Examination, facts: LabelFacts) -> tuple[Finding | None, LabelFacts]:
    """Masks of two kinds: some hold 0 and 255 for what others call 0 and 1, or other classes.

    Where 255 is void, it would be found beside other classes than 0, too.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks of a folder of one's own.

    Returns:
        The mistake, and the facts without those masks.
    """
    if facts.is_class(VOID):
        return _some_ones(seen, facts)
    if facts.void_is_said or not _mixed(facts):
        return None, facts
    count, rest = facts.masks[_PAIR], facts.count(lambda held: VOID not in held)
    things = [line for line in facts.classes if line.value != 0]
    finding = Finding(
        "binary-0-255",
        "error",
        f"{plural(count, 'mask')} {verb(count, 'hold')} 0 and {VOID} alone, while {plural(rest, 'mask')} "
        f"{verb(rest, 'hold')} other values and no {VOID}.",
        (
            f"Look whether {VOID} is {things[0].name!r} in them; if so, store {things[0].value} in its place."
            if len(things) == 1
            else f"Look which class {VOID} is in them, and store its value in its place."
        )
        + f" If it is void, say so with a line '{VOID} void' in the classes file.",
        why=f"{VOID} is read as void, so what it stands for is not learnt from these masks. A classes file cannot give "
        "a class two values.",
        count=count,
        examples=examples(seen, facts, lambda held: held == _PAIR),
    )
    return finding, facts.without(lambda held: VOID in held)


def unnamed_pair(facts: LabelFacts) -> bool:
    """Whether some masks hold 0 and 255 alone, and others hold other values but never 255.

    Args:
        facts: the values of masks whose classes are not known.

    Returns:
        Whether these are two kinds of masks.
    """
    return (
        facts.masks[_PAIR] > 0 and any(held - {0} for held in facts.masks if VOID not in held) and _never_beside(facts)
    )


def _mixed(facts: LabelFacts) -> bool:
    others = frozenset[int]().union(*(held for held in facts.masks if VOID not in held)) - {0}
    # Beside two classes a rare value is a slip, of which the check of all masks tells.
    slips = {value for value in others if facts.is_void(value) or (len(facts.classes) == 2 and facts.is_slip(value))}
    return facts.masks[_PAIR] > 0 and others > slips and _never_beside(facts)


def _never_beside(facts: LabelFacts) -> bool:
    """Whether 255 is never in one mask with another value than 0."""
    return all(held <= _PAIR for held in facts.masks if VOID in held)


def _some_ones(seen: Examination, facts: LabelFacts) -> tuple[Finding | None, LabelFacts]:
    ones = facts.count(lambda held: held == _ONES)
    fits = [line.value for line in facts.classes] == [0, VOID] and not facts.is_void(1)
    if not fits or not ones or VOID not in facts.values or any(1 in held and VOID in held for held in facts.masks):
        return None, facts
    finding = Finding(
        "binary-0-255",
        "error",
        f"{plural(ones, 'mask')} {verb(ones, 'hold')} 0 and 1, while the others hold 0 and {VOID}.",
        f"Look whether 1 is {facts.classes[1].name!r} in them; if so, store {VOID} in its place.",
        why="A classes file cannot give a class two values.",
        count=ones,
        examples=examples(seen, facts, lambda held: held == _ONES),
    )
    return finding, facts.without(lambda held: 1 in held)


def _reversed(seen: Examination, facts: LabelFacts) -> Finding | None:
    if [line.value for line in facts.classes] != [0, VOID] or not {1} <= set(facts.values) <= _ONES:
        return None
    if facts.is_void(1):
        return None
    ground, thing = facts.classes
    return Finding(
        "binary-0-255",
        "error",
        f"The masks hold 0 and 1, and the classes file says {VOID} for {thing.name!r}.",
        f"Say that 1 is {thing.name!r}.",
        why=f"{VOID} is in no mask, and 1 means nothing.",
        count=facts.holding(1),
        examples=examples(seen, facts, lambda held: 1 in held),
        mend=[classes_file([ground, thing._replace(value=1), *facts.voids])],
    )


def _pair_of(facts: LabelFacts) -> tuple[str, str]:
    """Names of the classes that 0 and 255 stand for: 0 as the file says, if it does, and the next one."""
    classes = facts.classes
    place = next((place for place, line in enumerate(classes) if line.value == 0), 0)
    first = classes[place]
    return first.name, (classes[place + 1] if place + 1 < len(classes) else classes[0]).name


def _as_pair(facts: LabelFacts, slips: list[int]) -> list[Mend]:
    """Every line there is, with 0 and 255 for two classes and void for slips."""
    first, second = _pair_of(facts)
    values = {first: 0, second: VOID}
    kept = [line for line in facts.lines if not (line.void and line.value in _PAIR)]
    lines = [line._replace(value=values.get(line.name, line.value)) for line in kept]
    more = void_lines(slips, lines)
    return [] if more is None else [classes_file([*lines, *more])]
