"""What is wrong with a data set, what mends it, and the numbers behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import SEVERITIES, Finding, Severity
from segcontext.doctor.page import draw_page
from segcontext.doctor.recipe_lines import recipe_lines
from segcontext.doctor.tally import Tally
from segcontext.errors import OutputExists
from segcontext.files import atomic_path

__all__ = ["Diagnosis", "check_target"]

FORMAT = 1
# As many examples of a finding are written down; its count says how many there are.
_EXAMPLES = 50


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What an examination of a data set came to.

    Attributes:
        findings: what is wrong, from the worst to the mildest.
        seen: what was seen: files, counts, copies.
        seconds: how long it took.
    """

    findings: tuple[Finding, ...]
    seen: Examination
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether there is no error; warnings and notes may be there."""
        return not any(finding.severity == "error" for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """How many findings are so severe.

        Args:
            severity: ``error``, ``warning`` or ``note``.

        Returns:
            Their number.
        """
        return sum(finding.severity == severity for finding in self.findings)

    def mend(self) -> Mapping[str, str]:
        """The lines that mend what lines can mend, by the files they belong in.

        Returns:
            ``recipe.yaml`` always; ``classes.txt``, ``train.txt`` and others, and ``command`` where they help.
        """
        lines = {"recipe.yaml": recipe_lines(self.seen, self.findings)}
        for finding in self.findings:
            for mend in finding.mend:
                # Two findings about one file come from one mistake; the worse one knows it better.
                lines.setdefault(mend.file, mend.text)
        return lines

    def values(self) -> Mapping[str, Any]:
        """Everything as plain values, for JSON.

        Returns:
            A mapping of strings, numbers, lists and mappings.
        """
        survey = self.seen.survey
        return {
            "format": FORMAT,
            "data": survey.place,
            "dataset": survey.name,
            "classes": list(survey.classes),
            "images": len(survey.pairs),
            "examined": len(self.seen.records),
            "seconds": round(self.seconds, 1),
            **{f"{severity}s": self.count(severity) for severity in SEVERITIES},
            "findings": [_finding(finding) for finding in self.findings],
            "mend": dict(self.mend()),
            "splits": {
                split.name: {"images": len(split.items), **_tally(self.seen.tallies[split.name])}
                for split in survey.splits
            },
            "all": _tally(self.seen.whole),
        }

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the diagnosis; each file appears whole or not at all, the page last.

        ```text
        folder/
        ├── doctor.html             one page with pictures, which needs no other file
        ├── doctor.json             everything as numbers
        └── mend/                   the lines that mend it: recipe.yaml, classes.txt, train.txt, …
        ```

        Args:
            folder: where to.
            overwrite: whether an earlier diagnosis there is replaced.

        Raises:
            OutputExists: the folder holds something and `overwrite` is False, or it is a file.
        """
        target = Path(folder)
        check_target(target, overwrite=overwrite)
        # First, since it is what marks the folder as one that may be overwritten.
        with atomic_path(target / "doctor.json") as temporary:
            temporary.write_text(json.dumps(self.values(), indent=1, ensure_ascii=False), encoding="utf-8")
        for old in (target / "mend").glob("*"):
            # Lines of an earlier diagnosis may contradict these.
            old.unlink()
        for file, text in self.mend().items():
            with atomic_path(target / "mend" / (file if "." in file else f"{file}.txt")) as temporary:
                temporary.write_text(text, encoding="utf-8")
        page = draw_page(self.seen, self.findings, self.mend())
        with atomic_path(target / "doctor.html") as temporary:
            temporary.write_text(page, encoding="utf-8")


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuses a folder that the diagnosis must not be written to.

    Args:
        folder: where the diagnosis is to go.
        overwrite: whether an earlier one may be replaced.

    Raises:
        OutputExists: the folder is a file, or holds something that is not to be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file, but a folder is needed for the diagnosis: choose another (--out).")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and not overwrite:
        raise OutputExists(f"{folder} is not empty: choose another folder (--out), or allow overwriting (--overwrite).")
    if there and "doctor.json" not in there:
        raise OutputExists(f"{folder} holds something else than an earlier diagnosis: choose another folder (--out).")


def _finding(finding: Finding) -> Mapping[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "title": finding.title,
        "why": finding.why,
        "cure": finding.cure,
        "count": finding.count,
        "examples": [
            {key: value for key, value in example._asdict().items() if value}
            for example in finding.examples[:_EXAMPLES]
        ],
        "mend": {mend.file: mend.text for mend in finding.mend},
    }


def _tally(tally: Tally) -> Mapping[str, Any]:
    return {
        "read": tally.images,
        "masks": tally.masks,
        "pixels": tally.pixels.tolist(),
        "void": tally.void,
        "masks_with_class": tally.presence.tolist(),
        "objects": [dict(_bins(row)) for row in tally.objects],
        **({key: list(values) for key, values in tally.channels().items()} if tally.images else {}),
        "sizes": {f"{width}x{height}": count for (width, height), count in tally.sizes.most_common(50)},
        "modes": dict(tally.modes),
        "mask_modes": dict(tally.mask_modes),
        "mask_values": {str(value): count for value, count in sorted(tally.values.items())},
    }


def _bins(row: np.ndarray[Any, Any]) -> Iterator[tuple[str, int]]:
    """Smallest size of each bin that holds regions, and how many it holds."""
    for place, count in enumerate(row.tolist()):
        if count:
            yield str(2**place), count
