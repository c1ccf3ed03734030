"""Small data and one small run, shared by the tests; nobody writes into them."""

from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

RECIPE = """\
model: segmenter
backbone: test_resnet
pretrained: false
output_stride: 16
aggregation: ema
aggregation_options: {num_bases: 4}
distribution: none
model_options: {reduce_channels: 8}
steps: 2
batch: 2
crop: 64
lr: 0.05
val_every: 2
val_limit: 2
workers: 0
accelerator: cpu
"""


@pytest.fixture(autouse=True)
def same_numbers():
    """Every test draws the same numbers in every run, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def watched(monkeypatch):
    """Notes which of some functions, each given by its module's name and its own, are called."""

    def watch(*places):
        called = []
        for module, name in places:
            holder = import_module(module)
            function = getattr(holder, name)
            monkeypatch.setattr(
                holder, name, lambda *args, _=(name, function), **how: called.append(_[0]) or _[1](*args, **how)
            )
        return called

    return watch


def draw_pair(seed, *, width=64, height=48):
    """A noisy picture of sky, ground and a thing, and its labels, which hold some void."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    labels[height // 2 :] = 1
    top, left = rng.integers(0, height - 12), rng.integers(0, width - 12)
    labels[top : top + 12, left : left + 12] = 2
    colours = np.array([[90, 140, 220], [110, 100, 90], [200, 40, 30]])
    pixels = np.clip(colours[labels] + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    labels[0, :4] = 255
    return Image.fromarray(pixels), Image.fromarray(labels)


def _write(root, images, masks, name, seed):
    image, mask = draw_pair(seed)
    for folder, picture, suffix in ((images, image, ".jpg"), (masks, mask, ".png")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        picture.save(root / folder / f"{name}{suffix}")


@pytest.fixture(scope="session")
def folder_data(tmp_path_factory):
    """A folder of one's own with three classes: four images to train on and two to validate on."""
    root = tmp_path_factory.mktemp("folder")
    for number in range(6):
        split = "train" if number < 4 else "val"
        _write(root, f"images/{split}", f"masks/{split}", f"street_{number}", number)
    (root / "classes.txt").write_text("sky\nground\nthing\n")
    return root


@pytest.fixture(scope="session")
def camvid_data(tmp_path_factory):
    """CamVid's layout, with three images to train on and two to validate on."""
    root = tmp_path_factory.mktemp("camvid")
    for number in range(5):
        split = "train" if number < 3 else "val"
        _write(root, split, f"{split}annot", f"frame_{number}", number)
    return root


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory):
    """A recipe file for a second of training."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, folder_data, tiny_recipe):
    """A run of two steps on `folder_data`."""
    from segcontext.cli import main

    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "--config", str(tiny_recipe), "--data", str(folder_data), "--out", str(out)]) == 0
    return out
