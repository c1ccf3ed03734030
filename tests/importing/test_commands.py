"""From a file to a run and back, by the command line."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.importing.sources import filled, source

import segcontext
from segcontext.cli import main
from segcontext.data import VOC
from segcontext.errors import OutputExists, RecipeError
from segcontext.importing import import_run
from segcontext.recipe_file import read_yaml


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """torchvision's FCN with 21 classes."""
    path = tmp_path_factory.mktemp("theirs") / "fcn_resnet50.pth"
    network = filled(source("torchvision_fcn", classes=21), torch.rand(2, 3, 33, 33))
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "fcn"
    assert main(["import-weights", str(file), "--out", str(folder), "--dataset", "voc"]) == 0
    return folder


def test_a_run_folder_is_left(file, run, capsys):
    assert sorted(each.name for each in run.iterdir()) == ["model.json", "recipe.yaml", "report.md", "weights"]
    best, last = (run / "weights" / f"{name}.safetensors" for name in ("best", "last"))
    assert best.read_bytes()[:4096] == last.read_bytes()[:4096]
    model = segcontext.load_model(run, which="last")
    assert (model.classes, model.palette, model.padding) == (VOC.classes, VOC.palette, "none")
    keys = read_yaml(run / "recipe.yaml")
    assert (keys["model"], keys["backbone"], keys["dataset"]) == ("fcn", "resnet50", "voc")
    assert keys["model_options"]["align_corners"] is False
    report = (run / "report.md").read_text()
    assert "fcn_resnet50.pth" in report
    assert "torchvision_fcn" in report
    assert main(["import-weights", str(file), "--out", str(run)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_images_are_segmented_with_it(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 49, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    assert main(["predict", str(run), str(tmp_path / "photo.png"), "--out", str(tmp_path / "masks")]) == 0
    (written,) = (each for each in (tmp_path / "masks").rglob("photo*.png") if "overlay" not in str(each))
    mask = np.asarray(Image.open(written))
    model = segcontext.load_model(run)
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels).permute(2, 0, 1)[None]).logits
    assert np.array_equal(mask, logits[0].argmax(0).numpy())


def test_what_was_imported_goes_back_to_the_same_tensors(file, run, tmp_path, capsys):
    out = tmp_path / "again.pth"
    words = ["export-weights", str(run), "--layout", "torchvision_fcn", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "has another network" not in said
    # Paths are longer than the terminal is wide, and stay whole.
    assert said.splitlines() == [f"Weights of {run} as torchvision_fcn: {out}"]
    first, second = (torch.load(path, weights_only=True) for path in (file, out))
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # torchvision's own model takes them, strictly.
    source("torchvision_fcn", classes=21).model.load_state_dict(second, assign=True)
    assert main(words) == 2
    assert "already there" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_a_layout_that_it_is_not_of_is_refused(run, tmp_path, capsys):
    words = ["export-weights", str(run), "--out", str(tmp_path / "x.pth"), "--layout"]
    assert main([*words, "emanet"]) == 2
    assert "there is no place for" in capsys.readouterr().err
    assert main([*words, "emanett"]) == 2
    assert "Did you mean 'emanet'" in capsys.readouterr().err
    model = segcontext.load_model(run)
    with pytest.raises(RecipeError, match="must end in"):
        segcontext.export_weights(model, tmp_path / "x.bin", layout="torchvision_fcn")


def test_training_goes_on_from_it(run, folder_data, tmp_path):
    """Fine-tuned on three classes: the recipe builds the network, and everything but the classifiers is taken over."""
    out = tmp_path / "tuned"
    words = ["train", "--config", str(run / "recipe.yaml"), "--init", str(run), "--data", str(folder_data)]
    words += ["--dataset", "folder", "--init_classifier", "false", "--steps", "1", "--batch", "2", "--crop", "33"]
    words += ["--workers", "0", "--accelerator", "cpu", "--val_limit", "1", "--lr", "1e-8", "--out", str(out)]
    assert main(words) == 0
    before, after = segcontext.load_model(run), segcontext.load_model(out, which="last")
    assert after.num_classes == 3
    torch.testing.assert_close(after.reduce[0].weight, before.reduce[0].weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(after.backbone.net.conv1.weight, before.backbone.net.conv1.weight, rtol=1e-3, atol=1e-5)


def test_a_folder_with_something_in_it_is_left_alone(file, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputExists, match="is not empty"):
        import_run(file, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(OutputExists, match="is not empty"):
        import_run(file, tmp_path / "note.txt")
