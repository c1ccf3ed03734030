import signal

import pytest
import torch
from PIL import Image

from segcontext import Recipe, Scenes
from segcontext.state_file import read_state
from segcontext.training import TrainingInterrupted, train
from segcontext.training.log import Log
from segcontext.training.streams import next_validation


def validations(every, total):
    step, found = 0, []
    while step < total:
        step = next_validation(step, every, total)
        found.append(step)
    return found


@pytest.mark.parametrize("total", [1, 3, 9, 10, 11, 19, 25, 99, 100, 30_000, 12_345])
def test_left_to_itself_a_run_validates_ten_times(total):
    found = validations(0, total)
    assert len(found) == min(10, total)
    assert found[-1] == total
    distances = {after - before for before, after in zip([0, *found], found, strict=False)}
    assert max(distances) - min(distances) <= 1


@pytest.mark.parametrize(
    ("every", "total", "steps"), [(3, 8, [3, 6, 8]), (4, 8, [4, 8]), (100, 8, [8]), (1, 2, [1, 2])]
)
def test_else_it_validates_every_so_many_steps_and_at_its_end(every, total, steps):
    assert validations(every, total) == steps


@pytest.mark.parametrize("every", [0, 7])
def test_whether_a_step_is_validated_follows_from_the_step_before(every):
    due = [step for step in range(1, 31) if next_validation(step - 1, every, 30) == step]
    assert due == validations(every, 30)


def write_scenes(root):
    """Drawn scenes as files."""
    scenes = Scenes(split="train", size=(64, 96), length=10)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(scenes.classes))
    for index, (image, mask, _) in enumerate(scenes):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / f"images/{index}.jpg")
        Image.fromarray(mask.numpy()).save(root / f"masks/{index}.png")


def stop_after_two(monkeypatch):
    original = Log.on_train_batch_end

    def and_stop(self, trainer, task, *args):
        original(self, trainer, task, *args)
        if task.step == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Log, "on_train_batch_end", and_stop)


def test_a_run_with_a_cache_goes_on_the_same_without(tmp_path, monkeypatch):
    write_scenes(tmp_path / "data")
    keys = {
        **{"data": str(tmp_path / "data"), "model": "fcn", "backbone": "test_resnet", "pretrained": False},
        **{"output_stride": 32, "model_options": {"fuse_channels": 8}, "steps": 4, "batch": 2, "crop": [48, 64]},
        **{"val_every": 4, "val_limit": 1, "workers": 0, "accelerator": "cpu", "lr": 0.01},
    }
    train(Recipe(**keys), tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after_two(patch)
        with pytest.raises(TrainingInterrupted):
            train(Recipe(**keys, cache=str(tmp_path / "cache")), tmp_path / "stopped")
    train(Recipe(**keys), tmp_path / "stopped", resume=True)
    want, got = (
        read_state(tmp_path / name / "state.safetensors", kind="training").tensors for name in ("whole", "stopped")
    )
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)
    assert list((tmp_path / "cache").glob("??/*.pixels"))
    assert not list((tmp_path / "data").rglob("*.pixels"))
