"""A training run from recipe to report: the folder, the parts, Lightning's Trainer, and what is left afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from rich.markup import escape

from segcontext.checkpoint import weight_file, write_network
from segcontext.data import PixelCache, open_dataset
from segcontext.errors import RecipeError
from segcontext.evaluation import spread
from segcontext.layers import Normalize
from segcontext.recipe import Recipe
from segcontext.training.bar import Bar
from segcontext.training.building import check_test_protocol, make_task, start_from
from segcontext.training.folder import (
    BEFORE,
    check_free,
    check_images,
    check_same,
    images_digest,
    prepare,
    write_recipe,
)
from segcontext.training.keeper import Keeper
from segcontext.training.log import Log
from segcontext.training.memory import training_memory
from segcontext.training.report import write_report
from segcontext.training.state import Progress, load_optimizer, load_state, read_training
from segcontext.training.streams import Streams, next_validation
from segcontext.training.sync import TimmSyncBatchNorm
from segcontext.training.task import Task

__all__ = ["Result", "is_primary", "train"]

logger = logging.getLogger(__name__)


class Result(NamedTuple):
    """What a run came to.

    Attributes:
        folder: the run's folder.
        step: optimizer steps taken.
        best: the best validation mIoU, from 0 to 1.
        best_step: the step it was reached at.
        seconds: time spent training and validating.
    """

    folder: Path
    step: int
    best: float
    best_step: int
    seconds: float


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Result:
    """Trains a network by a recipe and leaves a run folder.

    The folder holds ``recipe.yaml`` (every key, paths made absolute), ``weights/best.safetensors`` and
    ``weights/last.safetensors`` (each enough to use the network), ``model.json`` (what the network is, for other
    programs to read), ``state.safetensors`` (to resume), ``metrics.csv``, TensorBoard events, the validation's tables
    and pictures, and ``report.md``. A recipe that comes after another one trains that first, into the folder
    ``before``.

    Args:
        recipe: what to do.
        out: the run folder.
        resume: whether to go on where a run in that folder stopped; it starts anew where nothing was saved yet.
        overwrite: whether an earlier run in that folder may be deleted.
        console: where progress is shown; `None` shows none.

    Returns:
        How far the run came and how well it did.

    Raises:
        OutputExists: where the folder holds something and neither `resume` nor `overwrite` is set.
        RecipeError: where the recipe does not fit the data, or the run that is to be resumed.
        DataError: where the data are wrong.
        OutOfMemory: where memory does not suffice; the message says what of the recipe to change.
        TrainingDiverged: where the loss is no longer finite.
        TrainingInterrupted: after SIGTERM or SIGINT, with everything saved.
    """
    folder = Path(out)
    console = console or Console(quiet=True)
    cache = PixelCache.named(recipe.cache, gigabytes=recipe.cache_size)
    data, val = (
        open_dataset(recipe.data_path, split, dataset=recipe.dataset, cache=cache)
        for split in (recipe.train_split, recipe.val_split)
    )
    resumable = resume and (folder / "state.safetensors").is_file()
    if resumable:
        check_same(recipe, folder)
    total = max(1, math.ceil(recipe.epochs * len(data) / recipe.batch)) if recipe.epochs else recipe.steps
    devices, nodes = _processes(recipe)
    if devices * nodes > 1 and not _on_gpu(recipe) and not recipe.freeze_bn:
        logger.warning(
            "PyTorch synchronises batch norm on GPUs only: each of the %d processes normalises by its own share of the "
            "batch. freeze_bn: true makes the number of processes irrelevant.",
            devices * nodes,
        )
    shown = len(spread(val, recipe.val_limit))
    if shown < devices * nodes:
        raise RecipeError(
            f"{shown} validation images cannot be shared by {devices * nodes} processes: take fewer processes "
            "(--devices), or more images (val_split, val_limit)."
        )
    check_test_protocol(recipe)
    task = make_task(recipe, data, total)
    if recipe.after and not resumable:
        _train_before(recipe, folder, resume=resume, overwrite=overwrite, console=console)
    progress = Progress(total=total, images=images_digest(data))
    state = None
    if resumable:
        state, begun = read_training(folder / "state.safetensors")
        progress = dataclasses.replace(begun, images=progress.images)
        load_state(state, task, source=str(folder / "state.safetensors"))
        check_images(begun.images, progress.images, source=str(folder / "state.safetensors"))
        task.step = progress.step
    elif recipe.after:
        start_from(task, recipe, weight_file(folder / BEFORE, "last"))
    elif recipe.init:
        start_from(task, recipe, weight_file(recipe.init))
    normalize = task.model.normalize
    assert isinstance(normalize, Normalize)
    mean = normalize.mean.flatten().tolist()
    streams = Streams(recipe, data, val, progress, pad_value=tuple(round(255 * value) for value in mean))
    task.locate = streams.files
    stretches = 0
    step = progress.step
    while step < total:
        step, stretches = next_validation(step, recipe.val_every, total), stretches + 1
    unvalidated = progress.validated < progress.step == next_validation(progress.step - 1, recipe.val_every, total)
    with _quiet_lightning(), training_memory(recipe, processes=devices * nodes):
        trainer = _trainer(recipe, folder, progress, stretches, devices * nodes, nodes, console)
        # Nothing of an earlier run is touched before everything that could be wrong with this one has been built.
        if is_primary() and not resumable:
            prepare(folder, recipe, overwrite=overwrite, resume=resume)
        elif is_primary():
            write_recipe(folder, recipe)
        if is_primary():
            write_network(folder, task.model)
        if progress.step and unvalidated:
            trainer.validate(task, datamodule=streams, verbose=False)
        if stretches:
            try:
                trainer.fit(_resuming(task, state), datamodule=streams)
            except BaseException:
                # After an error in a validation Lightning closes that alone; the training's readers would live on.
                trainer.fit_loop.teardown()
                raise
    trainer.strategy.barrier("segcontext.report")
    write_report(folder, recipe.absolute(), progress, val, console=console, primary=trainer.is_global_zero)
    return Result(folder, progress.step, progress.best, progress.best_step, progress.seconds)


def _train_before(recipe: Recipe, folder: Path, *, resume: bool, overwrite: bool, console: Console) -> None:
    """Trains what the recipe comes after, unless an earlier start of this run has done so."""
    first = recipe.before()
    assert first is not None
    if is_primary():
        check_free(folder, recipe, overwrite=overwrite, resume=resume)
    # The report is the last thing that a run writes.
    if resume and (folder / BEFORE / "report.md").is_file():
        console.print(f"{escape(str(recipe.after))} has been trained already.", highlight=False, soft_wrap=True)
        return
    console.print(f"First {escape(str(recipe.after))}", highlight=False, soft_wrap=True)
    train(first, folder / BEFORE, resume=resume, overwrite=overwrite, console=console)


def _resuming(task: Task, state: Any) -> Task:
    """Has the optimizer take its momenta over once Lightning has made it."""
    if state is not None:
        make = task.configure_optimizers

        def configure() -> torch.optim.Optimizer:
            optimizer = make()
            load_optimizer(state, optimizer)
            return optimizer

        task.configure_optimizers = configure  # type: ignore[method-assign]
    return task


def _trainer(
    recipe: Recipe, folder: Path, progress: Progress, stretches: int, world: int, nodes: int, console: Console
) -> pl.Trainer:
    return pl.Trainer(
        accelerator="gpu" if _on_gpu(recipe) else "cpu",
        devices=world // nodes,
        num_nodes=nodes,
        strategy=DDPStrategy() if world > 1 else "auto",
        precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
        max_epochs=max(stretches, 1),
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        plugins=[TimmSyncBatchNorm()] if recipe.sync_bn and world > 1 and _on_gpu(recipe) else [],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        # A step is logged before it is saved, and before a stop that follows the saving.
        callbacks=[
            Log(folder, progress),
            Bar(console, progress),
            Keeper(folder, progress, every=recipe.checkpoint_every),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def _processes(recipe: Recipe) -> tuple[int, int]:
    """Processes on this machine, and machines; torchrun's word goes before the recipe's."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    else:
        local = world = recipe.devices
    if recipe.batch % (recipe.accumulate * world):
        raise RecipeError(
            f"batch ({recipe.batch}) must be a multiple of accumulate × processes ({recipe.accumulate} × {world})."
        )
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if gpus < local and (recipe.accelerator == "gpu" or (recipe.accelerator == "auto" and gpus)):
        advice = f"devices: {gpus}, or accelerator: cpu" if gpus else "accelerator: cpu, or auto"
        raise RecipeError(
            f"The recipe asks for GPUs (accelerator: {recipe.accelerator}, devices: {local}), but PyTorch finds "
            f"{gpus or 'none'} here. Set {advice}."
        )
    return local, world // local


def _on_gpu(recipe: Recipe) -> bool:
    """Whether CUDA trains; Apple's GPUs lack the float64 in which losses are summed."""
    return recipe.accelerator != "cpu" and torch.cuda.is_available()


def is_primary() -> bool:
    """Whether this process is the first of its run, also before Lightning has set up the others."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's advice for its own loaders and loggers from the user; errors pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning", category=UserWarning)
            warnings.filterwarnings("ignore", module="lightning", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
