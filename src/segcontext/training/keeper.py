"""Saving: the training state, the last and the best weights; and stopping once all is saved."""

from __future__ import annotations

import math
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from segcontext.checkpoint import save_model
from segcontext.errors import TrainingInterrupted
from segcontext.evaluation.provenance import provenance
from segcontext.training import state as states
from segcontext.training.task import Task

__all__ = ["Keeper"]


class Keeper(pl.Callback):
    """Saves the training state, the last and the best weights; on SIGTERM or SIGINT saves once more and stops.

    Args:
        folder: the run's folder.
        progress: how far the run is; kept up to date here.
        every: steps between training states.
    """

    def __init__(self, folder: Path, progress: states.Progress, *, every: int) -> None:
        self.folder = folder
        self.progress = progress
        self.every = every
        self._clock = time.monotonic()
        self._handlers: dict[int, Any] = {}
        self._saved = -1
        self._task: Task | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals, after Lightning set its own handlers; Lightning puts back what was before."""
        assert isinstance(pl_module, Task)
        self._task = pl_module
        # A resumed run begins at the step of its state.
        pl_module.saved_step, pl_module.has_weights = self.progress.step, self.progress.validated >= 0
        self._clock = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._request)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Gives the signals back after an error too; Lightning's teardown is for runs that end well."""
        self.teardown(trainer, pl_module, "fit")

    def _request(self, number: int, frame: FrameType | None) -> None:
        assert self._task is not None
        if self._task.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._task.stop_requested = number

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Task, *args: Any) -> None:  # type: ignore[override]
        """Saves where it is time to, and stops where all ranks agreed to."""
        self.progress.step = pl_module.step
        if pl_module.stop_agreed:
            self._stop(trainer, pl_module, pl_module.stop_agreed)
        if pl_module.step % self.every == 0:
            self._save(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Task) -> None:  # type: ignore[override]
        """A validation can be long: what was trained before it is safe first."""
        if not trainer.sanity_checking and pl_module.step:
            self._save(trainer, pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Task, *args: Any) -> None:  # type: ignore[override]
        """Stops in the midst of a validation, which a resumed run then does over."""
        if pl_module.stop_requested and trainer.world_size == 1:
            self._stop(trainer, pl_module, pl_module.stop_requested)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Task) -> None:  # type: ignore[override]
        """Keeps the last weights, and the best."""
        assert pl_module.scores is not None
        miou = pl_module.scores.miou
        facts = {"step": pl_module.step, "validation": pl_module.validation_facts(), "segcontext": provenance()}
        self.progress.validated = pl_module.step
        weights = self.folder / "weights"
        if trainer.is_global_zero:
            save_model(weights / "last.safetensors", pl_module.model, tensors=pl_module.judged.state_dict(), **facts)
        # A run whose validation split shows no class at all still has a best.
        if (miou if math.isfinite(miou) else 0.0) > self.progress.best:
            self.progress.best = miou if math.isfinite(miou) else 0.0
            self.progress.best_step = pl_module.step
            if trainer.is_global_zero:
                save_model(
                    weights / "best.safetensors", pl_module.model, tensors=pl_module.judged.state_dict(), **facts
                )
        pl_module.has_weights = True
        self._saved = -1
        self._save(trainer, pl_module)

    def _save(self, trainer: pl.Trainer, task: Task) -> None:
        # A validation that a stop had cut short is done over before there is an optimizer; its state is on disk.
        if self._saved == task.step or not trainer.optimizers:
            return
        self.progress.step = task.step
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now
        self._saved = task.step
        if trainer.is_global_zero:
            states.save_state(self.folder / "state.safetensors", task, trainer.optimizers[0], self.progress)
        task.saved_step = task.step

    def _stop(self, trainer: pl.Trainer, task: Task, number: int) -> None:
        self._save(trainer, task)
        trainer.strategy.barrier("segcontext.stop")
        error = TrainingInterrupted(
            f"Stopped by {signal.Signals(number).name} after step {task.step} of {task.total_steps}; everything is "
            "saved. Go on with --resume.",
            number,
        )
        error.shared = True
        raise error
