"""Run folders of imported networks: weights, the recipe to go on with, and a page that says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from segcontext.checkpoint import save_model, write_network
from segcontext.errors import OutputExists
from segcontext.files import atomic_path
from segcontext.importing.recognition import Imported, load
from segcontext.recipe import Recipe

__all__ = ["import_run"]


def import_run(
    file: str | Path, out: str | Path, *, align_corners: bool | None = None, dataset: str | None = None
) -> Imported:
    """Brings somebody else's weight file into a run folder of its own.

    The folder holds ``weights/best.safetensors`` and ``weights/last.safetensors`` (the same), ``model.json``,
    ``recipe.yaml`` (the network's keys, and what is known of its training) and ``report.md``. Evaluation, prediction
    and `segcontext.load_model` take it like any other run; ``segcontext train --config RUN/recipe.yaml --init RUN``
    trains on from it.

    Args:
        file: as for `segcontext.import_weights`.
        out: the folder; it must not hold anything yet.
        align_corners: as there.
        dataset: as there; it is also what the recipe names.

    Returns:
        The network, and what was recognised and assumed.

    Raises:
        OutputExists: the folder holds something.
        WeightsError: as for `segcontext.import_weights`.
        RecipeError: likewise.
    """
    folder = Path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputExists(f"{folder} is not empty: choose another folder (--out) for the imported run.")
    found = load(file, align_corners=align_corners, dataset=dataset)
    source = Path(file)
    with source.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    best, last = (folder / "weights" / f"{name}.safetensors" for name in ("best", "last"))
    save_model(best, found.model, imported={"layout": found.layout.name, "file": source.name, "sha256": digest})
    try:
        os.link(best, last)
    except OSError:  # a file system without links
        shutil.copyfile(best, last)
    write_network(folder, found.model)
    keys = recipe_keys(found, dataset)
    header = (
        f"# {found.layout.title}, imported from {source.name}.\n"
        f"# Train on from it: segcontext train --config {folder}/recipe.yaml --init {folder} --data FOLDER --out NEW\n"
    )
    with atomic_path(folder / "recipe.yaml") as temporary:
        text = yaml.safe_dump(keys, sort_keys=False, default_flow_style=None, width=110)
        temporary.write_text(header + text, encoding="utf-8")
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text(_report(found, source, digest, folder), encoding="utf-8")
    return found


def recipe_keys(found: Imported, dataset: str | None) -> dict[str, Any]:
    """The keys of a recipe that builds the network, and those of its training that are known."""
    fields = {field.name for field in dataclasses.fields(Recipe)}
    own = {name: value for name, value in found.options.items() if name in fields}
    further = {name: value for name, value in found.options.items() if name not in fields}
    named = {} if dataset is None else {"dataset": dataset}
    keys = {"model": found.layout.model, **own, "model_options": further, **named, **found.layout.training}
    plain: dict[str, Any] = _lists(keys)
    return plain


def _lists(value: Any) -> Any:
    """The same with lists for tuples, which YAML does not know."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _report(found: Imported, source: Path, digest: str, folder: Path) -> str:
    model = found.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    options = "\n".join(f"| {name} | {value} |" for name, value in found.options.items())
    notes = "".join(f"\nAssumed: {note}\n" for note in found.notes)
    return f"""# {found.layout.title}

Imported from `{source.name}` (SHA-256 `{digest}`), recognised as `{found.layout.name}`: {model.num_classes} classes,
{parameters:,} parameters. The network computes what the source network computes.
{notes}
```text
segcontext evaluate {folder} --data FOLDER
segcontext predict {folder} photos/*.jpg --out masks
segcontext train --config {folder / "recipe.yaml"} --init {folder} --data FOLDER --out NEW
segcontext export-weights {folder} --layout {found.layout.name} --out FILE.pth
```

## Options of `{found.layout.model}`

| option | value |
|---|---|
{options}
"""
