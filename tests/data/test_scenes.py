import hashlib
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from segcontext.data.scenes import Scenes
from segcontext.errors import RecipeError

SMALL = (64, 128)
POLE, ROAD, SIGN, CAR, PEDESTRIAN = (
    Scenes.classes.index(name) for name in ("Pole", "Road", "SignSymbol", "Car", "Pedestrian")
)


@pytest.fixture(scope="module")
def scenes():
    data = Scenes(length=40)
    return [data[index] for index in range(len(data))]


@pytest.fixture(scope="module")
def shares(scenes):
    """Share of the pixels by scene and class, (40, 9)."""
    return torch.stack([torch.bincount(s.mask.flatten(), minlength=9) / s.mask.numel() for s in scenes])


def digest(data):
    """One number for all pixels of a data set."""
    sha = hashlib.sha256()
    for index in range(len(data)):
        sample = data[index]
        sha.update(sample.image.numpy().tobytes() + sample.mask.numpy().tobytes() + sample.name.encode())
    return sha.hexdigest()


@pytest.mark.parametrize("size", [SMALL, (32, 32), (45, 77), (96, 48)])
def test_a_sample_is_what_the_tuple_promises(size):
    image, mask, name = Scenes(split="val", size=size, length=2)[1]
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(mask, tv_tensors.Mask)
    assert (image.shape, image.dtype) == ((3, *size), torch.uint8)
    assert (mask.shape, mask.dtype) == (size, torch.uint8)
    assert name == "val/00001"


def test_another_process_draws_the_same_pixels():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_scenes import *; "
        "print(digest(Scenes(size=SMALL, length=4, seed=7)))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    other = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "5"})
    assert other.stdout.strip() == digest(Scenes(size=SMALL, length=4, seed=7))


def test_a_sample_does_not_depend_on_what_was_drawn_before():
    data = Scenes(size=SMALL, length=6)
    backwards = {index: data[index] for index in reversed(range(6))}
    for index, sample in enumerate(Scenes(size=SMALL, length=3)):
        assert torch.equal(sample.image, backwards[index].image)
        assert torch.equal(sample.mask, backwards[index].mask)


def test_no_scene_is_in_two_splits_or_seeds():
    sets = [Scenes(split=split, size=SMALL, length=12, seed=seed) for split in Scenes.splits for seed in (0, 1)]
    masks = {data.read_mask(index).numpy().tobytes() for data in sets for index in range(12)}
    assert len(masks) == 12 * len(sets)


def test_global_random_states_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    Scenes(size=SMALL, length=1)[0]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_every_label_is_a_class_and_every_class_occurs(shares):
    assert shares.shape == (40, len(Scenes.classes))
    torch.testing.assert_close(shares.sum(1), torch.ones(40))
    present = (shares > 0).float().mean(0)
    assert (present > 0.75).all()


def test_large_classes_are_large_and_small_ones_small(shares):
    mean = dict(zip(Scenes.classes, shares.mean(0).tolist(), strict=True))
    assert 0.2 < mean["Building"] < 0.5
    assert 0.15 < mean["Road"] < 0.4
    assert all(0.04 < mean[name] < 0.25 for name in ("Sky", "Pavement", "Tree"))
    assert 0.02 < mean["Car"] < 0.12
    assert all(0.005 < mean[name] < 0.03 for name in ("Pole", "Pedestrian"))
    assert 0.001 < mean["SignSymbol"] < 0.01


def test_scenes_differ_in_light_and_colour(scenes):
    means = torch.stack([s.image.float().mean((1, 2)) for s in scenes])
    assert means.mean(1).std() > 10
    assert (means[:, 0] / means[:, 2]).std() > 0.08


def test_colour_alone_does_not_tell_road_from_pavement(scenes):
    """In some scenes the road is the lighter of the two, in some the darker, so that no threshold serves all."""
    pavement = Scenes.classes.index("Pavement")
    lighter = 0
    for image, mask, _ in scenes:
        grey = image.float().mean(0)
        lighter += bool(grey[mask == ROAD].mean() > grey[mask == pavement].mean())
    assert 8 <= lighter <= 32


def test_labels_follow_the_edges_of_the_picture(scenes):
    """Moved by a pixel, the labels explain the picture worse: they lie where the things were drawn."""

    def unexplained(image, mask):
        pixels, labels = image.float().flatten(1), mask.flatten().long()
        counts = torch.bincount(labels, minlength=9).clamp(min=1)
        sums = torch.stack([torch.bincount(labels, weights=plane, minlength=9) for plane in pixels])
        return float((pixels - (sums / counts)[:, labels]).square().mean())

    moves = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    best = 0
    for image, mask, _ in scenes:
        inner = (slice(2, -2), slice(2, -2))
        here = unexplained(image[:, 2:-2, 2:-2], mask[inner])
        there = [unexplained(image[:, 2:-2, 2:-2], mask.roll(move, (0, 1))[inner]) for move in moves]
        best += here < min(there)
    assert best >= 36


@pytest.mark.parametrize("label", [POLE, SIGN, CAR, PEDESTRIAN])
def test_small_things_differ_from_what_is_beside_them(scenes, label):
    """Across the left edge of a thing the picture changes more than between two pixels of the same class."""
    across, within = [], []
    for image, mask, _ in scenes:
        step = (image[:, :, 2:].float() - image[:, :, :-2].float()).abs().mean(0)
        mine = mask == label
        across.append(step[mine[:, 2:] & ~mine[:, :-2]])
        within.append(step[mask[:, 2:] == mask[:, :-2]])
    assert torch.cat(across).mean() > 2 * torch.cat(within).mean()


def test_poles_are_thin(scenes):
    """Most rows of a pole are one to four pixels wide."""
    widths = []
    for _, mask, _ in scenes:
        edges = torch.nn.functional.pad((mask == POLE).to(torch.int8), (1, 1)).diff(dim=1)
        starts, ends = (edges == 1).nonzero()[:, 1], (edges == -1).nonzero()[:, 1]
        widths.append(ends - starts)
    assert (torch.cat(widths) <= 4).float().mean() > 0.8


def test_the_mask_alone_is_the_mask_of_the_sample():
    data = Scenes(size=SMALL, length=3, split="test")
    for index in range(3):
        assert torch.equal(data.read_mask(index), data[index].mask)
    assert torch.equal(data[-1].mask, data[2].mask)


def test_kept_scenes_are_the_drawn_ones_and_safe_to_change():
    plain, kept = Scenes(size=SMALL, length=2)[0], Scenes(size=SMALL, length=2, cache=True)
    kept[0].image.zero_()
    kept.read_mask(0).zero_()
    assert torch.equal(kept[0].image, plain.image)
    assert torch.equal(kept.read_mask(0), plain.mask)


def test_lengths():
    assert [len(Scenes(split=split)) for split in Scenes.splits] == [400, 100, 100]
    with pytest.raises(IndexError):
        Scenes(length=2)[2]
    assert "2 images" in repr(Scenes(length=2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "vall"}, "Did you mean 'val'"),
        ({"size": (16, 128)}, "at least 32"),
        ({"size": (64,)}, r"\(height, width\)"),
        ({"length": 0}, "at least 1"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(RecipeError, match=message):
        Scenes(**wrong)
