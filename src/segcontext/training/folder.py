"""The folder of a run: what may be in it, what is replaced, and whether a run goes on as it began."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

from segcontext.data import Dataset
from segcontext.errors import OutputExists, RecipeError
from segcontext.files import atomic_path
from segcontext.recipe import Recipe

__all__ = ["BEFORE", "check_free", "check_images", "check_same", "images_digest", "prepare", "write_recipe"]

#: Keys that say how a run is executed and not what comes out of it; a resumed run may change them.
EXECUTION_KEYS = frozenset(
    {
        "workers",
        "cache",
        "cache_size",
        "devices",
        "accelerator",
        "checkpoint_every",
        "data",
        "data_root",
        "after",
        "test_protocol",
    }
)

#: Where the run that a run comes after lies in its folder.
BEFORE = "before"

#: What a run writes into its folder, and all that is deleted where an earlier run is replaced.
WRITTEN = (
    "recipe.yaml",
    "model.json",
    "state.safetensors",
    "metrics.csv",
    "report.md",
    "curves.png",
    "explained_*.png",
    "tensorboard",
    "validation",
    "evaluation",
    "weights/best.safetensors",
    "weights/last.safetensors",
)


def prepare(folder: Path, recipe: Recipe, *, overwrite: bool, resume: bool) -> None:
    """Makes the folder ready for a new run; of an earlier one only what runs write is deleted, and only as allowed.

    Args:
        folder: the run folder.
        recipe: the new run's recipe, which is written there with absolute paths.
        overwrite: whether an earlier run may be deleted.
        resume: whether a run that had not saved anything yet may be started anew.

    Raises:
        OutputExists: the folder holds anything else.
    """
    check_free(folder, recipe, overwrite=overwrite, resume=resume)
    for pattern in WRITTEN:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(folder, recipe)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Writes ``recipe.yaml``, with absolute paths; a resumed run may have changed how it is executed or tested.

    Args:
        folder: the run folder.
        recipe: the run's recipe.
    """
    header = "Every key of this run. Repeat it: segcontext train --config recipe.yaml --out FOLDER"
    with atomic_path(folder / "recipe.yaml") as temporary:
        recipe.absolute().save(temporary, header=header)


def check_free(folder: Path, recipe: Recipe, *, overwrite: bool, resume: bool) -> None:
    """Refuses a folder that holds anything but what a new run of this recipe may find or replace there.

    Args:
        folder: as for `prepare`.
        recipe: as there.
        overwrite: as there.
        resume: as there.

    Raises:
        OutputExists: the folder holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file, but a folder is needed for the run: choose another name.")
    own = {BEFORE} if recipe.after and (resume or overwrite or (folder / BEFORE / "report.md").is_file()) else set()
    if not folder.is_dir() or all(path.name in own for path in folder.iterdir()):
        return
    unfinished = resume and (folder / "recipe.yaml").is_file() and not (folder / "weights").exists()
    if resume and not unfinished and not overwrite:
        raise OutputExists(
            f"{folder} holds no state.safetensors to go on from, but other things. Choose another folder, start "
            f"from its weights (--init {folder}), or allow an earlier run to be replaced (--overwrite)."
        )
    if not overwrite and not unfinished:
        raise OutputExists(
            f"{folder} is not empty. Go on with that run (--resume), choose another folder, or allow it to be replaced "
            "(--overwrite)."
        )
    if not (folder / "recipe.yaml").is_file():
        raise OutputExists(f"{folder} holds no earlier run, so it is not replaced: choose another folder.")


def check_images(begun: str, now: str, *, source: str) -> None:
    """A resumed run goes on with the images that it began with, wherever they lie by now.

    Args:
        begun: `images_digest` of the images it began with; empty in states of earlier versions.
        now: that of the images at hand.
        source: what to call the state in errors.

    Raises:
        RecipeError: they are not the same.
    """
    if begun and begun != now:
        (were, _), (are, _) = (digest.split(":") for digest in (begun, now))
        raise RecipeError(
            f"{source} belongs to a run on {were} training images, and these {are} are not the same by number, name or "
            "order. Resume it on the images it was started on, or start a new run (--init takes its weights)."
        )


def images_digest(dataset: Dataset) -> str:
    """What tells one list of training images from another: their number and a hash of their names.

    Args:
        dataset: the images.

    Returns:
        ``"367:1f0c…"``.
    """
    names = "\n".join(item.name for item in dataset.items)
    return f"{len(dataset)}:{hashlib.sha256(names.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


def check_same(recipe: Recipe, folder: Path) -> None:
    """A resumed run may be executed otherwise, but not become another run.

    Args:
        recipe: what is asked for.
        folder: the run folder, with the recipe that it began with.

    Raises:
        RecipeError: the two differ in what comes out; it names the keys.
    """
    # Folders of earlier versions hold relative paths.
    before, now = (dataclasses.asdict(each.absolute()) for each in (Recipe.load(folder / "recipe.yaml"), recipe))
    changed = [key for key in now if now[key] != before[key] and key not in EXECUTION_KEYS]
    if changed:
        listed = "; ".join(f"{key}: {before[key]} → {now[key]}" for key in changed)
        raise RecipeError(
            f"The run in {folder} had another recipe ({listed}). Resume it with its own, or start a new run elsewhere."
        )
