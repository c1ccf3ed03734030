"""Files of others are read without running anything in them."""

import collections
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import segcontext
from segcontext.errors import WeightsError
from segcontext.importing.reading import read_foreign


def tensors():
    return {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2, dtype=torch.float64)}


def assert_read(path, facts=None):
    found = read_foreign(path)
    assert set(found.tensors) == set(tensors())
    assert torch.equal(found.tensors["a.weight"], tensors()["a.weight"])
    # As it is: an attacker's tensors are not converted before names and shapes are known to fit.
    assert found.tensors["a.bias"].dtype == torch.float64
    assert found.facts == (facts or {})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: collections.OrderedDict(t),
        lambda t: {"net": t, "step": 3},
        lambda t: {"state_dict": t, "best": torch.zeros(3), "epoch": 3, "args": {"lr": 0.1, "names": ["a", None]}},
        lambda t: {"model": {"state_dict": t}, "optimizer": {"state": {0: {"momentum": torch.zeros(2)}}}},
        lambda t: {f"module.{name}": tensor for name, tensor in t.items()},
        lambda t: {"model": {f"_orig_mod.module.{name}": nn.Parameter(tensor) for name, tensor in t.items()}},
    ],
)
def test_wrappers_of_training_scripts_are_taken_off(tmp_path, wrap, zipped):
    torch.save(wrap(tensors()), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert_read(tmp_path / "w.pth")


def test_what_the_file_says_of_itself_is_kept(tmp_path):
    meta = {"CLASSES": ("a", "b"), "config": "model = dict()"}
    torch.save({"meta": meta, "state_dict": tensors()}, tmp_path / "w.pth")
    assert_read(tmp_path / "w.pth", meta)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_the_content_counts_and_not_the_ending(tmp_path, name):
    save_file(tensors(), tmp_path / name)
    assert_read(tmp_path / name)
    torch.save(tensors(), tmp_path / "other.safetensors")
    assert_read(tmp_path / "other.safetensors")


class Touch:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("kind", ["zip", "legacy", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_code_in_a_file_is_never_run(tmp_path, kind):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    content = {"net": {**tensors(), "mu": Touch(trace)}}
    if isinstance(kind, int):
        path.write_bytes(pickle.dumps(content, protocol=kind))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(WeightsError) as caught:
        read_foreign(path)
    assert not trace.exists()
    if isinstance(kind, str):
        assert "was refused, and nothing in it was run" in str(caught.value)
        assert "open" in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = io.BytesIO(path.read_bytes())
        torch.load(given, weights_only=False) if isinstance(kind, str) else pickle.load(given)
    assert trace.exists()


def test_what_was_refused_is_named(tmp_path):
    torch.save({"net": tensors(), "score": np.float64(0.8), "when": collections.Counter("ab")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds objects of .*numpy.*multiarray\.scalar.*could run code"):
        read_foreign(tmp_path / "w.pth")


class Lenient:
    """An object that somebody has put on PyTorch's allow-list."""

    def __init__(self):
        self.values = [1, 2]


def test_objects_that_others_have_allowed_are_refused_all_the_same(tmp_path):
    torch.save({"net": tensors(), "extras": [1, {"x": Lenient()}]}, tmp_path / "w.pth")
    with (
        torch.serialization.safe_globals([Lenient]),
        pytest.raises(WeightsError, match=r"\['extras'\]\[1\]\['x'\] is an object of .*Lenient"),
    ):
        read_foreign(tmp_path / "w.pth")


def test_archives_with_code_are_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="is a TorchScript archive, which holds code"):
        read_foreign(tmp_path / "w.pt")


def test_tensors_of_other_kinds_are_refused(tmp_path):
    torch.save({"a.weight": torch.eye(3).to_sparse()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="sparse"):
        read_foreign(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no tensors by name"),
        ({"net": {"step": 3}}, "holds no tensors by name"),
        ([torch.zeros(2)], "holds no tensors by name"),
        (torch.zeros(2), "holds no tensors by name"),
    ],
)
def test_files_without_tensors_by_name_are_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        read_foreign(tmp_path / "w.pth")


@pytest.mark.parametrize("share", [0, 5, 0.3, 0.9])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_cut_files_are_refused(tmp_path, kind, share):
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        save_file(tensors(), path)
    else:
        torch.save(tensors(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: share if isinstance(share, int) else int(share * len(whole))])
    with pytest.raises(WeightsError, match=r"w\.pth"):
        read_foreign(path)


def test_our_own_files_and_no_files_are_told_apart(tmp_path):
    with pytest.raises(WeightsError, match="There is no weight file"):
        read_foreign(tmp_path / "w.pth")
    model = segcontext.fcn(3, backbone="test_resnet", pretrained=False, reduce_channels=8)
    segcontext.save_model(tmp_path / "w.safetensors", model)
    with pytest.raises(WeightsError, match="is a weight file of segcontext and needs no importing"):
        read_foreign(tmp_path / "w.safetensors")
