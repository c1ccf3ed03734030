"""The command line as a user meets it: what it does, what it leaves, and what it says when something is wrong."""

import dataclasses
import inspect
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sysconfig
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segcontext import Protocol, Recipe, cli, load_model, save_model, segmenter
from segcontext import evaluation as evaluation_module
from segcontext.demo import demo
from segcontext.recipe_file import read_yaml, shipped_recipes
from segcontext.training import TrainingInterrupted
from segcontext.training.log import Log

COMMANDS = (
    "train",
    "recipes",
    "evaluate",
    "predict",
    "submit",
    "doctor",
    "convert",
    "cost",
    "check-gpu",
    "import-weights",
    "export-weights",
    "demo",
)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs one command in this process, on the CPU, where results are the same bit for bit."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as leaving:
            code = leaving.code
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def train(run, tiny_recipe, folder_data, tmp_path):
    """Trains by the small recipe, into a fresh folder unless another is named."""

    def call(*words, data=folder_data, out=tmp_path / "run"):
        return run("train", "--config", tiny_recipe, "--data", data, "--out", out, *words)

    return call


@pytest.fixture
def data(folder_data, tmp_path):
    """A copy of the small folder that a test may damage."""
    return shutil.copytree(folder_data, tmp_path / "data")


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """A copy of the small run that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "own")


def refused(answer, *patterns):
    """Asserts exit code 2 and an error that fits on one screen and says all of this."""
    said = answer.err
    assert answer.code == 2, answer
    assert "Traceback" not in answer.out + said
    assert 0 < len(said.splitlines()) < 12, said
    assert sum(len(textwrap.wrap(line, 80)) or 1 for line in said.splitlines()) < 24, said
    for pattern in patterns:
        assert re.search(pattern, said, re.DOTALL), f"{pattern!r} is not in:\n{said}"


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder):
    return {name: (folder / name).read_bytes() for name in written(folder)}


def entries(text):
    """Options, arguments and commands of a help page, with their descriptions."""
    entry = re.compile(r"^ {2,4}(\S+(?: \S+)*)(?:(?: {2,}|\n {8,})(\S.*(?:\n {8,}\S.*)*))?$", re.MULTILINE)
    return {found[1]: " ".join((found[2] or "").split()) for found in entry.finditer(text)}


# Help, and words that are not understood


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_describes_every_option(run, command):
    answer = run(command, "--help")
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.startswith(f"usage: segcontext {command} ")
    described = entries(answer.out)
    assert len(described) >= (2 if command == "recipes" else 5)
    for option, text in described.items():
        assert len(re.sub(r"\(default: .*?\)", "", text).strip()) > 5, option
    defaults = 0 if command == "recipes" else 1 if command.endswith("-weights") else 3
    assert sum("(default: " in text for text in described.values()) >= defaults
    assert not re.search(r"``|typing|<class|Literal\[|default: null|None\)|==SUPPRESS|\(\)", answer.out)
    assert max(map(len, answer.out.splitlines())) <= 120


def test_the_help_of_train_gives_the_default_of_every_key(run):
    described = entries(run("train", "--help").out)
    for field in dataclasses.fields(Recipe):
        (text,) = [text for option, text in described.items() if option.split()[0] == f"--{field.name}"]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default not in (None, {}, dataclasses.MISSING):
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert text.endswith(f"(default: {shown})"), text


def test_the_help_of_the_demo_gives_its_defaults(run):
    described = entries(run("demo", "--help").out)
    defaults = {name: entry.default for name, entry in inspect.signature(demo).parameters.items()}
    for option, name in (("--out FOLDER", "out"), ("--seed N", "seed"), ("--steps N", "steps")):
        assert described[option].endswith(f"(default: {defaults[name]})")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_without_a_command_the_commands_are_shown(run, words):
    answer = run(*words)
    assert answer.code == 0
    assert answer.err == ""
    described = entries(answer.out.split("explains each.")[1])
    assert tuple(described) == COMMANDS
    assert all(len(text) > 20 for text in described.values())


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        (["tran"], ["no command 'tran'", "Did you mean 'train'", "--help"]),
        (["--versoin"], ["no command '--versoin'", "--help"]),
        (["train", "--dta", "x"], ["no option --dta", "Did you mean '--data'"]),
        (["train", "--bacth=4", "--out", "x"], ["no option --bacth", "Did you mean '--batch'"]),
        (["train", "--out", "x", "--agregation_options.num_bases", "4"], ["Did you mean '--aggregation_options'"]),
        (["evaluate", "r", "--output-strid", "8"], ["no option --output-strid", "Did you mean '--output_stride'"]),
        (["predict", "r", "a.png", "--out", "b", "--overwrit"], ["Did you mean '--overwrite'"]),
        (["demo", "--step", "3"], ["Did you mean '--steps'"]),
        (["train"], [r"needs --out\.", "segcontext train --help"]),
        (["evaluate"], [r"needs RUN\."]),
        (["predict", "r"], [r"needs IMAGES and --out\."]),
        (["train", "--out"], ["--out needs a value"]),
        (["train", "extra", "--out", "x"], ["extra"]),
    ],
)
def test_words_that_are_not_understood_are_named_with_the_nearest_right_one(run, words, patterns):
    refused(run(*words), *patterns)


@pytest.mark.parametrize(
    ("option", "value", "patterns"),
    [
        ("lr", "fast", ["--lr cannot be 'fast'", "a number"]),
        ("steps", "2.5", ["--steps cannot be '2.5'", "a whole number"]),
        ("pretrained", "maybe", ["--pretrained cannot be 'maybe'", "true or false"]),
        ("optimizer", "sdg", ["--optimizer cannot be 'sdg'", "sgd or adamw", "Did you mean 'sgd'"]),
        ("scale", "1", ["--scale cannot be '1'", "a list"]),
        ("crop", "big", ["--crop cannot be 'big'", "a whole number or a list"]),
        ("model_options", "four", ["--model_options cannot be 'four'", "a mapping"]),
        ("lr", "-1", ["lr must be above 0"]),
        ("flip", "2", ["flip is a probability"]),
        ("batch", "0", ["batch"]),
    ],
)
def test_a_value_of_the_wrong_type_or_size_says_what_was_expected(train, tmp_path, option, value, patterns):
    refused(train(f"--{option}", value), *patterns)
    refused(train(f"--{option}={value}"), *patterns)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("modle: emanet", ["bad.yaml has an unknown key 'modle'", "Did you mean 'model'"]),
        ("lr: fast", ["lr cannot be 'fast'", "a number"]),
        ("steps: 2.5", [r"steps cannot be 2\.5", "a whole number"]),
        ("pretrained: 1", ["pretrained cannot be 1", "true or false"]),
        ("loss: ohme", ["loss must be one of", "Did you mean 'ohem'"]),
        ("scale: 2", ["scale cannot be 2", "a list"]),
        ("- data\n- model", ["bad.yaml must hold 'key: value' lines", "list"]),
        ("lr: [", ["bad.yaml is no YAML"]),
    ],
)
def test_a_wrong_recipe_file_is_refused_by_name(run, folder_data, tmp_path, text, patterns):
    (tmp_path / "bad.yaml").write_text(text)
    answer = run("train", "--config", tmp_path / "bad.yaml", "--data", folder_data, "--out", tmp_path / "run")
    refused(answer, *patterns)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_there_or_has_no_data_is_refused(run, tmp_path):
    refused(run("train", "--config", tmp_path / "no.yaml", "--out", tmp_path / "run"), r"no recipe at .*no\.yaml")
    refused(run("train", "--out", tmp_path / "run"), "the key 'data'", "demo")


def test_the_recipes_that_come_with_it_are_listed_and_taken_by_name(run, monkeypatch, tmp_path):
    answer = run("recipes")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert len(lines) == len(shipped_recipes()) > 80
    line = re.compile(r"emanet/table1_emanet512_r101 +Paper: EMANet, Table 1, EMANet \(512\)")
    assert any(map(line.fullmatch, lines))
    some = run("recipes", "camvid", "LDv2").out.splitlines()
    assert [line.split()[0] for line in some] == ["camvid_cpu", "camvid_gpu", "galdnet_v2_camvid"]
    refused(run("recipes", "camvid", "nonsense"), "None of the .* recipes holds camvid and nonsense")

    def train(*words):
        return run("train", "--config", "camvid_cpu", "--data", "demo", "--out", tmp_path / "run", *words)

    assert recipe_of(train, monkeypatch) == Recipe.load(shipped_recipes()["camvid_cpu"], data="demo")
    refused(run("train", "--config", "camvid_cpus", "--out", "run"), "no recipe at camvid_cpus", "mean camvid_cpu")


def test_the_installed_command_works_and_passes_its_exit_code_on(tiny_run, folder_data, tmp_path):
    script = shutil.which("segcontext", path=sysconfig.get_path("scripts"))
    assert script, "the package is not installed"
    (tmp_path / "cut.jpg").write_bytes((folder_data / "images/val/street_4.jpg").read_bytes()[:300])
    words = [script, "predict", tiny_run, folder_data / "images/val", tmp_path / "cut.jpg", "--out", tmp_path / "out"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1, done.stderr
    assert "2 of 3 images" in done.stdout
    assert "cut.jpg" in done.stdout
    assert "Traceback" not in done.stderr
    assert written(tmp_path / "out/masks") == ["street_4.png", "street_5.png"]


# Training


def test_a_run_is_trained_by_its_recipe_and_the_options_beside_it(train, folder_data, tmp_path):
    answer = train("--steps", "1", "--aggregation_options.num_bases", "5", "--crop", "[48,32]")
    assert answer.code == 0
    assert re.search(r"Best validation mIoU \d+\.\d\d % at step 1 of 1", answer.out)
    assert "report.md" in answer.out
    values = read_yaml(tmp_path / "run/recipe.yaml")
    assert values["data"] == str(folder_data)
    assert (values["steps"], values["batch"], values["crop"]) == (1, 2, [48, 32])
    assert 5 in load_model(tmp_path / "run").aggregation.bases.shape


def recipe_of(train, monkeypatch, *words):
    """The recipe that a command would train by."""
    found = []

    def no_training(recipe, *_, **__):
        found.append(recipe)
        raise TrainingInterrupted("enough", signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("segcontext.training.train", no_training)
        assert train(*words).code == 128 + signal.SIGTERM
    return found[0]


def test_another_part_drops_the_file_s_options_of_it(train, monkeypatch):
    assert recipe_of(train, monkeypatch).aggregation_options == {"num_bases": 4}
    assert recipe_of(train, monkeypatch, "--aggregation", "ema").aggregation_options == {"num_bases": 4}
    other = recipe_of(train, monkeypatch, "--aggregation", "none", "--distribution", "none")
    assert (other.aggregation, other.aggregation_options) == ("none", {})
    other = recipe_of(train, monkeypatch, "--aggregation=psp", "--aggregation_options", "{sizes: [1, 2]}")
    assert other.aggregation_options == {"sizes": [1, 2]}


def test_a_part_can_be_left_out_of_a_recipe_with_options(train):
    assert train("--aggregation", "none", "--distribution", "none", "--steps", "1").code == 0


def test_of_steps_and_epochs_the_one_on_the_command_line_counts(run, folder_data, tiny_recipe, tmp_path, monkeypatch):
    both = tmp_path / "both.yaml"
    both.write_text(tiny_recipe.read_text() + "epochs: 3\n")

    def train(*words):
        return run("train", "--config", both, "--data", folder_data, "--out", tmp_path / "run", *words)

    def length(*words):
        recipe = recipe_of(train, monkeypatch, *words)
        return recipe.steps, recipe.epochs

    assert length() == (2, 3)
    assert length("--steps", "5") == (5, 0)
    assert length("--epochs", "7") == (Recipe(data="x").steps, 7)
    assert length("--epochs", "0") == (2, 0)
    assert length("--steps", "5", "--epochs", "7") == (5, 7)


def test_a_stopped_process_of_several_leaves_the_report_to_the_first(train, monkeypatch):
    def stopped(*_, **__):
        raise TrainingInterrupted("Stopped by SIGTERM", signal.SIGTERM)

    monkeypatch.setattr("segcontext.training.train", stopped)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert train() == Answer(0, "", "")
    monkeypatch.setenv("LOCAL_RANK", "0")
    answer = train()
    assert answer.code == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM" in answer.err


def test_an_earlier_run_or_anything_else_is_not_replaced(train, own_run, data):
    before = contents(own_run)
    refused(train(out=own_run), "is not empty", "--resume", "--overwrite")
    assert contents(own_run) == before
    things = contents(data)
    refused(train("--overwrite", out=data), "holds no earlier run")
    refused(train("--resume", out=data), r"holds no state\.safetensors")
    assert contents(data) == things
    refused(train("--overwrite", out=data / "classes.txt"), "is a file")
    refused(train(out=data / "classes.txt" / "run"), "Not a directory")


def test_overwrite_replaces_an_earlier_run_and_nothing_else(train, own_run):
    (own_run / "validation/left-over").touch()
    (own_run / "notes").write_text("mine")
    assert train("--overwrite", "--steps", "1", out=own_run).code == 0
    assert read_yaml(own_run / "recipe.yaml")["steps"] == 1
    assert not (own_run / "validation/left-over").exists()
    assert (own_run / "notes").read_text() == "mine"


def test_a_changed_recipe_cannot_be_resumed_and_the_keys_are_named(train, own_run):
    before = contents(own_run)
    answer = train("--resume", "--lr", "0.1", "--crop", "32", "--workers", "1", out=own_run)
    refused(answer, r"lr: 0\.05 → 0\.1", "crop: 64 → 32", "own")
    assert "workers" not in answer.err
    assert contents(own_run) == before


def test_a_stopped_run_says_how_to_go_on_and_goes_on_by_its_own_recipe(run, train, tmp_path, monkeypatch):
    original = Log.on_train_batch_end

    def and_stop(self, trainer, task, *rest):
        original(self, trainer, task, *rest)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "on_train_batch_end", and_stop)
        answer = train("--steps", "4")
    assert answer.code == 128 + signal.SIGTERM
    assert re.search(r"Stopped by SIGTERM after step [12] of 4.*--resume", answer.err)
    answer = run("train", "--out", tmp_path / "run", "--resume")
    assert answer.code == 0
    assert "of 4" in answer.out


def test_an_interruption_has_the_shell_s_exit_code(train, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("segcontext.training.train", interrupted)
    answer = train()
    assert (answer.code, answer.err) == (130, "Stopped.\n")


def test_a_run_means_the_same_from_another_working_directory(run, train, data, own_run, tmp_path, monkeypatch):
    """Data and the run it starts from were named from the folder where it was trained."""
    words = ("--init", "own", "--steps", "1")
    assert train(*words, data="data", out="run").code == 0
    values = read_yaml(tmp_path / "run/recipe.yaml")
    assert (values["data"], values["init"]) == (str(data), str(own_run))
    assert str(data) in (tmp_path / "run/report.md").read_text()
    assert train(*words, "--resume", data="data", out="run").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("train", "--out", "../run", "--resume").code == 0
    assert run("evaluate", "../run", "--limit", "1", "--out", "found").code == 0
    refused(run("train", "--out", "../run", "--resume", "--init", "own"), "init: .*elsewhere/own")


def test_weights_of_another_run_are_taken_over(train, tiny_run, tmp_path):
    assert train("--init", tiny_run, "--steps", "1", "--lr", "1e-9").code == 0
    old, new = load_model(tiny_run), load_model(tmp_path / "run")
    torch.testing.assert_close(new.classifier.weight, old.classifier.weight)


def test_other_classes_can_be_trained_from_a_run_without_its_classifiers(train, camvid_data, tiny_run, tmp_path):
    words = ("--init", tiny_run, "--init_classifier", "false", "--steps", "1", "--lr", "1e-9")
    assert train(*words, data=camvid_data).code == 0
    old, new = load_model(tiny_run), load_model(tmp_path / "run")
    for before, after in zip(old.backbone.parameters(), new.backbone.parameters(), strict=True):
        torch.testing.assert_close(after, before)
    assert (old.num_classes, new.num_classes) == (3, 11)


def test_the_demo_passes_its_options_on(run, monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr("segcontext.demo.demo", lambda out, **options: given.update(out=out, **options))
    assert run("demo", "--out", tmp_path, "--seed", "3", "--steps", "4").code == 0
    assert (given["out"], given["seed"], given["steps"]) == (str(tmp_path), 3, 4)
    assert "overwrite" not in given
    assert run("demo", "--overwrite").code == 0
    assert (given["out"], given["overwrite"]) == ("runs/demo", True)


def test_the_demo_refuses_no_steps_and_a_folder_in_use(run, tmp_path, own_run):
    refused(run("demo", "--steps", "0", "--out", tmp_path / "demo"), "steps")
    refused(run("demo", "--out", own_run), "is not empty", "--overwrite")


# Evaluation


def test_an_evaluation_agrees_with_the_run_and_leaves_its_tables(run, tiny_run, tmp_path):
    answer = run("evaluate", tiny_run, "--out", tmp_path / "found")
    assert answer.code == 0
    for word in ("sky", "ground", "thing", "mIoU", "pixel accuracy", "frequency-weighted IoU", "2 images"):
        assert word in " ".join(answer.out.split()), word
    found, before = (
        json.loads((folder / "scores.json").read_text()) for folder in (tmp_path / "found", tiny_run / "validation")
    )
    assert {**found, "seconds": 0, "weights": ""} == {**before, "seconds": 0, "weights": ""}
    assert found["weights"] == str(tiny_run / "weights/best.safetensors")
    files = written(tmp_path / "found")
    assert set(files) > {"scores.json", "per_class.csv", "confusion.csv", "confusion.png", "pictures/overview.png"}


def test_the_protocol_and_the_network_are_as_asked(run, tiny_run, tmp_path, monkeypatch):
    seen = []
    original = evaluation_module.evaluate

    def watched(model, dataset, **options):
        seen.append((model.backbone.output_stride, model.aggregation.evaluation_iterations, options["precision"]))
        return original(model, dataset, **options)

    monkeypatch.setattr(evaluation_module, "evaluate", watched)
    words = ("--scales", "[0.5,1.25]", "--flip", "--average", "logits", "--padding", "stride_plus_one")
    more = ("--output_stride", "8", "--iterations", "1", "--precision", "bf16", "--limit", "1", "--which", "last")
    assert run("evaluate", tiny_run, *words, *more, "--out", tmp_path / "scales").code == 0
    window = ("--window", "[32,40]", "--overlap", "0.5", "--device", "cpu")
    assert run("evaluate", tiny_run, *window, "--split", "train", "--out", tmp_path / "window").code == 0
    assert seen == [(8, 1, "bf16"), (16, 3, None)]
    scales, sliding = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("scales", "window"))
    assert scales["images"] == 1
    conditions = ("weights", "output_stride", "iterations", "precision")
    assert [scales[key] for key in conditions] == [str(tiny_run / "weights/last.safetensors"), 8, 1, "bf16"]
    assert [sliding[key] for key in conditions] == [str(tiny_run / "weights/best.safetensors"), 16, 3, "32"]
    assert (sliding["images"], sliding["split"]) == (4, "train")
    asked = {"mode": "whole", "scales": [0.5, 1.25], "flip": True, "average": "logits", "padding": "stride_plus_one"}
    assert asked.items() <= scales["protocol"].items()
    assert {"mode": "sliding", "window": [32, 40], "overlap": 0.5, "flip": False}.items() <= sliding["protocol"].items()


def test_a_faster_copy_is_evaluated_and_compared(run, tiny_run, folder_data, tmp_path):
    faster = ("--speed", "folded", "--precision", "32")
    result = run("evaluate", tiny_run, *faster, "--compare", "--out", tmp_path / "fast")
    assert result.code == 0
    assert "2 images, network beside its faster copy (32)" in " ".join(result.out.split())
    assert json.loads((tmp_path / "fast/scores.json").read_text())["speed"] == "folded"
    assert run("predict", tiny_run, folder_data / "images/val", *faster, "--out", tmp_path / "masks").code == 0
    alone = run("evaluate", tiny_run, "--compare", "--out", tmp_path / "alone")
    assert alone.code == 2
    assert "--speed" in alone.err


def test_a_run_is_evaluated_as_its_recipe_says_unless_told_otherwise(run, own_run, tmp_path):
    recipe = yaml.safe_load((own_run / "recipe.yaml").read_text())
    recipe["test_protocol"] = {"window": 32, "mode": "sliding", "overlap": 0.5, "flip": True, "iterations": 2}
    (own_run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    found = {}
    for name, words in {
        "as_told": (),
        "scale": ("--scales", "0.5"),
        "whole": ("--mode", "whole"),
        "plain": ("--flip", "false"),
    }.items():
        assert run("evaluate", own_run, "--limit", "1", "--out", tmp_path / name, *words).code == 0
        found[name] = json.loads((tmp_path / name / "scores.json").read_text())["protocol"]
    own = {"mode": "sliding", "window": 32, "overlap": 0.5, "flip": True, "scales": [1.0]}
    assert own.items() <= found["as_told"].items()
    assert {**own, "scales": [0.5]}.items() <= found["scale"].items()
    assert {"mode": "whole", "window": None, "flip": True}.items() <= found["whole"].items()
    assert {**own, "flip": False}.items() <= found["plain"].items()


def test_predictions_follow_the_recipe_as_evaluations_do(run, own_run, folder_data, tmp_path, monkeypatch):
    from segcontext.inference import Predictor

    recipe = yaml.safe_load((own_run / "recipe.yaml").read_text())
    recipe["test_protocol"] = {"window": 32, "overlap": 0.5, "flip": True, "iterations": 2, "output_stride": 8}
    (own_run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    asked = []

    def watched(model, *, protocol, **options):
        asked.append((protocol, model.aggregation.evaluation_iterations, model.backbone.output_stride))
        return Predictor(model, protocol=protocol, **options)

    monkeypatch.setattr("segcontext.inference.Predictor", watched)
    image = folder_data / "images/val/street_4.jpg"
    more = ("--mode", "whole", "--scales", "0.5", "--iterations", "1", "--output_stride", "16")
    for name, run_or_file, words in (
        ("as_told", own_run, ()),
        ("otherwise", own_run, more),
        ("file", own_run / "weights/best.safetensors", ()),
    ):
        assert run("predict", run_or_file, image, "--out", tmp_path / name, *words).code == 0
    own = Protocol(mode="sliding", window=32, overlap=0.5, flip=True)
    # A weight file alone has no recipe.
    assert asked == [(own, 2, 8), (Protocol(scales=(0.5,), flip=True), 1, 16), (Protocol(), 3, 16)]


@pytest.mark.parametrize(
    ("words", "flip"),
    [
        (("IMAGE",), True),
        (("IMAGE", "--flip"), True),
        (("--flip", "IMAGE"), True),
        (("IMAGE", "--flip", "true"), True),
        (("--flip", "false", "IMAGE"), False),
        (("IMAGE", "--flip=false"), False),
    ],
)
def test_flip_can_be_switched_on_and_off(run, own_run, folder_data, tmp_path, monkeypatch, words, flip):
    from segcontext.inference import Predictor

    recipe = yaml.safe_load((own_run / "recipe.yaml").read_text())
    (own_run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "test_protocol": {"flip": True}}))
    asked = []
    monkeypatch.setattr(
        "segcontext.inference.Predictor", lambda *_, **options: asked.append(options) or Predictor(*_, **options)
    )
    image = folder_data / "images/val/street_4.jpg"
    words = [image if word == "IMAGE" else word for word in words]
    assert run("predict", own_run, *words, "--out", tmp_path / "out").code == 0
    assert [options["protocol"].flip for options in asked] == [flip]
    assert len(list((tmp_path / "out/masks").iterdir())) == 1


def test_an_image_that_does_not_fit_into_memory_has_a_way_on(run, tiny_run, folder_data, tmp_path):
    """At this scale an image takes more than a machine can address."""
    words = ("--scales", "[1,100000]", "--out", tmp_path / "out")
    advice = ("--window 769", "--scales, now up to 100000", "bf16", "--device", r"another [\d,.]+ GiB could")
    refused(run("evaluate", tiny_run, *words, "--batch", "2"), "OutOfMemory.*Evaluating on", "--batch 1", *advice)
    image = folder_data / "images/val/street_4.jpg"
    refused(run("predict", tiny_run, image, *words), r"OutOfMemory.*street_4\.jpg \(48×64 pixels\)", *advice)
    sliding = ("--window", "[32,48]", "--precision", "bf16")
    refused(run("predict", tiny_run, image, *words, *sliding), r"smaller windows \(--window, now 32×48\)")


def test_a_training_that_does_not_fit_into_memory_has_a_way_on(train):
    side = 10**8
    advice = (r"accumulate \(now 1\)", rf"crop \(now {side}\)", r"batch \(now 2\)", "precision: bf16")
    refused(train("--crop", str(side)), f"OutOfMemory.*2 crops of {side}×{side}", *advice)


def test_options_that_contradict_each_other_are_refused(run, train, tiny_run):
    refused(train("--resume", "--overwrite"), "one of the two")
    refused(run("evaluate", tiny_run, "--mode", "whole", "--window", "32", "--out", "a"), "mode 'sliding'")
    refused(run("evaluate", tiny_run, "--overlap", "0.9", "--out", "a"), "--window")


def test_a_test_split_is_predicted_for_its_server(run, tiny_run, tmp_path):
    for frame in (19, 20):
        path = tmp_path / f"city/leftImg8bit/test/berlin/berlin_000000_{frame:06}_leftImg8bit.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 48, 3), 4 * frame, np.uint8)).save(path)
    torch.manual_seed(0)
    model = segmenter(19, backbone="test_resnet", output_stride=16, pretrained=False, reduce_channels=8)
    save_model(tmp_path / "city.safetensors", model)
    words = ("submit", tmp_path / "city.safetensors", "--data", tmp_path / "city", "--out", tmp_path / "sent")
    answer = run(*words, "--flip", "--window", "32")
    assert answer.code == 0, answer
    assert "2 predictions in" in answer.out
    assert "Cityscapes" in answer.out
    assert written(tmp_path / "sent") == [f"berlin_000000_{frame:06}_pred_labelIds.png" for frame in (19, 20)]
    assert (tmp_path / "sent.zip").is_file()
    refused(run(*words), "--resume")
    refused(run("submit", tiny_run, "--split", "val", "--out", tmp_path / "own"), "no test server")


def test_a_weight_file_is_enough_to_evaluate(run, tiny_run, folder_data, tmp_path):
    file = shutil.copy(tiny_run / "weights/best.safetensors", tmp_path / "mine.safetensors")
    refused(run("evaluate", file), "Say what to evaluate on: --data FOLDER")
    assert run("evaluate", file, "--data", folder_data, "--window", "[32]").code == 0
    found = json.loads((tmp_path / "mine-evaluation/scores.json").read_text())
    assert (found["protocol"]["window"], found["weights"], found["data"]) == (32, str(file), str(folder_data))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--window", "32"), {"window": 32}),
        (("--window=[32]",), {"window": 32}),
        (("--window", "[24,32]"), {"window": [24, 32]}),
        (("--scales", "0.5"), {"scales": [0.5], "window": None}),
        (("--window", "32", "--batch", "2"), {"window": 32}),
    ],
)
def test_a_window_or_scale_needs_no_brackets(run, tiny_run, tmp_path, words, expected):
    assert run("evaluate", tiny_run, "--limit", "1", "--out", tmp_path / "found", *words).code == 0
    protocol = json.loads((tmp_path / "found/scores.json").read_text())["protocol"]
    assert expected.items() <= protocol.items()


def test_options_may_be_spelt_with_dashes(run, train, tiny_run, folder_data, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        "segcontext.checkpoint.load_model", lambda *_, **options: seen.append(options) or load_model(*_)
    )
    words = ("--output-stride=8", "--no-overlay", "--out", tmp_path / "no-overlay")
    assert run("predict", tiny_run, folder_data / "images/val", *words).code == 0
    assert seen[0]["output_stride"] == 8
    assert {name.split("/")[0] for name in written(tmp_path / "no-overlay")} == {"masks"}
    assert recipe_of(train, monkeypatch, "--aggregation-options.num_bases", "5").aggregation_options == {"num_bases": 5}


def test_the_options_of_the_network_reach_it(run, tiny_run, folder_data, monkeypatch, tmp_path):
    from segcontext.inference import Predictor

    seen = []
    monkeypatch.setattr(
        "segcontext.inference.Predictor",
        lambda *_, **options: seen.append(options["precision"]) or Predictor(*_, **options),
    )
    images = folder_data / "images/val"
    assert run("predict", tiny_run, images, "--precision", "bf16", "--out", tmp_path / "half").code == 0
    assert run("predict", tiny_run, images, "--out", tmp_path / "full").code == 0
    assert seen == ["bf16", None]
    seen = []
    original = evaluation_module.evaluate
    monkeypatch.setattr(
        evaluation_module, "evaluate", lambda *_, **options: seen.append(options["batch"]) or original(*_, **options)
    )
    assert run("evaluate", tiny_run, "--batch", "2", "--out", tmp_path / "found").code == 0
    assert seen == [2]
    refused(run("evaluate", tiny_run, "--batch", "0", "--out", tmp_path / "none"), "batch=0")


def test_other_data_are_recognised_or_else_of_the_run_s_kind(run, own_run, camvid_data, folder_data, tmp_path):
    recipe = own_run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("dataset: auto", "dataset: camvid"))
    # A folder that tells its kind is not taken for the run's kind.
    assert run("evaluate", own_run, "--data", folder_data, "--out", tmp_path / "found").code == 0
    (tmp_path / "bare").mkdir()
    refused(
        run("evaluate", own_run, "--data", tmp_path / "bare", "--out", tmp_path / "no"), "CamVid at .*bare", "valannot"
    )
    refused(run("evaluate", own_run, "--data", tmp_path / "nowhere", "--out", tmp_path / "no"), "No folder .*nowhere")
    recipe.write_text(recipe.read_text().replace("dataset: camvid", "dataset: auto"))
    refused(run("evaluate", own_run, "--data", tmp_path / "bare", "--out", tmp_path / "no"), "No known data set")


PLAIN = """
from segcontext.data import Dataset


class Plain(Dataset):
    name, classes, palette, splits = "plain", ("sky", "ground", "thing"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ("val",)

    def list_items(self):
        return self.pairs("pictures", "labels")
"""


def test_data_that_no_layout_tells_are_of_the_run_s_own_kind(run, own_run, folder_data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plain_data.py").write_text(PLAIN)
    shutil.copytree(folder_data / "images/val", tmp_path / "elsewhere/pictures")
    shutil.copytree(folder_data / "masks/val", tmp_path / "elsewhere/labels")
    recipe = own_run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("dataset: auto", "dataset: plain_data.Plain"))
    assert run("evaluate", own_run, "--data", tmp_path / "elsewhere", "--out", tmp_path / "found").code == 0
    assert json.loads((tmp_path / "found/scores.json").read_text())["dataset"] == "plain"


def test_an_evaluation_is_not_overwritten_unless_asked(run, own_run):
    assert run("evaluate", own_run, "--limit", "1").code == 0
    before = contents(own_run / "evaluation")
    refused(run("evaluate", own_run), "evaluation is not empty", "--out", "--overwrite")
    assert contents(own_run / "evaluation") == before
    assert run("evaluate", own_run, "--overwrite").code == 0
    assert json.loads((own_run / "evaluation/scores.json").read_text())["images"] == 2
    refused(run("evaluate", own_run, "--overwrite", "--out", own_run / "recipe.yaml"), "is a file")


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        (["--mode", "sliding"], ["window"]),
        (["--window", "[1,2,3]"], ["window", "height, width"]),
        (["--scales", "[0,1]"], ["scales", "above 0"]),
        (["--overlap", "1", "--window", "[32]"], ["overlap"]),
        (["--mode", "slidng"], ["--mode cannot be 'slidng'", "whole or sliding", "Did you mean 'sliding'"]),
        (["--output_stride", "7"], ["output_stride must be 8, 16 or 32"]),
        (["--iterations", "-1"], ["iterations"]),
        (["--limit", "0"], ["limit"]),
        (["--split", "vall"], ["no split 'vall'", "Did you mean 'val'"]),
        (["--dataset", "foldr"], ["No data set 'foldr'", "Did you mean 'folder'"]),
        (["--device", "gpu"], ["'gpu' is no device", "cuda"]),
    ],
)
def test_a_protocol_that_cannot_be_is_refused_before_anything_is_written(run, tiny_run, tmp_path, words, patterns):
    refused(run("evaluate", tiny_run, "--out", tmp_path / "found", *words), *patterns)
    assert not (tmp_path / "found").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_not_used(run, train, tiny_run, tmp_path):
    refused(run("evaluate", tiny_run, "--device", "cuda", "--out", tmp_path / "found"), "device 'cuda' cannot be used")
    if not torch.backends.mps.is_available():
        refused(train("--accelerator", "gpu"), "accelerator: gpu", "accelerator: cpu")
        assert not (tmp_path / "run").exists()


# Prediction


@pytest.fixture
def pictures(tmp_path):
    """Images of many kinds and sizes, each with the height and width that its mask must have."""
    folder = tmp_path / "pictures"
    (folder / "deep" / "er").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(folder / "plain.png")
    Image.fromarray(pixels[..., :3]).save(folder / "turned.png", exif=exif)
    Image.fromarray(pixels[..., :3]).transpose(Image.Transpose.ROTATE_270).save(folder / "upright.png")
    Image.fromarray(pixels).save(folder / "alpha.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "grey16.tif")
    Image.fromarray(pixels[..., :3]).quantize(8).save(folder / "palette.png", transparency=0)
    Image.fromarray(pixels[:1, :1, :3]).save(folder / "one pixel.bmp")
    Image.fromarray(pixels[:1, :, :3]).save(folder / "deep" / "a.row.JPG", "JPEG")
    Image.fromarray(pixels[:, :1, :3]).save(folder / "deep" / "er" / "column.webp")
    (folder / "notes.txt").write_text("no picture")
    sizes = dict.fromkeys(("plain", "alpha", "grey", "grey16", "palette"), (33, 47))
    sizes |= {"turned": (47, 33), "upright": (47, 33), "one pixel": (1, 1)}
    return folder, sizes | {"deep/a.row": (1, 47), "deep/er/column": (33, 1)}


def test_pictures_of_every_kind_keep_their_names_and_sizes(run, tiny_run, pictures, tmp_path):
    folder, sizes = pictures
    out = tmp_path / "out"
    answer = run("predict", tiny_run, folder, "--out", out, "--probabilities")
    assert answer.code == 0, answer.err
    assert "10 of 10 images" in answer.out
    assert written(out / "masks") == sorted(f"{name}.png" for name in sizes)
    assert written(out / "overlays") == sorted(f"{name}.jpg" for name in sizes)
    palette = load_model(tiny_run).palette
    probabilities = {}
    for name, (height, width) in sizes.items():
        with Image.open(out / "masks" / f"{name}.png") as mask, Image.open(out / "overlays" / f"{name}.jpg") as overlay:
            assert (mask.mode, mask.size, overlay.size) == ("P", (width, height), (width, height)), name
            assert mask.getpalette("RGB")[:9] == [channel for colour in palette for channel in colour]
            labels = np.asarray(mask)
        with np.load(out / "probabilities" / f"{name}.npz") as stored:
            assert stored["classes"].tolist() == ["sky", "ground", "thing"]
            probabilities[name] = stored["probabilities"].astype(np.float32)
        assert probabilities[name].shape == (3, height, width)
        np.testing.assert_allclose(probabilities[name].sum(0), 1, atol=2e-3)
        # Two classes may tie in half precision.
        chosen = np.take_along_axis(probabilities[name], labels[None].astype(np.int64), 0)[0]
        np.testing.assert_array_equal(chosen, probabilities[name].max(0))
    np.testing.assert_array_equal(probabilities["turned"], probabilities["upright"])
    np.testing.assert_array_equal(probabilities["alpha"], probabilities["plain"])
    np.testing.assert_array_equal(probabilities["grey16"], probabilities["grey"])
    assert np.abs(probabilities["plain"] - probabilities["grey"]).max() > 1e-3


def test_files_folders_and_globs_are_taken_together(run, tiny_run, pictures, tmp_path):
    folder, _ = pictures
    words = (folder / "one pixel.bmp", folder / "deep", f"{folder}/gr*.png", f"{folder}/*.png")
    answer = run("predict", tiny_run, *words, "--no_overlay", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    names = ["a.row", "alpha", "er/column", "grey", "one pixel", "palette", "plain", "turned", "upright"]
    assert written(tmp_path / "out") == sorted(f"masks/{name}.png" for name in names)


def test_the_protocol_changes_what_is_predicted(run, tiny_run, pictures, tmp_path):
    image = pictures[0] / "plain.png"
    for name, words in {
        "whole": (),
        "scales": ("--scales", "[1,2]", "--flip"),
        "window": ("--window", "[32,32]"),
        "stride": ("--output_stride", "8"),
        "iterations": ("--iterations", "0"),
    }.items():
        words = (*words, "--probabilities", "--no_overlay", "--out", tmp_path / name)
        assert run("predict", tiny_run, image, *words).code == 0
    found = {path.parts[-3]: np.load(path)["probabilities"] for path in tmp_path.glob("*/probabilities/plain.npz")}
    assert len(found) == 5
    whole = found.pop("whole")
    for name, other in found.items():
        assert other.shape == whole.shape
        assert not np.array_equal(other, whole), name


def test_predictions_are_not_overwritten_unless_asked(run, tiny_run, pictures, tmp_path):
    folder, out = pictures[0] / "deep", tmp_path / "out"
    assert run("predict", tiny_run, folder, "--out", out).code == 0
    (out / "masks/a.row.png").write_text("mine")
    before = contents(out)
    refused(run("predict", tiny_run, folder, "--out", out), "4 outputs are already there", r"a\.row", "--overwrite")
    assert contents(out) == before
    assert run("predict", tiny_run, folder, "--out", out, "--overwrite").code == 0
    with Image.open(out / "masks/a.row.png") as mask:
        assert mask.size == (47, 1)
    for name in ("er/column.png", "a.row.png"):
        (out / "masks" / name).unlink()
    shutil.rmtree(out / "overlays/er")
    refused(run("predict", tiny_run, folder, "--out", out), "1 output is already there")


def test_an_input_is_never_overwritten(run, tiny_run, folder_data, tmp_path):
    (tmp_path / "masks").mkdir()
    source = shutil.copy(folder_data / "masks/val/street_4.png", tmp_path / "masks/a.png")
    before = (tmp_path / "masks/a.png").read_bytes()
    refused(run("predict", tiny_run, source, "--out", tmp_path, "--overwrite"), "is an input")
    assert (tmp_path / "masks/a.png").read_bytes() == before


def test_inputs_that_are_not_there_are_refused(run, tiny_run, tmp_path):
    out = ("--out", tmp_path / "out")
    refused(run("predict", tiny_run, tmp_path / "no.png", *out), r"no\.png does not exist")
    refused(run("predict", tiny_run, f"{tmp_path}/*.png", *out), "matches no image")
    refused(run("predict", tiny_run, tmp_path, *out), "hold no image")
    (tmp_path / "file").touch()
    refused(run("predict", tiny_run, tmp_path, "--out", tmp_path / "file"), "is a file")
    assert not (tmp_path / "out").exists()


def test_a_truncated_picture_does_not_stop_the_others(run, tiny_run, data, tmp_path):
    broken = data / "images/val/street_4.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    answer = run("predict", tiny_run, data / "images/val", "--out", tmp_path / "out")
    assert answer.code == 1
    assert re.search(r"street_4\.jpg cannot be read.*1 of 2 images", answer.out, re.DOTALL)
    assert written(tmp_path / "out/masks") == ["street_5.png"]
    answer = run("predict", tiny_run, broken, "--out", tmp_path / "alone")
    refused(answer, r"street_4\.jpg cannot be read as an image", "truncated")
    assert "None of the" not in answer.err
    assert not (tmp_path / "alone").exists()


# Bad data

WORKERS = pytest.mark.parametrize("workers", [0, 1])


def test_a_folder_that_is_not_there_is_said_with_what_is(run, train, tiny_run, data, tmp_path):
    for answer in (
        train(data=tmp_path / "nowhere"),
        run("evaluate", tiny_run, "--data", tmp_path / "nowhere", "--out", tmp_path / "found"),
    ):
        refused(answer, r"No folder .*nowhere", r"holds: .*data/", "images/", "trainannot/")
    (data / "classes.txt").unlink()
    refused(train(data=data), "No classes file", r"classes\.txt")
    refused(train(data=data / "images"), "No known data set", r"train/, val/")
    assert not (tmp_path / "run").exists()


def test_an_image_without_mask_is_named(run, train, tiny_run, data, tmp_path):
    (data / "masks/train/street_1.png").unlink()
    refused(train(data=data), r"1 of 4 images .* no mask: images/train/street_1\.jpg", r"masks/train/street_1\.png")
    (data / "masks/val/street_5.png").unlink()
    answer = run("evaluate", tiny_run, "--data", data, "--out", tmp_path / "found")
    refused(answer, r"images/val/street_5\.jpg", r"Expected .*masks/val/street_5\.png")
    assert not (tmp_path / "run").exists()


@WORKERS
def test_a_mask_of_another_size_is_named_with_both_sizes(train, data, workers):
    Image.new("L", (10, 20)).save(data / "masks/train/street_1.png")
    answer = train("--workers", workers, data=data)
    refused(answer, r"street_1\.png is 10×20 pixels, but its image .*street_1\.jpg is 64×48", "nearest")


@WORKERS
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_outside_the_classes_is_named_with_file_and_value(train, data, workers, split):
    name = "street_1.png" if split == "train" else "street_4.png"
    labels = np.zeros((48, 64), np.uint8)
    labels[3, 5:9] = 7
    Image.fromarray(labels).save(data / "masks" / split / name)
    answer = train("--workers", workers, data=data)
    refused(answer, rf"masks/{split}/{name}", r"7 \(4 pixels\)", r"Expected 0\.\.2 for the 3 classes and 255 for void")


@WORKERS
def test_a_label_outside_the_classes_is_named_in_evaluation(run, tiny_run, data, tmp_path, workers):
    Image.new("L", (64, 48), 3).save(data / "masks/val/street_5.png")
    words = ("--data", data, "--workers", workers, "--out", tmp_path / "found")
    refused(run("evaluate", tiny_run, *words), r"val/street_5\.png", r"3 \(3072 pixels\)", "start at 1")
    assert not (tmp_path / "found").exists()


@WORKERS
def test_a_truncated_picture_stops_the_training_with_its_name(train, data, workers):
    broken = data / "images/train/street_2.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    answer = train("--workers", workers, data=data)
    refused(answer, r"images/train/street_2\.jpg cannot be read as an image", "truncated", "remove it")


def test_no_reader_process_outlives_an_error(run, train, tiny_run, data, tmp_path):
    from torch.multiprocessing import active_children

    Image.new("L", (64, 48), 9).save(data / "masks/val/street_4.png")
    refused(train("--workers", "1", data=data), r"street_4\.png")
    assert active_children() == []
    refused(run("evaluate", tiny_run, "--data", data, "--workers", "1", "--out", tmp_path / "found"), r"street_4\.png")
    assert active_children() == []


def test_the_training_can_go_on_once_the_data_are_mended(run, train, data, folder_data, tmp_path):
    mask = data / "masks/train/street_1.png"
    Image.new("L", (64, 48), 7).save(mask)
    refused(train(data=data), r"street_1\.png")
    shutil.copy(folder_data / "masks/train/street_1.png", mask)
    refused(train(data=data), "--resume")
    assert run("train", "--out", tmp_path / "run", "--resume").code == 0


def test_an_empty_split_is_refused(run, train, tiny_run, data, tmp_path):
    for file in (data / "images/val").iterdir():
        file.unlink()
    for answer in (train(data=data), run("evaluate", tiny_run, "--data", data, "--out", tmp_path / "found")):
        refused(answer, "split 'val' .* is empty", "at least one image")
    shutil.rmtree(data / "images/val")
    refused(train(data=data), "no split 'val'; it has train")


# Bad recipes


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        (["--model", "emmanet"], ["no model 'emmanet'", "Did you mean 'emanet'"]),
        (["--aggregation", "emaa"], ["no aggregation 'emaa'", "Did you mean 'ema'", "psp"]),
        (["--aggregation", "my_lab.Attention"], ["'my_lab.Attention' cannot be imported", "my_lab"]),
        (["--aggregation_options", "{num_base: 4}"], ["'num_base'", "Did you mean 'num_bases'"]),
        (["--distribution", "affinty"], ["no distribution 'affinty'", "Did you mean 'affinity'"]),
        (["--arrangement", "galld"], ["arrangement must be one of gald, ldga, parallel", "galld"]),
        (["--backbone", "resnett18"], ["'resnett18' is not a timm model", "resnet18"]),
        (["--model_options", "{reduce: 4}"], ["'reduce'", "Did you mean 'reduce_channels'"]),
        (["--dataset", "camvd"], ["No data set 'camvd'", "Did you mean 'camvid'"]),
        (["--dataset", "my_lab.Data"], ["cannot import 'my_lab'"]),
        (["--val_split", "vall"], ["no split 'vall'", "Did you mean 'val'"]),
        (["--class_weights", "[1,2]"], ["class_weights has 2 numbers", "3 classes: sky, ground, thing"]),
        (["--class_weights", "inverse_lgo"], ["'inverse_lgo'", "Did you mean 'inverse_log'"]),
        (["--batch", "3", "--accumulate", "2"], ["batch must be a multiple of accumulate"]),
        (["--init", "nowhere"], ["no run at nowhere"]),
        (["--weights", "nowhere.pth"], [r"no weight file at 'nowhere\.pth'"]),
    ],
)
def test_a_recipe_that_cannot_be_built_is_refused_before_anything_is_written(train, tmp_path, words, patterns):
    refused(train(*words), *patterns)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_with_step_pictures_and_advice(train):
    answer = train("--lr", "1e30", "--steps", "4")
    refused(
        answer,
        r"At step [1-3] the loss is -?(nan|inf|[\d.e+]+) and its gradient's norm (nan|inf)",
        r"Images of the step: \S*street_\d\.jpg, \S*street_\d\.jpg\.",
        r"Look at these images and masks.*start again \(--overwrite\): nothing of this run was saved yet",
        r"lower lr \(now [\d.]+e\+(29|30)\)",
    )


def test_without_a_network_pretrained_weights_have_a_way_on(train, tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("segcontext.backbone_weights.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("segcontext.backbone_weights.get_session", no_network)
    monkeypatch.setattr("segcontext.backbone_weights.hf_hub_download", no_network)
    answer = train("--pretrained", "true")
    refused(answer, "test_resnet", "Name or service not known", "weights", "pretrained=False")
    assert not (tmp_path / "run").exists()


# Bad runs and checkpoints


def test_a_run_that_is_not_there_is_said(run, folder_data, tmp_path):
    words = ("--out", tmp_path / "out")
    refused(run("evaluate", tmp_path / "nowhere", *words), "no run at .*nowhere")
    refused(run("predict", tmp_path / "nowhere", folder_data, *words), "no run at .*nowhere")
    answer = run("predict", folder_data, folder_data, *words)
    refused(answer, r"holds no weights/best\.safetensors", "classes.txt, images, masks")


def test_a_run_of_other_classes_is_refused(run, train, camvid_data, tiny_run, own_run, data, tmp_path):
    answer = run("evaluate", tiny_run, "--data", camvid_data, "--out", tmp_path / "found")
    refused(answer, r"3 classes \(sky, ground, thing\)", r"11 \(Sky, Building")
    answer = train("--init", tiny_run, data=camvid_data)
    refused(answer, r"3 classes \(sky, ground, thing\)", "11", "init_classifier")
    answer = train("--resume", data=camvid_data, out=own_run)
    refused(answer, "classes sky, ground, thing, but the data have Sky, Building", "started on")
    (data / "classes.txt").write_text("sky\nthing\nground\n")
    refused(run("evaluate", tiny_run, "--data", data, "--out", tmp_path / "found"), "another order")
    refused(train("--init", tiny_run, data=data), "sky, ground, thing", "sky, thing, ground", "init_classifier")
    assert not (tmp_path / "found").exists()
    assert not (tmp_path / "run").exists()


class Code:
    """Unpickled, it creates a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl", "evil.safetensors"])
def test_a_pickle_with_code_in_it_is_refused_and_never_run(run, train, own_run, folder_data, tmp_path, name):
    sign, evil = tmp_path / "sign", tmp_path / name
    if name == "evil.pkl":
        evil.write_bytes(pickle.dumps({"state_dict": Code(sign)}))
    else:
        torch.save({"state_dict": Code(sign)}, evil)
    for answer in (
        run("predict", evil, folder_data / "images", "--out", tmp_path / "out"),
        run("evaluate", evil, "--data", folder_data, "--out", tmp_path / "out"),
        train("--init", evil),
    ):
        refused(answer, rf"{name} is a pickle, which can run code", r"\.safetensors")
    refused(train("--weights", evil), name)
    for place in ("weights/best.safetensors", "weights/last.safetensors", "state.safetensors"):
        shutil.copy(evil, own_run / place)
    refused(run("predict", own_run, folder_data / "images", "--out", tmp_path / "out"), "is a pickle")
    refused(train("--resume", out=own_run), r"state\.safetensors is a pickle")
    assert not sign.exists()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()
    # The file does what it is feared for, so that the test means something.
    with evil.open("rb") as file:
        pickle.load(file) if name == "evil.pkl" else torch.load(file, weights_only=False)
    assert sign.exists()


@pytest.mark.parametrize("keep", [0, 5, 100, -7])
def test_a_damaged_weight_file_is_refused(run, train, own_run, folder_data, tmp_path, keep):
    for place in ("weights/best.safetensors", "state.safetensors"):
        file = own_run / place
        file.write_bytes(file.read_bytes()[:keep])
    images = folder_data / "images"
    refused(run("predict", own_run, images, "--out", tmp_path / "out"), r"best\.safetensors is damaged")
    refused(run("evaluate", own_run, "--out", tmp_path / "out"), r"best\.safetensors is damaged")
    refused(train("--init", own_run), r"best\.safetensors is damaged")
    refused(train("--resume", out=own_run), r"state\.safetensors is damaged")
    assert run("predict", own_run, images / "val", "--which", "last", "--out", tmp_path / "last").code == 0
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_kind_is_refused(run, tiny_run, folder_data, tmp_path):
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "backbone.safetensors")
    words = (folder_data / "images", "--out", tmp_path / "out")
    refused(run("predict", tmp_path / "backbone.safetensors", *words), "something else", "'weights'")
    refused(run("predict", tiny_run / "state.safetensors", *words), "training state", "model")
    refused(run("predict", tiny_run / "recipe.yaml", *words), r"recipe\.yaml is damaged or no safetensors file")
