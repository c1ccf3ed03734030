"""What happens around the steps: saving, stopping, logging, and showing progress."""

from __future__ import annotations

import csv
import math
import signal
import threading
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segcontext.checkpoint import save_model
from segcontext.errors import TrainingInterrupted
from segcontext.files import atomic_path
from segcontext.training import state as states
from segcontext.training.task import Task

__all__ = ["Bar", "Keeper", "Log"]


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
        facts = {"step": pl_module.step, "validation": _facts(pl_module)}
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


class Log(pl.Callback):
    """Writes `metrics.csv` and TensorBoard's events: training every few steps, validation whenever it ran.

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

    def __init__(self, folder: Path, progress: states.Progress, *, every: int = 10) -> None:
        self.path = folder / "metrics.csv"
        self.progress = progress
        self.every = every
        self._start = time.monotonic()
        self._offset = progress.seconds
        self._since = (time.monotonic(), progress.step)
        self._losses: list[float] = []
        self._empty = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cuts off what a killed run had logged after its last saved state."""
        self._start = time.monotonic()
        self._since = (self._start, self.progress.step)
        if not trainer.is_global_zero:
            return
        rows = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= self.progress.step]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Task, *args: Any) -> None:  # type: ignore[override]
        """A line every few steps, with the mean loss since the last one."""
        assert pl_module.last is not None
        self._losses.append(pl_module.last.loss)
        self._empty += pl_module.last.empty_bases
        if pl_module.step % self.every and pl_module.step != pl_module.total_steps:
            return
        now = time.monotonic()
        rate = (pl_module.step - self._since[1]) * pl_module.last.images / max(now - self._since[0], 1e-9)
        self._write(
            trainer,
            pl_module,
            loss=sum(self._losses) / len(self._losses),
            lr=pl_module.last.lr,
            images_per_second=rate,
            empty_bases=self._empty,
        )
        self._since, self._losses, self._empty = (now, pl_module.step), [], 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Task) -> None:  # type: ignore[override]
        """A line with the scores."""
        values = {name: value for name, value in _facts(pl_module).items() if isinstance(value, float)}
        self._write(trainer, pl_module, **{f"val_{name}": value for name, value in values.items()})
        self._since = (time.monotonic(), pl_module.step)

    def _write(self, trainer: pl.Trainer, task: Task, **values: float) -> None:
        if not trainer.is_global_zero:
            return
        seconds = self._offset + time.monotonic() - self._start
        rounded = {name: f"{value:.6g}" for name, value in values.items() if name in self.COLUMNS}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.COLUMNS).writerow({"step": task.step, "seconds": f"{seconds:.1f}", **rounded})
        for logger in trainer.loggers:
            logger.log_metrics(values, step=task.step)


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


def _facts(task: Task) -> dict[str, Any]:
    """The last validation as plain numbers; a class that never occurred has no IoU."""
    found = task.scores
    assert found is not None
    return {
        "miou": float(found.miou),
        "pixel_accuracy": float(found.pixel_accuracy),
        "mean_accuracy": float(found.mean_accuracy),
        "frequency_weighted_iou": float(found.frequency_weighted_iou),
        "iou": [None if math.isnan(value) else value for value in found.iou.tolist()],
    }
