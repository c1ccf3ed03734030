"""What a run leaves to be read: tables, pictures, curves and one page of Markdown."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from segcontext.checkpoint import load_model
from segcontext.data import Dataset
from segcontext.evaluation import Evaluation, evaluate
from segcontext.evaluation.provenance import provenance
from segcontext.files import atomic_path
from segcontext.recipe import Recipe
from segcontext.training.state import Progress

__all__ = ["draw_curves", "write_report"]


def write_report(
    folder: Path, recipe: Recipe, progress: Progress, val: Dataset, *, console: Console, primary: bool = True
) -> Evaluation:
    """Evaluates the best weights once more, with tables and pictures, and writes ``report.md``.

    Args:
        folder: the run's folder.
        recipe: its recipe.
        progress: how far it came.
        val: the validation split.
        console: where progress is shown.
        primary: whether this process writes; every process of a distributed run evaluates its share.

    Returns:
        The evaluation.
    """
    model = load_model(folder, which="best")
    device = "cuda" if torch.cuda.is_available() and recipe.accelerator != "cpu" else "cpu"
    found = evaluate(
        model,
        val,
        device=device,
        limit=recipe.val_limit or None,
        precision="bf16" if recipe.precision == "bf16" else None,
        console=console,
        progress=primary and not console.quiet,
        weights=folder / "weights" / "best.safetensors",
    )
    if not primary:
        return found
    found.save(folder / "validation", overwrite=True)
    draw_curves(folder / "metrics.csv", folder / "curves.png")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    images = recipe.batch * progress.step
    keys = "\n".join(f"| {key} | {value} |" for key, value in dataclasses.asdict(recipe).items())
    classes = "\n".join(
        f"| {name} | {_percent(iou)} | {_percent(accuracy)} |"
        for name, iou, accuracy in zip(found.classes, found.scores.iou, found.scores.accuracy, strict=True)
    )
    program = provenance()
    commit = f", commit {program['commit']}" if program["commit"] else ""
    text = f"""# {recipe.model} on {found.dataset}

**Validation mIoU {100 * found.scores.miou:.2f} %** at step {progress.best_step} of {progress.total}
({found.images} images, {found.protocol}); pixel accuracy {100 * found.scores.pixel_accuracy:.2f} %, mean accuracy
{100 * found.scores.mean_accuracy:.2f} %, frequency-weighted IoU {100 * found.scores.frequency_weighted_iou:.2f} %.

Trained for {progress.step} steps ({images} images) in {progress.seconds / 60:.1f} minutes; {parameters:,} parameters,
output stride {model.backbone.output_stride}. segcontext {program["version"]}{commit}.

![curves](curves.png)

![samples: image, truth, prediction, error](validation/pictures/overview.png)

## Classes

| class | IoU % | accuracy % |
|---|---|---|
{classes}

![confusion matrix](validation/confusion.png)

## Use it

```python
import segcontext
model = segcontext.load_model("{folder}")
prediction = segcontext.Predictor(model)("image.jpg")
```

```text
segcontext predict {folder} image.jpg --out predictions
segcontext evaluate {folder} --data FOLDER
```

## Recipe

| key | value |
|---|---|
{keys}
"""
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return found


def _percent(share: Tensor) -> str:
    return "–" if share.isnan() else f"{100 * share:.1f}"


def draw_curves(metrics: Path, out: Path) -> None:
    """Draws loss and validation scores against steps, with the time on top.

    Args:
        metrics: a run's ``metrics.csv``.
        out: the picture.
    """
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = [(int(row["step"]), float(row["loss"])) for row in rows if row["loss"]]
    left.plot(*zip(*losses, strict=True) if losses else ((), ()), color="tab:grey", linewidth=1)
    left.set(xlabel="step", ylabel="training loss")
    for key, label in (("val_miou", "mIoU"), ("val_pixel_accuracy", "pixel accuracy")):
        points = [(float(row["seconds"]) / 60, 100 * float(row[key])) for row in rows if row[key]]
        right.plot(*zip(*points, strict=True) if points else ((), ()), marker=".", label=label)
    right.set(xlabel="minutes", ylabel="validation, %")
    right.grid(alpha=0.3)
    right.legend()
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=110)
