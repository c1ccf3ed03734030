"""The rows of a run's metrics.csv, when it is stopped, cut short and resumed."""

import csv
import signal

import pytest

from segcontext import Recipe
from segcontext.errors import TrainingInterrupted
from segcontext.training import train
from segcontext.training.keeper import Keeper
from segcontext.training.task import Task

KEYS = {
    "data": "demo",
    "model": "segmenter",
    "backbone": "test_resnet",
    "pretrained": False,
    "output_stride": 16,
    "aggregation": "none",
    "model_options": {"reduce_channels": 8},
    "steps": 12,
    "batch": 2,
    "crop": [32, 40],
    "val_every": 12,
    "val_limit": 2,
    "workers": 0,
    "accelerator": "cpu",
}


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stopping(step):
    """A training step that asks for a stop when it is that one's turn."""
    original = Task.training_step

    def and_stop(self, *arguments):
        if self.step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments)

    return and_stop


@pytest.mark.parametrize("stop", [3, 10])
def test_the_row_of_the_last_step_before_a_stop_is_there_once(tmp_path, monkeypatch, stop):
    """Whether one was due at that step or not; the losses up to it would be in no row otherwise."""
    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", stopping(stop))
        with pytest.raises(TrainingInterrupted, match=f"after step {stop} of 12"):
            train(Recipe(**KEYS), tmp_path / "run")
    before = rows(tmp_path / "run")
    assert [row["step"] for row in before] == [str(stop)]
    assert float(before[0]["loss"]) > 0
    train(Recipe(**KEYS), tmp_path / "run", resume=True)
    after = rows(tmp_path / "run")
    assert after[0] == before[0]
    assert [row["step"] for row in after if row["loss"]] == sorted({str(stop), "10", "12"}, key=int)
    assert [row["step"] for row in after if row["val_miou"]] == ["12"]


def test_a_stop_in_the_midst_of_a_validation_loses_no_row_either(tmp_path, monkeypatch):
    recipe = Recipe(**{**KEYS, "steps": 6, "val_every": 3})
    original = Task.validation_step

    def and_stop(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "validation_step", and_stop)
        with pytest.raises(TrainingInterrupted, match="after step 3 of 6"):
            train(recipe, tmp_path / "run")
    assert [(row["step"], row["val_miou"]) for row in rows(tmp_path / "run")] == [("3", "")]
    train(recipe, tmp_path / "run", resume=True)
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found if row["loss"]] == ["3", "6"]
    assert [row["step"] for row in found if row["val_miou"]] == ["3", "6"]


def test_a_validation_that_is_done_over_leaves_one_row(tmp_path, monkeypatch):
    """The process ended between the row and the state that knows of it."""
    recipe = Recipe(**{**KEYS, "steps": 3, "val_every": 3})

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_validation_end", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(recipe, tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run") if row["val_miou"]] == ["3"]
    for _ in range(2):
        assert train(recipe, tmp_path / "run", resume=True).step == 3
        found = rows(tmp_path / "run")
        assert [row["step"] for row in found if row["loss"]] == ["3"]
        assert [row["step"] for row in found if row["val_miou"]] == ["3"]
