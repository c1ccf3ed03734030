"""Text and tables as files, whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segcontext.evaluation.words import or_none
from segcontext.files import atomic_path

__all__ = ["write_csv", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Writes a text file.

    Args:
        path: the file; missing folders are made, an earlier file is replaced.
        text: what it holds.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table; numbers that do not exist become empty cells.

    Args:
        path: the file; missing folders are made, an earlier file is replaced.
        rows: the heading and the rows.
    """
    buffer = io.StringIO()
    cells = (["" if or_none(value) is None else value for value in row] for row in rows)
    csv.writer(buffer, lineterminator="\n").writerows(cells)
    write_text(path, buffer.getvalue())
