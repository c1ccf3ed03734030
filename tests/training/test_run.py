"""A whole run: what it leaves, and that stopping, resuming and splitting the work change nothing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from torch._dynamo.backends.common import aot_autograd

import segcontext
from segcontext import Recipe, load_model
from segcontext.errors import OutOfMemory, OutputExists, RecipeError, TrainingDiverged
from segcontext.evaluation.provenance import provenance
from segcontext.state_file import read_state, write_state
from segcontext.training import TrainingInterrupted, train
from segcontext.training.log import Log
from segcontext.training.task import Task

BASE = {
    "data": "demo",
    "model": "segmenter",
    "backbone": "test_resnet",
    "pretrained": False,
    "output_stride": 16,
    "aggregation": "ema",
    "aggregation_options": {"num_bases": 4},
    "distribution": "affinity",
    "distribution_options": {"key_channels": 4, "value_channels": 8, "kernel_size": 3},
    "model_options": {"reduce_channels": 8},
    "steps": 6,
    "batch": 4,
    "crop": [48, 64],
    "lr": 0.05,
    "val_every": 3,
    "val_limit": 2,
    "checkpoint_every": 2,
    "workers": 0,
    "accelerator": "cpu",
}


def recipe(**changes):
    return Recipe(**{**BASE, **changes})


def tensors(folder, name="state.safetensors"):
    return read_state(folder / name, kind="training" if name == "state.safetensors" else "model").tensors


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, which others are compared with."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(recipe(), folder)


def test_a_run_leaves_everything_to_repeat_and_to_use_it(whole):
    folder = whole.folder
    for name in (
        "recipe.yaml",
        "weights/best.safetensors",
        "weights/last.safetensors",
        "state.safetensors",
        "metrics.csv",
        "report.md",
        "curves.png",
        "validation/scores.json",
        "validation/per_class.csv",
        "validation/confusion.png",
        "validation/pictures/overview.png",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert Recipe.load(folder / "recipe.yaml") == recipe()
    info = read_state(folder / "weights/best.safetensors", kind="model").info
    assert info["format_version"] == 1
    assert info["classes"][0] == "Sky"
    assert info["input"]["channel_order"] == "rgb"
    assert info["input"]["padding"] == "none"
    assert info["iterations"] == {"training": 3, "evaluation": 3}
    assert [row["step"] for row in rows(folder) if row["val_miou"]] == ["3", "6"]
    model = json.loads((folder / "model.json").read_text())
    assert model == {name: info[name] for name in model}
    assert set(info) - set(model) == {"format_version", "kind", "step", "validation", "segcontext"}
    assert whole.step == 6
    assert whole.best_step in (3, 6)
    output = load_model(folder)(torch.zeros(1, 3, 48, 64, dtype=torch.uint8))
    assert output.logits.shape == (1, 9, 48, 64)


def test_a_run_says_which_segcontext_it_comes_from(whole):
    """In its report, its scores and its weights."""
    found = provenance()
    assert found["version"] == segcontext.__version__
    report = (whole.folder / "report.md").read_text()
    assert f"segcontext {found['version']}{', commit ' + found['commit'] if found['commit'] else ''}." in report
    assert json.loads((whole.folder / "validation/scores.json").read_text())["segcontext"] == found
    assert read_state(whole.folder / "weights/last.safetensors", kind="model").info["segcontext"] == found


def test_the_same_recipe_gives_the_same_weights(whole, tmp_path):
    train(recipe(), tmp_path / "again")
    assert_same(tensors(whole.folder), tensors(tmp_path / "again"))


def test_the_worker_count_changes_nothing(whole, tmp_path):
    train(recipe(workers=2), tmp_path / "workers")
    assert_same(tensors(whole.folder), tensors(tmp_path / "workers"))


@pytest.mark.parametrize("stop", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"weight_averaging": 0.9, "optimizer": "adamw", "lr": 1e-3}])
def test_a_stopped_run_resumes_to_the_same_weights(whole, tmp_path, monkeypatch, stop, options):
    """SIGTERM at any step: the step is finished, everything saved, and the end is bit for bit the same."""
    want = whole.folder
    if options:
        want = tmp_path / "want"
        train(recipe(**options), want)
    original = Log.on_train_batch_end

    def and_stop(self, trainer, pl_module, *args):
        original(self, trainer, pl_module, *args)
        if pl_module.step == stop - 1 or (stop == 1 and pl_module.step == 1):
            signal.raise_signal(signal.SIGTERM)

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Log, "on_train_batch_end", and_stop)
        with pytest.raises(TrainingInterrupted, match="SIGTERM"):
            train(recipe(**options), folder)
    reached = read_state(folder / "state.safetensors", kind="training").info["progress"]["step"]
    assert 0 < reached < 6
    result = train(recipe(**options, workers=1), folder, resume=True)
    assert result.step == 6
    assert_same(tensors(want), tensors(folder))
    assert_same(tensors(want, "weights/best.safetensors"), tensors(folder, "weights/best.safetensors"))
    assert [row["step"] for row in rows(folder) if row["val_miou"]] == ["3", "6"]


def test_a_kill_loses_at_most_the_steps_since_the_last_state(whole, tmp_path):
    """SIGKILL between two states: the run goes on from the last one to the same end."""
    folder = tmp_path / "killed"
    code = (
        "import os, signal, sys\n"
        "from segcontext import Recipe\n"
        "from segcontext.training import log, train\n"
        "from pathlib import Path\n"
        "original = log.Log.on_train_batch_end\n"
        "def kill(self, trainer, task, *args):\n"
        "    original(self, trainer, task, *args)\n"
        "    if task.step == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "log.Log.on_train_batch_end = kill\n"
        f"train(Recipe(**{recipe_literal()}), Path({str(folder)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read_state(folder / "state.safetensors", kind="training").info["progress"]["step"] == 4
    train(recipe(), folder, resume=True)
    assert_same(tensors(whole.folder), tensors(folder))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves_too(whole, tmp_path, number):
    """Terminals, `timeout` and job schedulers signal the processes that read data as well."""
    folder = tmp_path / "stopped"
    code = (
        "import os, signal, sys\n"
        "from segcontext import Recipe\n"
        "from segcontext.training import TrainingInterrupted, log, train\n"
        "from pathlib import Path\n"
        "original = log.Log.on_train_batch_end\n"
        "def stop(self, trainer, task, *args):\n"
        "    original(self, trainer, task, *args)\n"
        "    if task.step == 1:\n"
        f"        os.killpg(0, {int(number)})\n"
        "log.Log.on_train_batch_end = stop\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        train(Recipe(**{recipe_literal()} | {{'workers': 2}}), Path({str(folder)!r}))\n"
        "    except TrainingInterrupted:\n"
        "        sys.exit(77)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, start_new_session=True)
    assert done.returncode == 77, done.stderr
    assert 0 < read_state(folder / "state.safetensors", kind="training").info["progress"]["step"] < 6
    train(recipe(), folder, resume=True)
    assert_same(tensors(whole.folder), tensors(folder))


def recipe_literal():
    return repr(BASE)


def test_a_finished_run_resumes_to_itself(whole):
    before = tensors(whole.folder)
    assert train(recipe(), whole.folder, resume=True).step == 6
    assert_same(before, tensors(whole.folder))


def test_accumulation_changes_only_rounding(whole, tmp_path):
    """With batch norm frozen, four images at once and two times two are the same step, bases included."""
    options = {"freeze_bn": True, "steps": 3, "model_options": {"reduce_channels": 8, "dropout": 0.0}, "lr": 1e-3}
    train(recipe(**options), tmp_path / "one")
    train(recipe(**options, accumulate=2), tmp_path / "two")
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        if a["loss"]:
            assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-4)


def test_an_earlier_run_is_not_overwritten(whole, tmp_path):
    with pytest.raises(OutputExists, match="--resume"):
        train(recipe(), whole.folder)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputExists, match="no earlier run"):
        train(recipe(), tmp_path, overwrite=True)
    with pytest.raises(OutputExists):
        train(recipe(), tmp_path, resume=True)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_resuming_never_deletes_weights(whole, tmp_path):
    """A finished run whose state was thrown away to save space is no run to start over."""
    folder = tmp_path / "kept"
    shutil.copytree(whole.folder, folder)
    (folder / "state.safetensors").unlink()
    with pytest.raises(OutputExists, match=r"state\.safetensors"):
        train(recipe(), folder, resume=True)
    assert (folder / "weights/best.safetensors").is_file()


def test_a_run_that_was_killed_before_its_first_state_starts_over(whole, tmp_path):
    folder = tmp_path / "early"
    folder.mkdir()
    shutil.copy(whole.folder / "recipe.yaml", folder)
    assert train(recipe(steps=1, val_every=1), folder, resume=True).step == 1


def test_overwriting_waits_for_a_recipe_that_works_and_spares_foreign_files(whole, tmp_path):
    folder = tmp_path / "replaced"
    shutil.copytree(whole.folder, folder)
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(RecipeError):
        train(recipe(color_jitter=2.0), folder, overwrite=True)
    assert (folder / "weights/best.safetensors").is_file()
    train(recipe(steps=1, val_every=1), folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "precious"
    assert rows(folder)[-1]["step"] == "1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_options": {"reduce_channels": -1}},
        {"model_options": {"reduce_channels": 8, "dropout": 2}},
        {"model_options": {"reduce_channels": 8, "multi_grid": 2}},
        {"distribution_options": {"key_channels": 0}},
        {"distribution_options": {"key_channels": 4, "value_channels": -1}},
        {"distribution_options": {"key_channels": 4, "dilation": 1.5}},
        {"aggregation_options": {"lam": "much"}},
        {"test_protocol": {"mode": "slidng"}},
        {"test_protocol": {"scales": "abc"}},
    ],
)
def test_values_that_no_network_can_be_built_with_cost_nothing(whole, tmp_path, wrong):
    folder = shutil.copytree(whole.folder, tmp_path / "earlier")
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(RecipeError):
        train(recipe(**wrong), folder, overwrite=True)
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_the_bar_leaves_the_terminal_as_it_was(tmp_path, capsys):
    console = Console(force_terminal=True, width=100)
    with pytest.raises(TrainingDiverged):
        train(recipe(lr=1e30), tmp_path / "shown", console=console)
    said = capsys.readouterr().out
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") > 0
    assert sys.stdout is not console.file or not hasattr(sys.stdout, "rich_proxied_file")


def test_a_resumed_run_cannot_become_another(whole):
    with pytest.raises(RecipeError, match=r"lr: 0.05 → 0.1"):
        train(recipe(lr=0.1), whole.folder, resume=True)


def test_a_resumed_run_goes_on_with_the_images_it_began_with(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    kept, info = read_state(folder / "state.safetensors", kind="training")
    number, _ = info["progress"]["images"].split(":")
    facts = {**info, "progress": {**info["progress"], "images": f"{number}:of other names"}}
    write_state(folder / "state.safetensors", kept, facts, kind="training")
    with pytest.raises(RecipeError, match=f"on {number} training images, and these {number} are not the same"):
        train(recipe(), folder, resume=True)


def test_what_may_change_on_the_way_is_written_down(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    train(recipe(test_protocol={"flip": True}), folder, resume=True)
    assert Recipe.load(folder / "recipe.yaml").test_protocol == {"flip": True}


def test_fewer_validation_images_than_processes_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="1 validation images cannot be shared by 2 processes"):
        train(recipe(val_limit=1, devices=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_with_step_and_images(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"step \d+.*train/\d+.*lr") as caught:
        train(recipe(lr=1e30, checkpoint_every=100), tmp_path / "diverged")
    assert not (tmp_path / "diverged/state.safetensors").exists()
    assert "start again (--overwrite): nothing of this run was saved yet" in str(caught.value)
    assert "--resume" not in str(caught.value)
    assert "--init" not in str(caught.value)


def test_the_advice_after_a_loss_that_is_not_finite_counts_on_what_was_saved(tmp_path, monkeypatch):
    original = Task._loss

    def diverging(self, image, mask, weight):
        loss, main = original(self, image, mask, weight)
        return (loss * float("nan"), main * float("nan")) if self.step == limit else (loss, main)

    monkeypatch.setattr(Task, "_loss", diverging)
    # The state is saved every two steps, the weights at the first validation, after step 3.
    for limit, step, weights in ((2, 2, False), (3, 3, True), (5, 4, True)):
        with pytest.raises(TrainingDiverged) as caught:
            train(recipe(), tmp_path / "run", resume=limit > 2)
        assert f"At step {limit} the loss is nan" in str(caught.value)
        assert f"go on from step {step} with --resume" in str(caught.value)
        assert ("--init with this folder" in str(caught.value)) == weights


def test_memory_that_does_not_suffice_says_which_keys_to_change(tmp_path, monkeypatch):
    def greedy(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 3.00 GiB free.")

    with monkeypatch.context() as patch:
        patch.setattr(Task, "_loss", greedy)
        words = r"Training on 2 crops of 48×64 .*accumulate \(now 2\).*batch \(now 4\)"
        with pytest.raises(OutOfMemory, match=words) as caught:
            train(recipe(accumulate=2), tmp_path / "training")
        with pytest.raises(OutOfMemory, match=r"Training on 1 crop of .* Set a smaller crop \(now \[48, 64\]\)"):
            train(recipe(accumulate=4, precision="bf16", output_stride=32), tmp_path / "frugal")
    for word in ("than the GPU has: another 20.00 GiB", "precision: bf16", "output_stride: 32"):
        assert word in str(caught.value)
    monkeypatch.setattr("segcontext.training.task.predict_labels", greedy)
    with pytest.raises(OutOfMemory, match=r"Validating on val/\S+, which is taken whole \(\d+×\d+ pixels\).*is saved"):
        train(recipe(), tmp_path / "validation")
    assert read_state(tmp_path / "validation/state.safetensors", kind="training").info["progress"]["step"] == 3


def test_weights_of_another_run_start_one(whole, tmp_path):
    result = train(recipe(init=str(whole.folder), steps=1, val_every=1, lr=1e-8), tmp_path / "tuned")
    old, new = load_model(whole.folder), load_model(result.folder)
    torch.testing.assert_close(new.classifier.weight, old.classifier.weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "ohem", "ohem_min_kept": 100},
        {"class_weights": "median_frequency", "weight_averaging": 0.5},
        {"precision": "bf16", "clip_gradient": 1.0, "color_jitter": 0.2},
        {"model": "galdnet_v1", "model_options": {"reduce_channels": 16, "project_channels": 8, "fuse_channels": 8}},
    ],
)
def test_every_switch_trains(tmp_path, options):
    options = {**options, "aggregation": None, "aggregation_options": {}} if "model" in options else options
    if "model" in options:
        options |= {"distribution": None, "distribution_options": {}}
    result = train(recipe(**options, steps=2, val_every=2), tmp_path / "run")
    assert result.step == 2
    assert torch.isfinite(torch.cat([p.flatten() for p in load_model(result.folder).parameters()])).all()


def test_a_compiled_run_trains_the_same_network(whole, tmp_path, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile_(network, backend="aot_eager", dynamic=False))
    monkeypatch.setattr("segcontext.speed.training.compiler_missing", lambda device: None)
    torch._dynamo.reset()
    folder = train(recipe(compile=True), tmp_path / "run").folder
    torch._dynamo.reset()
    assert tensors(folder).keys() == tensors(whole.folder).keys()
    losses = [[float(row["loss"]) for row in rows(each) if row["loss"]] for each in (folder, whole.folder)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_a_run_whose_compiler_fails_at_the_backward_pass_is_the_uncompiled_one(whole, tmp_path, monkeypatch):
    def fail(graph, inputs):
        raise RuntimeError("no registers left")

    compile_, backend = torch.compile, aot_autograd(fw_compiler=lambda graph, _: graph, bw_compiler=fail)
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile_(network, backend=backend, dynamic=False))
    monkeypatch.setattr("segcontext.speed.training.compiler_missing", lambda device: None)
    torch._dynamo.reset()
    folder = train(recipe(compile=True), tmp_path / "run").folder
    torch._dynamo.reset()
    assert_same(tensors(folder), tensors(whole.folder))


def launch(tmp_path, options, devices, out, *, patch=""):
    """A run in processes of its own."""
    script = tmp_path / f"run_{out}.py"
    script.write_text(
        "import sys\n"
        "from segcontext import Recipe\n"
        "from segcontext.training import train\n"
        f"{patch}\n"
        "if __name__ == '__main__':\n"
        f"    train(Recipe(**{{**{options!r}, 'devices': {devices}}}), {str(tmp_path / out)!r})\n"
    )
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
    )  # fmt: skip


def test_what_one_process_cannot_read_ends_both(tmp_path):
    """The first process says what the second one met; neither waits for the other."""
    patch = (
        "from segcontext.data import Scenes\n"
        "from segcontext.errors import LabelError\n"
        "import os\n"
        "original = Scenes.__getitem__\n"
        "def broken(self, index):\n"
        "    if os.environ.get('LOCAL_RANK') == '1' and self.split == 'train':\n"
        "        raise LabelError('mask.png holds 77')\n"
        "    return original(self, index)\n"
        "Scenes.__getitem__ = broken\n"
    )
    done = launch(tmp_path, {**BASE, "freeze_bn": True}, 2, "broken", patch=patch)
    assert done.returncode != 0
    assert "LabelError: mask.png holds 77" in done.stderr
    assert "Connection closed" not in done.stderr


def test_two_processes_train_as_one(tmp_path):
    """The same global batch on one process and on two: losses and bases agree to rounding."""
    options = {
        **BASE,
        "freeze_bn": True,
        "lr": 1e-3,
        "steps": 3,
        "model_options": {"reduce_channels": 8, "dropout": 0.0},
    }
    for devices in (1, 2):
        done = launch(tmp_path, options, devices, str(devices))
        assert done.returncode == 0, done.stderr
    one, two = tensors(tmp_path / "1"), tensors(tmp_path / "2")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=name)
    for a, b in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        for key in ("loss", "val_miou"):
            if a[key]:
                assert float(a[key]) == pytest.approx(float(b[key]), rel=1e-3)
