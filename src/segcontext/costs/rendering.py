"""Rows as text, Markdown, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

__all__ = ["FORMATS", "Format", "cost_columns", "render", "table_columns"]

Format: TypeAlias = Literal["text", "markdown", "json", "csv"]

#: The formats of `render`.
FORMATS: tuple[Format, ...] = ("text", "markdown", "json", "csv")

Column: TypeAlias = tuple[str, Callable[[Mapping[str, Any]], str]]


def render(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], style: Format, *, below: Sequence[str] = ()
) -> str:
    """Writes rows out.

    Args:
        rows: plain values by name; JSON and CSV hold all of them.
        columns: headings with what a row shows under each, for text and Markdown.
        style: the format.
        below: lines under a table in text or Markdown, such as how its numbers are counted.

    Returns:
        The text, without a newline at its end.

    Example:
        >>> print(render([{"n": 7}], [("N", lambda row: str(row["n"]))], "markdown"))
        | N |
        |---|
        | 7 |
    """
    if style == "json":
        return json.dumps(list(rows), ensure_ascii=False, indent=2)
    if style == "csv":
        return _csv(rows)
    cells = [[heading for heading, _ in columns], *([show(row) for _, show in columns] for row in rows)]
    if style == "markdown":
        lines = [f"| {' | '.join(line)} |" for line in cells]
        rule = f"|---{'|---:' * (len(columns) - 1)}|"
        return "\n".join([lines[0], rule, *lines[1:], *(f"\n{line}" for line in below)])
    widths = [max(_width(line[place]) for line in cells) for place in range(len(columns))]
    shown = []
    for line in cells:
        first, *others = (
            cell + padding if place == 0 else padding + cell
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            for padding in (" " * (width - _width(cell)),)
        )
        shown.append("  ".join((first, *others)).rstrip())
    return "\n".join([shown[0], "-" * max(map(_width, shown)), *shown[1:], *(f"\n{line}" for line in below)])


def cost_columns(*, timed: bool) -> list[Column]:
    """What a table of a network's parts shows.

    Args:
        timed: whether there are latencies.
    """
    columns: list[Column] = [
        ("part", lambda row: str(row["part"])),
        ("parameters", lambda row: f"{row['parameters']:,}"),
        ("with buffers", lambda row: f"{row['parameters_with_buffers']:,}"),
        ("multiply-adds", lambda row: f"{row['multiply_adds'] / 1e9:.3f} G"),
        ("with small", lambda row: f"{row['with_small'] / 1e9:.3f} G"),
        ("training memory", lambda row: f"{row['training_memory'] / 2**20:.1f} MiB"),
        ("inference memory", lambda row: f"{row['inference_memory'] / 2**20:.1f} MiB"),
    ]
    if timed:
        columns.append(("latency", lambda row: "" if row["latency"] is None else f"{1000 * row['latency']:.2f} ms"))
    return columns


def table_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """What a paper's table beside ours shows.

    Args:
        rows: what `segcontext.costs.paper_table` gave.
    """
    columns: list[Column] = [("method", lambda row: str(row["method"]))]
    names = {"parameters": "parameters", "multiply_adds": "multiply-adds", "memory": "memory"}
    for column, heading in names.items():
        if f"{column}_printed" in rows[0]:
            columns.append((heading, _value(f"{column}_printed")))
            if any(row[f"paper_{column}"] is not None for row in rows):
                columns.append(("paper", _value(f"paper_{column}_printed")))
    if "latency" in rows[0]:
        columns.append(("latency", lambda row: f"{1000 * row['latency']:.1f} ms"))
        columns.append(("relative", lambda row: f"{row['relative_latency']:.2f}"))
        if any("paper_relative_latency" in row for row in rows):
            columns.append(("paper", lambda row: f"{row['paper_relative_latency']:.2f}"))
    return columns


def _value(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: "–" if row[name] is None else str(row[name])


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    # A row without a value, such as one that was not timed, has an empty cell.
    names = list(dict.fromkeys(name for row in rows for name in row))
    written = io.StringIO()
    writer = csv.DictWriter(written, names, lineterminator="\n")
    writer.writeheader()
    plain = {
        id(row): {name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in row.items()} for row in rows
    }
    writer.writerows(plain.values())
    return written.getvalue().rstrip("\n")


def _width(text: str) -> int:
    return sum(not unicodedata.combining(letter) for letter in text)
