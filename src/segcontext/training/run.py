"""A training run from recipe to report: the folder, the parts, Lightning's Trainer, and what is left afterwards."""

from __future__ import annotations

import contextlib
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
from torch import Tensor

from segcontext.checkpoint import load_tensors, read_state, weight_file
from segcontext.data import Dataset, class_frequencies, class_weights, open_dataset
from segcontext.errors import CheckpointError, RecipeError, SegContextError, ShapeError
from segcontext.evaluation import listing, plain_names
from segcontext.inference import Protocol, evaluating
from segcontext.layers import Normalize
from segcontext.model import Segmenter
from segcontext.recipe import Recipe
from segcontext.training.callbacks import Bar, Keeper, Log
from segcontext.training.folder import BEFORE, check_free, check_same, prepare
from segcontext.training.report import write_report
from segcontext.training.state import Progress, load_optimizer, load_state, read_training
from segcontext.training.streams import Streams, next_validation
from segcontext.training.sync import TimmSyncBatchNorm
from segcontext.training.task import Task
from segcontext.zoo import build

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

    The folder holds ``recipe.yaml`` (every key), ``weights/best.safetensors`` and ``weights/last.safetensors`` (each
    enough to use the network), ``state.safetensors`` (to resume), ``metrics.csv``, TensorBoard events, the
    validation's tables and pictures, and ``report.md``. A recipe that comes after another one trains that first, into
    the folder ``before``.

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
        TrainingDiverged: where the loss is no longer finite.
        TrainingInterrupted: after SIGTERM or SIGINT, with everything saved.
    """
    folder = Path(out)
    console = console or Console(quiet=True)
    data = open_dataset(recipe.data_path, recipe.train_split, dataset=recipe.dataset)
    val = open_dataset(recipe.data_path, recipe.val_split, dataset=recipe.dataset)
    resumable = resume and (folder / "state.safetensors").is_file()
    if resumable:
        check_same(recipe, folder)
    total = max(1, math.ceil(recipe.epochs * len(data) / recipe.batch)) if recipe.epochs else recipe.steps
    every = recipe.val_every or max(1, total // 10)
    devices, nodes = _processes(recipe)
    if devices * nodes > 1 and not _on_gpu(recipe) and not recipe.freeze_bn:
        logger.warning(
            "PyTorch synchronises batch norm on GPUs only: each of the %d processes normalises by its own share of the "
            "batch. freeze_bn: true makes the number of processes irrelevant.",
            devices * nodes,
        )
    _check_test_protocol(recipe)
    task = _make_task(recipe, data, total)
    if recipe.after and not resumable:
        _train_before(recipe, folder, resume=resume, overwrite=overwrite, console=console)
    progress = Progress(total=total)
    state = None
    if resumable:
        state, progress = read_training(folder / "state.safetensors")
        load_state(state, task, source=str(folder / "state.safetensors"))
        task.step = progress.step
    elif recipe.after:
        _start_from(task, recipe, weight_file(folder / BEFORE, "last"))
    elif recipe.init:
        _start_from(task, recipe, weight_file(recipe.init))
    normalize = task.model.normalize
    assert isinstance(normalize, Normalize)
    mean = normalize.mean.flatten().tolist()
    streams = Streams(
        recipe,
        data,
        val,
        progress,
        val_every=every,
        pad_value=tuple(round(255 * value) for value in mean),
    )
    task.locate = streams.files
    stretches = 0
    step = progress.step
    while step < total:
        step, stretches = next_validation(step, every, total), stretches + 1
    with _quiet_lightning():
        trainer = _trainer(recipe, folder, progress, stretches, devices * nodes, nodes, console)
        # Nothing of an earlier run is touched before everything that could be wrong with this one has been built.
        if is_primary() and not resumable:
            prepare(folder, recipe, overwrite=overwrite, resume=resume)
        if (
            progress.step
            and progress.validated < progress.step
            and progress.step in (total, progress.step // every * every)
        ):
            trainer.validate(task, datamodule=streams, verbose=False)
        if stretches:
            try:
                trainer.fit(_resuming(task, state), datamodule=streams)
            except BaseException:
                # After an error in a validation Lightning closes that alone; the training's readers would live on.
                trainer.fit_loop.teardown()
                raise
    trainer.strategy.barrier("segcontext.report")
    write_report(folder, recipe, progress, val, console=console, primary=trainer.is_global_zero)
    return Result(folder, progress.step, progress.best, progress.best_step, progress.seconds)


def _check_test_protocol(recipe: Recipe) -> None:
    """Refuses values that would only be noticed once the run is evaluated."""
    asked = {name: value for name, value in recipe.test_protocol.items() if name not in ("output_stride", "iterations")}
    if "window" in asked:
        asked.setdefault("mode", "sliding")
    try:
        Protocol(**asked)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"The recipe's test_protocol is off: {error}") from error


def _make_task(recipe: Recipe, dataset: Dataset, total: int) -> Task:
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


def _start_from(task: Task, recipe: Recipe, path: Path) -> None:
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
        callbacks=[
            Keeper(folder, progress, every=recipe.checkpoint_every),
            Log(folder, progress),
            Bar(console, progress),
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
