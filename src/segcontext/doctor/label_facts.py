"""What the values in the masks are, beside what the classes file says they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from segcontext.data.masks import VOID
from segcontext.doctor.classes_file import ClassLine
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Example
from segcontext.doctor.words import few

__all__ = ["Held", "LabelFacts", "examples", "label_facts"]

#: The values that one mask holds.
Held: TypeAlias = frozenset[int]


class LabelFacts(NamedTuple):
    """The values of the masks, and the classes of a folder of one's own.

    Attributes:
        lines: of the classes file; none for published data sets and where there is no such file.
        known: raw values to class indices, 255 for void.
        masks: sets of values, and how many masks hold exactly these.
    """

    lines: Sequence[ClassLine]
    known: Mapping[int, int]
    masks: Counter[Held]

    @property
    def values(self) -> list[int]:
        """All values, rising."""
        return sorted(frozenset().union(*self.masks))

    @property
    def wrong(self) -> list[int]:
        """The values that are neither a class nor void, rising."""
        return [value for value in self.values if self.is_wrong(value)]

    @property
    def classes(self) -> list[ClassLine]:
        """The lines that are classes."""
        return [line for line in self.lines if not line.void]

    @property
    def voids(self) -> list[ClassLine]:
        """The lines that are void."""
        return [line for line in self.lines if line.void]

    @property
    def unseen(self) -> list[ClassLine]:
        """The classes that no mask shows."""
        values = set(self.values)
        return [line for line in self.classes if line.value not in values]

    @property
    def plain(self) -> bool:
        """Whether the classes have the values 0, 1, 2 …, as in a list of names alone."""
        return [line.value for line in self.classes] == list(range(len(self.classes)))

    @property
    def void_is_said(self) -> bool:
        """Whether the classes file itself says that 255 is void, so that nobody needs to ask."""
        return any(line.value == VOID for line in self.voids)

    def is_class(self, value: int) -> bool:
        """Whether a value is that of a class."""
        return self.known.get(value, VOID) != VOID

    def is_void(self, value: int) -> bool:
        """Whether a value is void."""
        return self.known.get(value) == VOID

    def is_wrong(self, value: int) -> bool:
        """Whether a value is neither."""
        return value not in self.known

    def is_slip(self, value: int) -> bool:
        """Whether a value that is no class is in a few masks alone, beside those that hold 255."""
        return self.is_wrong(value) and 3 * self.holding(value) <= self.holding(VOID)

    def count(self, wanted: Callable[[Held], bool]) -> int:
        """How many masks are so."""
        return sum(count for held, count in self.masks.items() if wanted(held))

    def holding(self, value: int) -> int:
        """How many masks hold a value."""
        return self.count(lambda held: value in held)

    def without(self, unwanted: Callable[[Held], bool]) -> LabelFacts:
        """The same without some of the masks."""
        return self._replace(masks=Counter({held: n for held, n in self.masks.items() if not unwanted(held)}))


def label_facts(seen: Examination) -> LabelFacts:
    """Gathers the values of the masks that were read as labels.

    Args:
        seen: what was seen in the data set.

    Returns:
        The facts. Masks with many values that are no class are left out.
    """
    masks = Counter(frozenset(mask.values) for _, mask in seen.masks())
    return LabelFacts(seen.survey.lines, seen.survey.label_map(), masks)


def examples(seen: Examination, facts: LabelFacts, wanted: Callable[[Held], bool]) -> list[Example]:
    """The masks whose values are so, as examples of a finding.

    Args:
        seen: what was seen in the data set.
        facts: the values of the masks; others are left out.
        wanted: which masks.

    Returns:
        The examples.
    """
    return [
        record.example(f"holds {few(mask.values, 12)}")
        for record, mask in seen.masks()
        if frozenset(mask.values) in facts.masks and wanted(frozenset(mask.values))
    ]
