"""What a run trains: the network, tried before anything is begun, its class weights, and the weights it starts from."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from segcontext.checkpoint import load_tensors
from segcontext.data import Dataset, class_frequencies, class_weights
from segcontext.errors import CheckpointError, RecipeError, SegContextError, ShapeError
from segcontext.evaluation import listing, plain_names
from segcontext.inference import Protocol, evaluating
from segcontext.model import Segmenter
from segcontext.recipe import Recipe
from segcontext.state_file import read_state
from segcontext.training.task import Task
from segcontext.zoo import build

__all__ = ["check_test_protocol", "make_task", "start_from"]


def make_task(recipe: Recipe, dataset: Dataset, total: int) -> Task:
    """The network, drawn from the recipe's seed without touching the global random state, and its task."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _build(recipe, len(dataset.classes))
    model.classes, model.palette, model.padding = tuple(dataset.classes), tuple(dataset.palette), recipe.padding
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return Task(model, recipe, total_steps=total, class_weights=_weights(recipe, dataset))


def _build(recipe: Recipe, classes: int) -> Segmenter:
    """The network, tried on a small image, so that nothing is begun or replaced for one that cannot work."""
    height, width = (min(side, 65) for side in recipe.crop_size)
    try:
        model = build(recipe.model, classes, recipe.network())
        # A backbone of one size takes no other, and its own would take long.
        with evaluating(model), torch.no_grad(), contextlib.suppress(ShapeError):
            model(torch.zeros(1, 3, height, width))
    except SegContextError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError, IndexError) as error:
        raise RecipeError(
            f"The recipe's network cannot be built or run: {error}. Check the values of model_options, "
            "aggregation_options and distribution_options."
        ) from error
    return model


def _weights(recipe: Recipe, dataset: Dataset) -> Tensor | None:
    if isinstance(recipe.class_weights, list):
        if len(recipe.class_weights) != len(dataset.classes):
            raise RecipeError(
                f"class_weights has {len(recipe.class_weights)} numbers, but the data have "
                f"{len(dataset.classes)} classes: {', '.join(dataset.classes)}."
            )
        return torch.tensor(recipe.class_weights)
    if recipe.class_weights == "none":
        return None
    return class_weights(class_frequencies(dataset), method=recipe.class_weights)


def start_from(task: Task, recipe: Recipe, path: Path) -> None:
    """Takes the weights of another run."""
    tensors, info = read_state(path, kind="model")
    trained, given = [str(name) for name in info.get("classes", ())], task.model.classes
    if recipe.init_classifier and trained and plain_names(trained) != plain_names(given):
        raise CheckpointError(
            f"{path} was trained for {len(trained)} classes ({listing(trained)}), but the data have {len(given)} "
            f"({listing(given)}). To take over everything but the classifiers, set init_classifier: false."
        )
    skip = () if recipe.init_classifier else ("classifier.", "auxiliary.2.")
    load_tensors(task.model, tensors, source=str(path), skip=skip)


def check_test_protocol(recipe: Recipe) -> None:
    """Refuses values that would only be noticed once the run is evaluated."""
    asked = {name: value for name, value in recipe.test_protocol.items() if name not in ("output_stride", "iterations")}
    if "window" in asked:
        asked.setdefault("mode", "sliding")
    try:
        Protocol(**asked)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"The recipe's test_protocol is off: {error}") from error
