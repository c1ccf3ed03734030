"""Showing progress on a terminal, or in lines where there is none."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segcontext.training import state as states
from segcontext.training.task import Task

__all__ = ["Bar"]


class Bar(pl.Callback):
    """A progress bar with loss, learning rate, images per second, mIoU and the time left.

    Where the console is no terminal, a line now and then takes its place.

    Args:
        console: where to show it.
        progress: how far the run is at its start.
        seconds: time between lines where there is no terminal.
    """

    def __init__(self, console: Console, progress: states.Progress, *, seconds: float = 30.0) -> None:
        self.console = console
        self.progress = progress
        self.seconds = seconds
        self._bar: Progress | None = None
        self._times: deque[float] = deque(maxlen=21)
        self._printed = time.monotonic()
        self._miou = "–"

    def on_train_start(self, trainer: pl.Trainer, pl_module: Task) -> None:  # type: ignore[override]
        """Starts the bar at the run's step."""
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]} · lr {task.fields[lr]} · {task.fields[rate]} img/s"),
            TextColumn("· mIoU {task.fields[miou]} ·"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        shown: dict[str, Any] = {"loss": "–", "lr": "–", "rate": "–", "miou": self._miou}
        self._bar.add_task("train", total=pl_module.total_steps, completed=pl_module.step, **shown)
        self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Task, *args: Any) -> None:  # type: ignore[override]
        """Moves the bar."""
        assert pl_module.last is not None
        self._times.append(time.monotonic())
        passed = self._times[-1] - self._times[0]
        speed = (len(self._times) - 1) / passed if passed > 0 else 0.0
        loss, lr = f"{pl_module.last.loss:.3f}", f"{pl_module.last.lr:.2e}"
        rate = f"{speed * pl_module.last.images:.1f}"
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=pl_module.step, loss=loss, lr=lr, rate=rate, miou=self._miou
            )
        elif trainer.is_global_zero and time.monotonic() - self._printed > self.seconds and speed:
            self._printed = time.monotonic()
            left = (pl_module.total_steps - pl_module.step) / speed
            self.console.print(
                f"step {pl_module.step}/{pl_module.total_steps} · loss {loss} · lr {lr} · {rate} img/s · "
                f"mIoU {self._miou} · {_clock(left)} left",
                highlight=False,
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Task) -> None:  # type: ignore[override]
        """Shows the new mIoU."""
        assert pl_module.scores is not None
        self._miou = f"{100 * pl_module.scores.miou:.1f}"
        self._times.clear()
        if trainer.is_global_zero:
            self.console.print(
                f"step {pl_module.step}: validation mIoU {self._miou} %, "
                f"pixel accuracy {100 * pl_module.scores.pixel_accuracy:.1f} %",
                highlight=False,
            )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes the bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Takes the bar down after an error too, before anybody prints it."""
        self.teardown(trainer, pl_module, "fit")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
