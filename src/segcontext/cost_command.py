"""What ``segcontext cost`` does with its options."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from rich.console import Console

from segcontext.devices import usable_device
from segcontext.errors import RecipeError, SegContextError
from segcontext.recipe import Recipe
from segcontext.recipe_file import read_recipe, read_yaml

__all__ = ["run_cost"]

# Options that a paper's table settles by itself.
_OF_A_NETWORK = ("source", "model", "backbone", "output_stride", "options", "num_classes", "size", "batch")


def run_cost(given: dict[str, Any], console: Console) -> int:
    """``segcontext cost``: counts what a network costs, or prints a paper's table beside ours."""
    from segcontext.costs import CONVENTION, cost, cost_columns, paper_table, render, table_columns

    style, timed = given.pop("format", "text"), given.pop("latency", False)
    for name in ("device", "rounds"):
        if name in given and not timed:
            raise RecipeError(f"--{name} is for the latency: ask for it (--latency), or leave that out.")
    rounds, device = given.pop("rounds", 10), usable_device(given.pop("device", None)) if timed else "cpu"
    below = [] if not timed else [f"Latency: median of {rounds} rounds on {_name(device)}, batch of {{batch}}."]
    if "table" in given:
        for name in _OF_A_NETWORK:
            if name in given:
                word = "the source" if name == "source" else f"--{name}"
                raise RecipeError(f"--table prints a paper's networks at the paper's size: leave {word} out.")
        rows = paper_table(given["table"], timed=timed, device=device, rounds=rounds)
        notes = [f"{row['method']}: {row['note']}" for row in rows if row["note"]]
        below = [*notes, *(line.format(batch=1) for line in below), _TABLE_CONVENTION]
        text = render(rows, table_columns(rows), style, below=below)
    else:
        batch = given.get("batch", 1)
        model, size = _network(given, "cpu" if timed else "meta")
        # Named only once the network stands, so that a wrong name is heard of first.
        found = cost(model.to(device) if timed else model, size, batch=batch, timed=timed, rounds=rounds)
        classes = getattr(model, "num_classes", None)
        sized = f"{size[0]}×{size[1]} pixels, batch of {batch}" + (f", {classes} classes" if classes else "")
        below = [f"{sized}. {CONVENTION}", *(x.format(batch=batch) for x in below)]
        if found.unlisted:
            below.append(f"Not known, and counted 1 per element of the result: {', '.join(found.unlisted)}.")
        text = render(found.rows(), cost_columns(timed=timed), style, below=below)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0


_TABLE_CONVENTION = (
    "Counted as the papers count. EMANet: multiply-adds of convolutions, and per value 1 for biases, ReLU and pooling, "
    "2 for batch norm; the products of its own unit, nobody else's; memory is what the layers put out, in units of "
    "2²⁰ bytes. GALD prints parameters; the multiply-adds beside them are those of convolutions and matrix products."
)


def _network(given: dict[str, Any], device: str) -> tuple[Any, tuple[int, int]]:
    """The network that is asked for, and the size of its images."""
    source, name = given.get("source"), given.get("model")
    if (source is None) == (name is None):
        raise RecipeError(
            "Say which network: a recipe, a run folder or a weight file, or --model NAME; "
            f"{'not both' if source else 'or --table emanet for a paper'}."
        )
    size = given.get("size")
    if size is not None and len(size) > 2:
        raise RecipeError(f"--size takes height and width, or one side, not {len(size)} numbers.")
    asked = {key: given[key] for key in ("backbone", "output_stride") if key in given} | given.get("options", {})
    shape = (513, 513) if size is None else (size[0], size[-1])
    path = Path(source or "")
    if source is not None and (path.is_dir() or path.suffix == ".safetensors"):
        return _trained(path, given, asked, shape)
    if source is None:
        return _built(str(name), asked, given.get("num_classes", 21), device), shape
    # A recipe need not say here what it would train on.
    written = read_recipe(path)
    recipe = Recipe.from_mapping({"data": "demo", **written}, source=str(path))
    classes = given.get("num_classes") or (_classes_of(recipe) if {"data", "dataset"} & set(written) else 21)
    network = _built(recipe.model, {**recipe.network(), **asked}, classes, device)
    return network, recipe.crop_size if size is None else shape


def _classes_of(recipe: Recipe) -> int:
    """As many classes as the recipe's data have: those that lie there, or those of the data set that it names."""
    from segcontext.data import DATASETS, open_dataset

    with contextlib.suppress(SegContextError, OSError):
        return len(open_dataset(recipe.data_path, recipe.train_split, dataset=recipe.dataset).classes)
    named = {kind.name: len(kind.classes) for kind in DATASETS}
    return named.get(recipe.dataset) or named.get(recipe.data) or 21


def _built(name: str, options: dict[str, Any], classes: int, device: str) -> Any:
    import torch

    from segcontext.zoo import build

    with torch.device(device):
        return build(name, classes, {**options, "pretrained": False, "weights": None})


def _trained(path: Path, given: dict[str, Any], asked: dict[str, Any], shape: tuple[int, int]) -> tuple[Any, Any]:
    from segcontext.checkpoint import load_model

    idle = [name for name in ("backbone", "options", "num_classes") if name in given]
    if idle:
        raise RecipeError(f"--{idle[0]} cannot change a network that is trained: leave it out, or give its recipe.")
    trust = [package for package in given.get("trust", "").split(",") if package]
    model = load_model(path, output_stride=asked.get("output_stride"), trust=trust)
    written = path / "recipe.yaml"
    if "size" not in given and written.is_file():
        shape = Recipe.from_mapping(read_yaml(written), source=str(written)).crop_size
    return model, shape


def _name(device: str) -> str:
    import platform

    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
