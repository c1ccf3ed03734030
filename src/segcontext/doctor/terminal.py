"""The diagnosis on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segcontext.doctor.diagnosis import Diagnosis
from segcontext.doctor.finding import SEVERITIES, Finding
from segcontext.doctor.words import number, plural, share
from segcontext.pictures import default_palette

__all__ = ["print_diagnosis"]

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_LONGEST, _SHOWN = 40, 3


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Prints the tables, the findings, and the lines that mend them.

    Args:
        diagnosis: what to print.
        console: where to.
    """
    seen = diagnosis.seen
    console.print(_splits(diagnosis))
    if seen.survey.classes and seen.whole.labelled:
        console.print(_classes(diagnosis))
    for finding in diagnosis.findings:
        _finding(finding, console)
    for file, text in diagnosis.mend().items():
        lines = text.splitlines()
        console.print(f"\n[bold]{escape(file)}[/]", highlight=False)
        for line in lines[:_LONGEST]:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
        if len(lines) > _LONGEST:
            console.print(f"  … {len(lines) - _LONGEST} more lines, all of them in the folder mend/", highlight=False)
    counts = [plural(diagnosis.count(severity), severity) for severity in SEVERITIES if diagnosis.count(severity)]
    verdict = ", ".join(counts) or "Nothing is wrong"
    console.print(
        f"\n{verdict}. {number(len(seen.records))} of {plural(len(seen.survey.pairs), 'image')} examined in "
        f"{diagnosis.seconds:.1f} s.",
        highlight=False,
    )


def _splits(diagnosis: Diagnosis) -> Table:
    seen = diagnosis.seen
    table = Table("split", title=f"{seen.survey.name}: {seen.survey.place}", title_justify="left")
    for head in ("images", "read", "masks", "void", "mean", "deviation"):
        table.add_column(head, justify="right")
    for split in seen.survey.splits:
        tally = seen.tallies[split.name]
        channels = tally.channels()
        table.add_row(
            split.name,
            *(number(count) for count in (len(split.items), tally.images, tally.masks)),
            share(tally.void, tally.void + tally.labelled),
            *(" ".join(f"{value:.3f}" for value in channels[key]) for key in ("mean", "deviation")),
        )
    return table


def _classes(diagnosis: Diagnosis) -> Table:
    seen = diagnosis.seen
    tallies = {split.name: seen.tallies[split.name] for split in seen.survey.splits}
    labelled = {name: tally for name, tally in tallies.items() if tally.labelled}
    table = Table("class")
    for head in (*(f"pixels in {name}" for name in labelled), "masks", "regions"):
        table.add_column(head, justify="right")
    palette = seen.survey.palette or default_palette(len(seen.survey.classes))
    for index, name in enumerate(seen.survey.classes):
        red, green, blue = palette[index]
        table.add_row(
            Text.assemble(("■ ", f"rgb({red},{green},{blue})"), f"{index} {name}"),
            *(share(int(tally.pixels[index]), tally.labelled) for tally in labelled.values()),
            number(int(seen.whole.presence[index])),
            number(int(seen.whole.objects[index].sum())),
        )
    return table


def _finding(finding: Finding, console: Console) -> None:
    style = _COLOURS[finding.severity]
    console.print(
        f"\n[{style}]{finding.severity}[/] {escape(finding.title)} [dim]{finding.code}[/]",
        highlight=False,
        soft_wrap=True,
    )
    for text in (finding.why, finding.cure):
        if text:
            console.print(f"  {escape(text)}", highlight=False, soft_wrap=True)
    for example in finding.examples[:_SHOWN]:
        console.print(f"  [dim]{escape(str(example))}[/]", highlight=False, soft_wrap=True)
    if len(finding.examples) > _SHOWN:
        console.print(f"  [dim]and {number(len(finding.examples) - _SHOWN)} more[/]", highlight=False)
