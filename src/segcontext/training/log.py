"""Logging: `metrics.csv` and TensorBoard's events."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from segcontext.files import atomic_path
from segcontext.training.state import Progress
from segcontext.training.task import Task

__all__ = ["Log"]


class Log(pl.Callback):
    """Writes `metrics.csv` and TensorBoard's events: training every few steps, validation whenever it ran.

    A step is logged before its state is saved, so that no row of a saved step is missing; a row that a killed process
    wrote after its last saved state is cut off when the run goes on.

    Args:
        folder: the run's folder.
        progress: gives the clock.
        every: steps between lines.
    """

    COLUMNS = (
        "step",
        "seconds",
        "loss",
        "lr",
        "images_per_second",
        "empty_bases",
        "val_miou",
        "val_pixel_accuracy",
        "val_mean_accuracy",
        "val_frequency_weighted_iou",
    )

    def __init__(self, folder: Path, progress: Progress, *, every: int = 10) -> None:
        self.path = folder / "metrics.csv"
        self.progress = progress
        self.every = every
        self._start = time.monotonic()
        self._offset = progress.seconds
        self._since = (time.monotonic(), progress.step)
        self._losses: list[float] = []
        self._empty = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Cuts off what a killed run had logged after its last saved state."""
        if not trainer.is_global_zero:
            return
        rows = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if self._is_saved(row)]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = time.monotonic()
        self._since = (self._start, self.progress.step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Task, *args: Any) -> None:  # type: ignore[override]
        """A line every few steps and before a stop, with the mean loss since the last one."""
        assert pl_module.last is not None
        self._losses.append(pl_module.last.loss)
        self._empty += pl_module.last.empty_bases
        if pl_module.step % self.every == 0 or pl_module.step == pl_module.total_steps or pl_module.stop_agreed:
            self._write_losses(trainer, pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Task, *args: Any) -> None:  # type: ignore[override]
        """A line before a stop in the midst of a validation too."""
        if pl_module.stop_requested and trainer.world_size == 1:
            self._write_losses(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Task) -> None:  # type: ignore[override]
        """A line with the scores."""
        facts = pl_module.validation_facts()
        values = {f"val_{name}": value for name, value in facts.items() if isinstance(value, float)}
        self._write(trainer, pl_module, **values)
        self._since = (time.monotonic(), pl_module.step)

    def _write_losses(self, trainer: pl.Trainer, task: Task) -> None:
        if not self._losses or task.last is None:
            return
        now = time.monotonic()
        self._write(
            trainer,
            task,
            loss=sum(self._losses) / len(self._losses),
            lr=task.last.lr,
            images_per_second=(task.step - self._since[1]) * task.last.images / max(now - self._since[0], 1e-9),
            empty_bases=self._empty,
        )
        self._since, self._losses, self._empty = (now, task.step), [], 0

    def _is_saved(self, row: dict[str, str]) -> bool:
        """Whether the saved state knows of a row; a validation that it does not know of is done over."""
        return int(row["step"]) <= (self.progress.validated if row["val_miou"] else self.progress.step)

    def _write(self, trainer: pl.Trainer, task: Task, **values: float) -> None:
        if not trainer.is_global_zero:
            return
        seconds = self._offset + time.monotonic() - self._start
        rounded = {name: f"{value:.6g}" for name, value in values.items() if name in self.COLUMNS}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.COLUMNS).writerow({"step": task.step, "seconds": f"{seconds:.1f}", **rounded})
        for logger in trainer.loggers:
            logger.log_metrics(values, step=task.step)
