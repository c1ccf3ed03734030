import io
import json
import os
import pickle
import struct
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segcontext.checkpoint import load_model, load_tensors, save_model
from segcontext.distribution import Identity
from segcontext.errors import CheckpointError, RecipeError
from segcontext.model import Normalize, Segmenter
from segcontext.state_file import FORMAT_VERSION, read_state, write_state
from segcontext.zoo import build

SMALL = {"backbone": "test_resnet", "pretrained": False, "reduce_channels": 8, "bn_momentum": 0.01}


def network(name="emanet", *, classes=3, **options):
    torch.manual_seed(0)
    model = build(name, classes, {**SMALL, **options})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    model.classes, model.palette = tuple("abcdefg"[:classes]), ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    return model.eval()


def pictures():
    return torch.randint(0, 256, (1, 3, 65, 49), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(path, network(), step=7, score=float("nan"))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("emanet", {"aggregation_options": {"num_bases": 4, "upkeep": "learned"}, "multi_grid": (1, 2, 4)}),
        ("galdnet_v1", {"aggregation_options": {"groups": 2}, "fuse_channels": 8, "auxiliary_channels": 8}),
        ("galdnet_v2", {"fuse_channels": 8, "distribution_options": {"key_channels": 4, "value_channels": 8}}),
        ("deeplabv3_plus", {"aggregation_options": {"out_channels": 8}, "decoder_channels": 8, "align_corners": False}),
        ("fcn", {"distribution": "segcontext.distribution.MaskDistribution", "arrangement": "parallel", "bgr": True}),
        ("segmenter", {"aggregation": "psp", "backbone_options": {"dilations": [None, None, [2], [4]]}}),
    ],
)
def test_a_network_comes_back_with_the_same_logits(tmp_path, name, options):
    model = network(name, **options)
    model.normalize = Normalize((0.1, 0.2, 0.3), (1 / 255, 0.5, 1.0), bgr=True)
    save_model(tmp_path / "deep" / "er" / "model.safetensors", model)
    loaded = load_model(tmp_path / "deep" / "er" / "model.safetensors")
    assert not loaded.training
    assert torch.equal(loaded(pictures()).logits, model(pictures()).logits)
    assert (loaded.classes, loaded.palette, loaded.num_classes) == (model.classes, model.palette, 3)
    assert loaded.normalize.bgr
    # What was loaded can be saved again, to the same tensors and facts.
    save_model(tmp_path / "again.safetensors", loaded)
    first, second = (
        read_state(path, kind="model")
        for path in (tmp_path / "deep" / "er" / "model.safetensors", tmp_path / "again.safetensors")
    )
    assert first.info == second.info
    assert set(first.tensors) == set(second.tensors)


def test_the_facts_say_what_a_reader_needs(saved):
    info = read_state(saved, kind="model").info
    assert info["format_version"] == 1
    assert info["step"] == 7
    assert info["classes"] == ["a", "b", "c"]
    assert info["input"]["channel_order"] == "rgb"
    assert info["input"]["mean"] == [0.5, 0.5, 0.5]
    assert info["output_stride"] == 8
    assert info["iterations"] == {"training": 3, "evaluation": 3}
    assert info["options"]["pretrained"] is False
    # Any safetensors reader sees the same, with no need of this package.
    size = struct.unpack("<Q", saved.read_bytes()[:8])[0]
    assert json.loads(json.loads(saved.read_bytes()[8 : 8 + size])["__metadata__"]["segcontext"])["step"] == 7


def test_other_weights_can_be_saved_in_the_networks_place(tmp_path):
    model = network()
    averaged = {name: tensor / 2 for name, tensor in model.state_dict().items()}
    save_model(tmp_path / "m.safetensors", model, tensors=averaged)
    weight = load_model(tmp_path / "m.safetensors").classifier.weight
    assert torch.equal(weight, model.classifier.weight / 2)


@pytest.mark.parametrize("stride", [8, 32])
def test_another_output_stride_can_be_chosen(tmp_path, stride):
    options = {"aggregation_options": {"out_channels": 8}}
    model = network("deeplabv3", output_stride=16, **options)
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors", output_stride=stride)
    wanted = network("deeplabv3", output_stride=stride, **options)
    wanted.load_state_dict(model.state_dict())
    assert loaded.backbone.output_stride == stride
    assert loaded.aggregation.rates == tuple(rate * 8 // stride for rate in (12, 24, 36))
    assert torch.equal(loaded(pictures()).logits, wanted(pictures()).logits)
    with pytest.raises(RecipeError, match="output_stride must be 8, 16 or 32, not 7"):
        load_model(tmp_path / "m.safetensors", output_stride=7)


@pytest.mark.parametrize(
    ("trained", "stride", "given", "dilation"),
    [(16, 8, {}, 6), (8, 16, {}, 2), (16, 8, {"dilation": 2}, 4), (8, 32, {"dilation": 1}, 1), (16, 16, {}, 3)],
)
@pytest.mark.parametrize("part", ["affinity", "segcontext.distribution.AffinityDistribution"])
def test_the_window_of_ldv2_keeps_its_extent_in_the_image(tmp_path, part, trained, stride, given, dilation):
    options = {"key_channels": 4, "value_channels": 8, **given}
    model = network("fcn", output_stride=trained, distribution=part, distribution_options=options)
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors", output_stride=stride)
    assert loaded.distribution.dilation == dilation
    options["dilation"] = dilation
    wanted = network("fcn", output_stride=stride, distribution=part, distribution_options=options)
    wanted.load_state_dict(model.state_dict())
    assert torch.equal(loaded(pictures()).logits, wanted(pictures()).logits)
    # Saved as it is now, it comes back as it is now; and without another stride nothing changes.
    save_model(tmp_path / "again.safetensors", loaded)
    assert load_model(tmp_path / "again.safetensors").distribution.dilation == dilation
    assert load_model(tmp_path / "m.safetensors").distribution.dilation == model.distribution.dilation


@pytest.mark.parametrize(
    ("part", "given", "rates"),
    [
        ("aspp", {"rates": (4, 6)}, (8, 12)),
        ("aspp", {}, (12, 24, 36)),
        ("segcontext.aggregation.ASPP", {"rates": [4, 6]}, (8, 12)),
    ],
)
def test_given_rates_of_aspp_keep_their_extent_too(tmp_path, part, given, rates):
    options = {"aggregation": part, "aggregation_options": {"out_channels": 8, **given}}
    save_model(tmp_path / "m.safetensors", network("segmenter", output_stride=16, **options))
    assert load_model(tmp_path / "m.safetensors", output_stride=8).aggregation.rates == rates


@pytest.mark.parametrize(("downsampling", "ratio"), [("depthwise", 4), ("bilinear", 8), ("average", 8)])
def test_what_is_learned_at_one_stride_stays_and_is_logged_once(tmp_path, caplog, downsampling, ratio):
    options = {"downsampling": downsampling, "ratio": 4}
    model = network("fcn", output_stride=16, distribution="mask", distribution_options=options)
    save_model(tmp_path / "m.safetensors", model)
    load_model(tmp_path / "m.safetensors")
    assert not caplog.records
    assert load_model(tmp_path / "m.safetensors", output_stride=8).distribution.ratio == ratio
    lines = [record.getMessage() for record in caplog.records]
    if downsampling == "depthwise":
        (line,) = lines
        assert "trained at output stride 16 and runs at 8: the masks of LDv1" in line
        assert "0.5 times as far" in line
    else:
        assert not lines


@pytest.mark.parametrize(("trained", "stride", "shrink"), [(16, 8, 4), (8, 16, 1), (8, 32, 1), (16, 16, 2)])
def test_the_offsets_of_psa_reach_as_far_as_the_map_allows(tmp_path, caplog, trained, stride, shrink):
    options = {"channels": 8, "mask_size": 5}
    model = network("segmenter", output_stride=trained, aggregation="psa", aggregation_options=options)
    save_model(tmp_path / "m.safetensors", model)
    assert load_model(tmp_path / "m.safetensors", output_stride=stride).aggregation.shrink == shrink
    assert len(caplog.records) == (stride == 32)


def test_a_backbone_that_keeps_its_stride_keeps_the_window(tmp_path):
    options = {"distribution": "affinity", "distribution_options": {"key_channels": 4, "value_channels": 8}}
    save_model(tmp_path / "m.safetensors", network("fcn", backbone="test_vit", output_stride=16, **options))
    loaded = load_model(tmp_path / "m.safetensors", output_stride=8)
    assert (loaded.backbone.output_stride, loaded.distribution.dilation) == (16, 3)


def test_another_number_of_iterations_can_be_chosen(saved, tmp_path):
    model = load_model(saved, evaluation_iterations=8)
    assert len(model(pictures(), evidence=True).aggregation.maps) == 8
    assert len(load_model(saved)(pictures(), evidence=True).aggregation.maps) == 3
    with pytest.raises(RecipeError, match="evaluation_iterations must be 0 or more, not -1"):
        load_model(saved, evaluation_iterations=-1)
    save_model(tmp_path / "fcn.safetensors", network("fcn"))
    with pytest.raises(CheckpointError, match="no EM iterations: its aggregation is Identity"):
        load_model(tmp_path / "fcn.safetensors", evaluation_iterations=3)


class Touch:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("kind", ["zip", "legacy", *range(pickle.HIGHEST_PROTOCOL + 1)])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_code_in_a_pickle_is_never_run(tmp_path, kind, suffix):
    path, trace = tmp_path / f"model{suffix}", tmp_path / "trace"
    content = {"classifier.weight": Touch(trace)}
    if isinstance(kind, int):
        path.write_bytes(pickle.dumps(content, protocol=kind))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    # The oldest protocols are text and have no mark, so they are merely no safetensors file.
    with pytest.raises(CheckpointError, match="damaged" if kind in (0, 1) else "is a pickle, .* so it was not"):
        load_model(path)
    assert not trace.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # By its content: torch.load goes by the suffix.
        content = io.BytesIO(path.read_bytes())
        torch.load(content, weights_only=False) if isinstance(kind, str) else pickle.load(content)
    assert trace.exists()


def test_a_header_of_any_length_is_read(tmp_path):
    """A safetensors file begins with its header's length, which may look like the mark of a pickle or a zip."""
    path, starts = tmp_path / "state.safetensors", set()

    def write(padding):
        write_state(path, {"w": torch.ones(2)}, {"note": "x" * padding}, kind="training")
        assert read_state(path, kind="training").tensors["w"].tolist() == [1, 1]
        return path.read_bytes()[:2]

    for padding in range(0, 256, 8):
        starts.add(write(padding)[:1])
    assert b"\x80" in starts
    write(0)
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert write(int.from_bytes(b"PK", "little") - length) == b"PK"


@pytest.mark.parametrize("share", [0, 4, 9, 0.01, 0.5, 0.999])
def test_a_cut_file_is_refused(tmp_path, saved, share):
    whole = saved.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: share if isinstance(share, int) else int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is damaged or no safetensors file"):
        load_model(cut)


def test_a_cut_file_is_no_pickle_even_if_it_begins_like_one(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(struct.pack("<Q", 0x280) + b'{"w":')
    with pytest.raises(CheckpointError, match="is damaged"):
        read_state(path, kind="model")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "of something else"),
        ({"format": "pt"}, "of something else"),
        ({"segcontext": "{}"}, "of something else"),
        ({"segcontext": "[1]"}, "of something else"),
        ({"segcontext": "{"}, "damaged"),
        ({"segcontext": '{"format_version": "1"}'}, "of something else"),
        ({"segcontext": '{"format_version": 2, "kind": "model"}'}, "has format 2, and this segcontext reads up to 1"),
        ({"segcontext": '{"format_version": 1, "kind": "training"}'}, "holds a training state, but a model state"),
        ({"segcontext": '{"format_version": 1, "kind": "model"}'}, "does not describe a network"),
        ({"segcontext": '{"format_version": 1, "kind": "model", "options": 5}'}, "does not describe a network"),
        ({"segcontext": '{"format_version": 1, "kind": "model", "options": "x"}'}, "does not describe a network"),
    ],
)
def test_a_safetensors_file_that_is_not_ours_or_too_new_is_refused(tmp_path, metadata, words):
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "f.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=words):
        load_model(tmp_path / "f.safetensors")


def altered(saved, path, **changes):
    tensors, info = read_state(saved, kind="model")
    kept = {key: value for key, value in {**info, **changes}.items() if key not in ("kind", "format_version")}
    write_state(path, tensors, kept, kind="model")
    return path


@pytest.mark.parametrize(
    "changes", [{"num_classes": "three"}, {"palette": [[1, 2]]}, {"options": {"backbonee": "resnet18"}}, {"input": {}}]
)
def test_facts_that_make_no_network_are_refused(tmp_path, saved, changes):
    with pytest.raises(CheckpointError, match="does not describe a network that can be built"):
        load_model(altered(saved, tmp_path / "f.safetensors", **changes))


def test_loading_never_fetches_whatever_the_file_says(tmp_path, saved, monkeypatch):
    monkeypatch.setattr("segcontext.backbone_weights.fetch", lambda *_: pytest.fail("it tried to fetch weights"))
    options = {**read_state(saved, kind="model").info["options"], "pretrained": True, "weights": "/nowhere"}
    model = load_model(altered(saved, tmp_path / "f.safetensors", options=options))
    assert torch.equal(model(pictures()).logits, load_model(saved)(pictures()).logits)


def test_a_run_folder_has_a_best_and_a_last(tmp_path):
    for name, classes in (("best", 3), ("last", 4)):
        save_model(tmp_path / "weights" / f"{name}.safetensors", network(classes=classes))
    assert load_model(tmp_path).num_classes == 3
    assert load_model(str(tmp_path), which="last").num_classes == 4
    with pytest.raises(CheckpointError, match="which must be best or last, not 'first'"):
        load_model(tmp_path, which="first")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no run at .*nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no weights/best\.safetensors. It holds: nothing"):
        load_model(tmp_path)
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(CheckpointError, match=r"It holds: recipe\.yaml\. A run has weights from its first validation"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="There is no weight file at"):
        read_state(tmp_path / "state.safetensors", kind="training")


def test_a_network_put_together_by_hand_cannot_be_described(tmp_path):
    model = network("fcn")
    width = model.classifier.in_channels
    by_hand = Segmenter(model.backbone, model.aggregation, Identity(width, width), num_classes=3, reduce=model.reduce)
    with pytest.raises(CheckpointError, match="put together by hand"):
        save_model(tmp_path / "m.safetensors", by_hand)
    assert not list(tmp_path.iterdir())


def test_weights_for_other_classes_are_refused_and_may_be_skipped():
    model, other = network(), network(classes=5)
    with pytest.raises(CheckpointError, match="run was trained for 3 classes, but the data have 5"):
        load_tensors(other, model.state_dict(), source="run")
    before = other.classifier.weight.clone()
    load_tensors(other, model.state_dict(), source="run", skip=("classifier.",))
    assert torch.equal(other.classifier.weight, before)
    assert torch.equal(other.reduce[0].weight, model.reduce[0].weight)


def test_what_does_not_fit_is_listed():
    model = network()
    tensors = dict(model.state_dict())
    tensors["surplus"] = torch.zeros(2, 3)
    tensors["reduce.0.weight"] = torch.zeros(1)
    del tensors["aggregation.bases"]
    with pytest.raises(CheckpointError) as caught:
        load_tensors(model, tensors, source="run")
    text = str(caught.value)
    assert "missing: aggregation.bases (64, 8)" in text
    assert "unexpected: surplus (2, 3)" in text
    assert "shape of reduce.0.weight: expected (8, 96, 3, 3), found (1,)" in text
    with pytest.raises(CheckpointError, match=r"… and \d+ more"):
        load_tensors(model, {}, source="run")


def test_a_refused_file_leaves_the_network_as_it_was():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_tensors(model, {"reduce.0.weight": torch.zeros(8, 96, 3, 3)}, source="run")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("failing", ["fsync", "replace", "open"])
def test_an_old_file_stays_whole_if_writing_fails(tmp_path, monkeypatch, failing):
    path = tmp_path / "state.safetensors"
    write_state(path, {"w": torch.ones(3)}, {"step": 1}, kind="training")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if failing == "fsync" else (Path, failing)), fail)
        with pytest.raises(OSError, match="No space"):
            write_state(path, {"w": torch.zeros(3)}, {"step": 2}, kind="training")
    tensors, info = read_state(path, kind="training")
    assert tensors["w"].tolist() == [1, 1, 1]
    assert info["step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["state.safetensors"]


def test_facts_that_are_no_json_leave_the_old_file(tmp_path):
    path = tmp_path / "state.safetensors"
    write_state(path, {"w": torch.ones(3)}, {"step": 1}, kind="training")
    with pytest.raises(TypeError, match="JSON"):
        write_state(path, {"w": torch.zeros(3)}, {"step": torch.ones(1)}, kind="training")
    assert read_state(path, kind="training").info["step"] == 1


def test_tensors_of_every_kind_come_back(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": whole,
        "same": whole,
        "view": whole[1:, ::2],
        "turned": whole.T,
        "expanded": torch.ones(1).expand(5),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3).bfloat16(),
        "wide": torch.randn(3).double(),
        "flag": torch.tensor([True, False]),
        "learned": nn.Parameter(torch.randn(2)),
    }
    write_state(tmp_path / "s.safetensors", tensors, {}, kind="training")
    found = read_state(tmp_path / "s.safetensors", kind="training").tensors
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    found["same"].zero_()
    assert torch.equal(found["whole"], whole)


def test_a_file_of_the_present_format_is_still_read():
    assert FORMAT_VERSION == 1, "a new format needs a test that files of the old ones load"
