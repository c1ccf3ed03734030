"""What ``segcontext import-weights`` and ``segcontext export-weights`` do with their options."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

__all__ = ["run_export_weights", "run_import_weights"]


def run_import_weights(given: dict[str, Any], console: Console) -> int:
    """``segcontext import-weights``: brings somebody else's weight file into a run folder."""
    from segcontext.importing import import_run

    found = import_run(given.pop("file"), given["out"], **{key: given[key] for key in given if key != "out"})
    for note in found.notes:
        console.print(f"[yellow]Assumed[/]: {escape(note)}", highlight=False, soft_wrap=True)
    named = f" ({escape(', '.join(found.model.classes[:3]))}, …)" if found.model.classes else ", unnamed"
    console.print(
        f"{escape(found.layout.title)}, {found.options['backbone']}, {found.model.num_classes} classes{named}: "
        f"{escape(str(given['out']))}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def run_export_weights(given: dict[str, Any], console: Console) -> int:
    """``segcontext export-weights``: writes a run's weights in somebody else's layout."""
    from segcontext.checkpoint import load_model
    from segcontext.importing.exporting import write_weights

    model = load_model(given["run"], which=given.get("which", "best"))
    differing = write_weights(model, given["out"], layout=given["layout"], overwrite=given.get("overwrite", False))
    if differing:
        console.print("[yellow]The code that this file is for has another network in these places[/]:", highlight=False)
        for line in differing:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    console.print(
        f"Weights of {escape(str(given['run']))} as {given['layout']}: {escape(str(given['out']))}",
        highlight=False,
        soft_wrap=True,
    )
    return 0
