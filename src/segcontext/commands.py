"""What each command does with its options.

Every function takes the options that were given and a console, and returns the exit code. What is heavy is imported
inside them, so that help and errors come at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from segcontext.cost_command import run_cost
from segcontext.data_commands import run_convert, run_doctor
from segcontext.errors import RecipeError
from segcontext.gpu_command import run_check_gpu
from segcontext.prediction_commands import run_evaluate, run_predict, run_submit
from segcontext.recipe import Recipe
from segcontext.recipe_file import headline, read_recipe, shipped_recipes
from segcontext.weight_commands import run_export_weights, run_import_weights

__all__ = ["COMMANDS"]


def run_train(given: dict[str, Any], console: Console) -> int:
    """``segcontext train``: trains by a recipe and the keys beside it."""
    from segcontext.training import is_primary, train

    out, resume, overwrite = given.pop("out"), given.pop("resume", False), given.pop("overwrite", False)
    if resume and overwrite:
        raise RecipeError("--resume goes on with the run, --overwrite deletes it: give one of the two.")
    config = given.pop("config", None)
    written = Path(out) / "recipe.yaml"
    source = config or (written if resume and written.is_file() else None)
    values = read_recipe(source) if source else {}
    # A run that is resumed keeps its own recipe; a change would be refused by name.
    values = {**values, **given} if source == written else _overridden(values, given)
    recipe = Recipe.from_mapping(values, source=str(source or "the command line"))
    result = train(recipe, out, resume=resume, overwrite=overwrite, console=console)
    if not is_primary():
        return 0
    console.print(
        f"Best validation mIoU [bold]{100 * result.best:.2f} %[/] at step {result.best_step} of {result.step}; "
        f"{result.seconds / 60:.1f} minutes. Read {escape(str(result.folder / 'report.md'))}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _overridden(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A recipe file's values with those of the command line, less those that go with what was replaced."""
    kept = dict(values)
    for part in ("aggregation", "distribution"):
        if part in given and given[part] != values.get(part):
            kept.pop(f"{part}_options", None)
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        # 0 asks for nothing, so the file's other one counts.
        if given.get(key):
            kept.pop(other, None)
    return {**kept, **given}


def run_recipes(given: dict[str, Any], console: Console) -> int:
    """``segcontext recipes``: lists the recipes that come with the package, each with its first line of comment."""
    lines = {name: headline(path) for name, path in shipped_recipes().items()}
    words = [word.lower() for word in given.get("words", ())]
    found = {name: line for name, line in lines.items() if all(word in f"{name} {line}".lower() for word in words)}
    if not found:
        raise RecipeError(f"None of the {len(lines)} recipes holds {' and '.join(words)} in its name or first line.")
    for name, line in found.items():
        console.print(f"{name:<{max(map(len, found))}}  {line}", markup=False, highlight=False, soft_wrap=True)
    return 0


def run_demo(given: dict[str, Any], console: Console) -> int:
    """``segcontext demo``."""
    from segcontext.demo import demo

    demo(given.pop("out", "runs/demo"), console=console, **given)
    return 0


COMMANDS = {
    "train": run_train,
    "recipes": run_recipes,
    "evaluate": run_evaluate,
    "predict": run_predict,
    "submit": run_submit,
    "doctor": run_doctor,
    "convert": run_convert,
    "cost": run_cost,
    "check-gpu": run_check_gpu,
    "import-weights": run_import_weights,
    "export-weights": run_export_weights,
    "demo": run_demo,
}
