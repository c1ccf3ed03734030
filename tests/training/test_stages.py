"""Runs that come after another: one command trains both, and an interruption loses neither."""

import signal

import pytest
import torch
import yaml

from segcontext import Recipe, cli
from segcontext.errors import OutputExists, RecipeError
from segcontext.state_file import read_state
from segcontext.training import TrainingInterrupted, train
from segcontext.training.log import Log

KEYS = {
    "data": "demo",
    "model": "segmenter",
    "backbone": "test_resnet",
    "pretrained": False,
    "output_stride": 16,
    "aggregation": "none",
    "model_options": {"reduce_channels": 8},
    "steps": 4,
    "batch": 2,
    "crop": [32, 40],
    "val_every": 4,
    "val_limit": 1,
    "workers": 0,
    "accelerator": "cpu",
}


@pytest.fixture
def files(tmp_path):
    """Three recipes, each after the one before it."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for number in (1, 2, 3):
        after = {"after": f"{number - 1}.yaml"} if number > 1 else {}
        (folder / f"{number}.yaml").write_text(yaml.safe_dump({**KEYS, **after, "seed": number}))
    return folder


def last(folder):
    return read_state(folder / "weights/last.safetensors", kind="model").tensors


def test_every_stage_starts_from_the_last_weights_of_the_one_before(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    assert cli.main(["train", "--config", "recipes/3.yaml", "--out", str(out)]) == 0
    for folder, seed in ((out, 3), (out / "before", 2), (out / "before/before", 1)):
        assert Recipe.load(folder / "recipe.yaml").seed == seed
        assert (folder / "report.md").is_file()
    by_hand = tmp_path / "by_hand"
    train(Recipe(**KEYS, seed=1), by_hand / "1")
    for number in (2, 3):
        start = str(by_hand / f"{number - 1}/weights/last.safetensors")
        train(Recipe(**KEYS, seed=number, init=start), by_hand / str(number))
    expected = last(by_hand / "3")
    assert expected.keys() == last(out).keys()
    assert all(torch.equal(tensor, last(out)[name]) for name, tensor in expected.items())
    train(Recipe(**KEYS, seed=3), tmp_path / "alone")
    assert any(not torch.equal(tensor, last(tmp_path / "alone")[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("stage", [1, 2])
def test_an_interrupted_chain_goes_on_where_it_stopped(files, tmp_path, monkeypatch, stage):
    whole = train(Recipe.load(files / "2.yaml"), tmp_path / "whole").folder
    out, seen, logged = tmp_path / "run", [], Log.on_train_batch_end

    def and_stop(self, trainer, task, *rest):
        logged(self, trainer, task, *rest)
        seen.append(task.step)
        if len(seen) == 4 * stage - 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "on_train_batch_end", and_stop)
        with pytest.raises(TrainingInterrupted):
            train(Recipe.load(files / "2.yaml"), out)
    assert (out / "before/report.md").is_file() == (stage == 2)
    with pytest.raises(OutputExists, match="--resume"):
        train(Recipe.load(files / "2.yaml"), out)
    train(Recipe.load(files / "2.yaml"), out, resume=True)
    for folder in ("", "before"):
        ours, theirs = last(out / folder), last(whole / folder)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_nothing_is_trained_before_the_folder_and_the_last_stage_are_known_to_be_right(files, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExists):
            train(Recipe.load(files / "2.yaml"), taken, overwrite=overwrite)
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]
    with pytest.raises(RecipeError, match="class_weights has 2 numbers"):
        train(Recipe.load(files / "2.yaml", class_weights=[1.0, 2.0]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_overwriting_replaces_every_stage(files, tmp_path):
    out = train(Recipe.load(files / "2.yaml"), tmp_path / "run").folder
    (out / "before/weights/last.safetensors").write_bytes(b"spoilt")
    train(Recipe.load(files / "2.yaml"), out, overwrite=True)
    assert last(out / "before")


def test_where_a_run_is_executed_passes_to_the_stages_before(files):
    recipe = Recipe.load(files / "3.yaml", data_root="/sets", workers=3)
    first = recipe.before()
    assert (first.workers, first.data_root, first.seed) == (3, "/sets", 2)
    assert first.before().before() is None
    assert Recipe(data="city", data_root="/sets").data_path == "/sets/city"
    assert Recipe(data="/own/city", data_root="/sets").data_path == "/own/city"
    assert Recipe(data="demo", data_root="/sets").data_path == "demo"
    assert Recipe(data="city").data_path == "city"


def test_two_starts_at_once_are_refused_and_a_missing_stage_is_named(files, tmp_path):
    with pytest.raises(RecipeError, match="after and init"):
        Recipe.load(files / "2.yaml", init="elsewhere")
    (files / "1.yaml").unlink()
    with pytest.raises(RecipeError, match=r"no recipe at .*1\.yaml"):
        train(Recipe.load(files / "2.yaml"), tmp_path / "run")
