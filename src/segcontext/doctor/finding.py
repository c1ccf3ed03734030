"""One thing that is wrong with a data set, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["SEVERITIES", "Example", "Finding", "Mend", "Severity", "in_order"]

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Example(NamedTuple):
    """Files that show a finding, as paths relative to the data set's folder.

    Attributes:
        image: an image, if it is about one.
        mask: a mask, if it is about one.
        other: the second image of a pair that looks alike.
        other_mask: its mask.
        remark: what is to be seen in them.
    """

    image: str | None = None
    mask: str | None = None
    other: str | None = None
    other_mask: str | None = None
    remark: str = ""

    def __str__(self) -> str:
        files = ", ".join(path for path in (self.image, self.mask, self.other, self.other_mask) if path)
        return f"{files}: {self.remark}" if files and self.remark else files or self.remark


class Mend(NamedTuple):
    """Lines that mend something.

    Attributes:
        file: where they belong: ``classes.txt``, ``recipe.yaml``, ``train.txt``, … or ``command``.
        text: the lines, with a line break at the end of each.
    """

    file: str
    text: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Attributes:
        code: its name, such as ``off-by-one``; it does not change from version to version.
        severity: ``error`` stops a training or makes it meaningless, ``warning`` harms it, ``note`` is worth knowing.
        title: what is wrong, in one sentence.
        cure: what to do.
        why: what it does to a training, or how it was told.
        count: how many files, classes or lines it concerns.
        examples: some of them.
        mend: the lines that mend it, where lines can.
    """

    code: str
    severity: Severity
    title: str
    cure: str
    why: str = ""
    count: int = 1
    examples: Sequence[Example] = ()
    mend: Sequence[Mend] = ()


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings from the worst to the mildest; of one severity, in the order they came.

    Args:
        findings: the findings.

    Returns:
        The same.

    Example:
        >>> note, error = Finding("b", "note", "", ""), Finding("a", "error", "", "")
        >>> [finding.code for finding in in_order([note, error])]
        ['a', 'b']
    """
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
