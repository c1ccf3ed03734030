"""What to do where a training does not fit into memory."""

from __future__ import annotations

from contextlib import AbstractContextManager

from segcontext.errors import memory_advice
from segcontext.recipe import Recipe
from segcontext.types import Sample

__all__ = ["training_memory", "validation_memory"]


def training_memory(recipe: Recipe, *, processes: int) -> AbstractContextManager[None]:
    """Where memory does not suffice inside, an error says what of the recipe to change.

    Args:
        recipe: the run's recipe.
        processes: how many train together.

    Returns:
        A context that raises `OutOfMemory`.
    """
    at_once = recipe.batch // (recipe.accumulate * processes)
    height, width = recipe.crop_size
    ways = [f"a smaller crop (now {recipe.crop})", f"a smaller batch (now {recipe.batch})", *_lighter(recipe)]
    parts = f"Raise accumulate (now {recipe.accumulate}), which takes the same batch in more parts; or set "
    doing = f"Training on {at_once} crop{'s' * (at_once > 1)} of {height}×{width} pixels at a time"
    return memory_advice(doing, f"{parts if at_once > 1 else 'Set '}{', '.join(ways)}.")


def validation_memory(recipe: Recipe, sample: Sample) -> AbstractContextManager[None]:
    """Where memory does not suffice for a whole image of the validation, an error names it and says what to change.

    Args:
        recipe: the run's recipe.
        sample: the image.

    Returns:
        A context that raises `OutOfMemory`.
    """
    height, width = sample.image.shape[-2:]
    ways = ["smaller images in the validation split", *_lighter(recipe)]
    doing = f"Validating on {sample.name}, which is taken whole ({height}×{width} pixels),"
    return memory_advice(doing, f"Take {', or '.join(ways)}. What was trained so far is saved.")


def _lighter(recipe: Recipe) -> list[str]:
    """Keys that make the network itself take less."""
    precision = [] if recipe.precision == "bf16" else ["precision: bf16"]
    return [*precision, *([f"output_stride: {2 * recipe.output_stride}"] if recipe.output_stride < 32 else [])]
