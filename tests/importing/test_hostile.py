"""Files with broken or hostile contents are refused by name, and with exit code 2."""

from pathlib import Path

import pytest
import torch
from tests.importing.sources import source

import segcontext
from segcontext.cli import main
from segcontext.errors import WeightsError
from segcontext.importing import LAYOUTS
from segcontext.importing.fitting import fitted
from segcontext.importing.reading import read_foreign
from segcontext.importing.words import listing, shown

FILE = Path("theirs.pth")


@pytest.fixture(scope="module")
def fcn():
    return {key: torch.zeros(tensor.shape) for key, tensor in source("torchvision_fcn").state_dict().items()}


def refused(tmp_path, capsys, content, name="w.pth"):
    """What the command says of a file; it must be an error of ours."""
    torch.save(content, tmp_path / name)
    assert main(["import-weights", str(tmp_path / name), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("WeightsError")
    assert name in said
    return said


def misfit(name, **changes):
    """What is said of a source network's tensors with other ones in place of some."""
    tensors = {**source(name, classes=21).state_dict(), **changes}
    with pytest.raises(WeightsError) as caught:
        fitted(LAYOUTS[name], tensors, FILE, align_corners=True, told={})
    assert str(caught.value).startswith(f"theirs.pth looks like {LAYOUTS[name].title}, but ")
    return str(caught.value)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_dictionaries_that_hold_themselves_are_looked_into_once(tmp_path, capsys, fcn):
    inner = {"step": 1}
    inner["net"] = inner
    assert "holds no tensors by name" in refused(tmp_path, capsys, inner)
    outer = {"step": 1, "net": {"model": {}, "a.weight": torch.ones(2)}}
    outer["net"]["model"]["state_dict"] = outer
    torch.save(outer, tmp_path / "w.pth")
    assert set(read_foreign(tmp_path / "w.pth").tensors) == {"a.weight"}


def test_dictionaries_in_thousands_of_others_are_gone_through(tmp_path, monkeypatch):
    content = None
    for _ in range(20_000):
        content = {"net": content}
    (tmp_path / "w.pth").write_bytes(b"stands in for a pickle of such depth")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: content)
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_foreign(tmp_path / "w.pth")


def test_tensors_without_numbers_are_refused(tmp_path, capsys):
    said = refused(tmp_path, capsys, {"net": {"a.weight": torch.ones(2), "a.bias": meta(3)}})
    assert "a.bias (3,) is a tensor without numbers (device meta)" in said


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_tensors_that_promise_more_numbers_than_they_have_are_refused_before_they_are_filled_up(
    tmp_path, capsys, dtype
):
    huge = torch.zeros(1, dtype=dtype).expand(10**9, 10**6)
    said = refused(tmp_path, capsys, {"net": {"a.weight": torch.ones(2), "fc2.weight": huge}})
    assert "fc2.weight (1000000000, 1000000)" in said
    assert "the file holds only 1 of them" in said


def test_views_of_greater_tensors_are_taken(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    torch.save({"a.weight": whole[:, 1:3], "b.weight": whole.mT}, tmp_path / "w.pth")
    found = read_foreign(tmp_path / "w.pth").tensors
    assert torch.equal(found["a.weight"], whole[:, 1:3])
    assert torch.equal(found["b.weight"], whole.mT)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_numbers_of_another_kind_are_refused_by_name(dtype):
    kind = str(dtype).removeprefix("torch.")
    said = misfit("emanet", **{"fc2.bias": meta(21, dtype=dtype)})
    assert f"(1 of another kind):\n  kind of fc2.bias: expected float32, found {kind}" in said


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_counters_are_no_truths_and_no_complex_numbers(dtype):
    said = misfit("emanet", **{"fc0.bn.num_batches_tracked": meta(dtype=dtype)})
    assert "kind of fc0.bn.num_batches_tracked: expected int64" in said


def test_floats_of_any_precision_are_taken(fcn):
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)
    tensors = {
        **fcn,
        "classifier.4.bias": torch.ones(5, dtype=torch.float64),
        "classifier.1.num_batches_tracked": torch.ones(()),
    }
    for name, dtype in zip((name for name in fcn if name.endswith("bn1.weight")), kinds, strict=False):
        tensors[name] = torch.full(fcn[name].shape, 0.5).to(dtype)
    model, _ = fitted(LAYOUTS["torchvision_fcn"], tensors, FILE, align_corners=False, told={})
    assert model.classifier.bias.tolist() == [1] * 5
    assert model.reduce[1].num_batches_tracked == 1
    assert model.backbone.net.layer1[0].bn1.weight.unique().tolist() == [0.5]
    assert model.backbone.net.layer1[2].bn1.weight.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, capsys, fcn, value):
    broken = torch.zeros(5, dtype=torch.float64)
    broken[1:3] = value
    said = refused(tmp_path, capsys, {**fcn, "classifier.4.bias": broken})
    assert "looks like torchvision's FCN, but has numbers that are not finite" in said
    assert "classifier.4.bias: 2 of 5" in said


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("emanet", "emau.mu", (1, 512, 0)),
        ("emanet", "fc2.weight", (0, 256, 1, 1)),
        ("gald", "head.a2block.long_relation.z.weight", (512, 0, 1, 1)),
        ("gald", "head.a2block.long_relation.t.weight", (0, 512, 1, 1)),
        ("openmmlab_pspnet", "decode_head.bottleneck.conv.weight", (0, 4096, 3, 3)),
    ],
)
def test_empty_tensors_are_named(name, tensor, shape):
    assert misfit(name, **{tensor: meta(*shape)}).endswith(f"has tensors without numbers:\n  {tensor} {shape}")


@pytest.mark.parametrize("inside", [48, 1024, 512])
def test_groups_that_do_not_come_out_are_the_misshapen_tensors_fault(inside):
    tensor = "head.a2block.long_relation.z.weight"
    said = misfit("gald", **{tensor: meta(512, inside, 1, 1)})
    assert said.endswith(
        f"(1 of another shape):\n  shape of {tensor}: expected (512, 32, 1, 1), found (512, {inside}, 1, 1)"
    )


def test_a_network_that_cannot_be_built_is_said_with_the_tensors_that_its_widths_are_of():
    relation = "head.a2block.long_relation"
    # A width that no number of groups that is published divides.
    said = misfit("gald", **{f"{relation}.{each}.weight": meta(100, 512, 1, 1) for each in "tpg"})
    assert "no such network can be built" in said
    assert "groups" in said
    assert f"\n  {relation}.t.weight (100, 512, 1, 1)" in said
    # Wider than any tensor may be.
    said = misfit("emanet", **{f"fc0.{each}": meta(2**59, 1) for each in ("conv.weight", "bn.weight", "bn.bias")})
    assert "fc0.conv.weight" in said


def test_windows_are_told_with_their_file_and_tensor():
    branches = {f"decode_head.{branch}.1.weight": meta(15, 512, 1, 1) for branch in ("attention", "attention_p")}
    assert "decode_head.attention.1.weight has windows of 15 cells" in misfit("openmmlab_psanet", **branches)


NASTY = "\x1b[31mred\n[bold]x[/bold]\u202e\u2028."
SHOWN = r"\x1b[31mred\n[bold]x[/bold]\u202e\u2028."


def test_names_out_of_a_file_are_printed_as_escapes(tmp_path, capsys, fcn):
    for content in (
        {"net": {"a": torch.ones(2), NASTY: torch.ones(2)}},
        {**fcn, NASTY: torch.ones(2)},
        {"net": {"a": torch.ones(2), NASTY: meta(2)}},
        {"net": {"a": torch.ones(2)}, NASTY: torch.eye(2).to_sparse()},
    ):
        said = refused(tmp_path, capsys, content)
        assert "\x1b" not in said
        assert "\u202e" not in said
        assert SHOWN in said


def test_names_of_objects_in_a_pickle_are_printed_as_escapes(tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(b"\x80\x02c\x1b[31mos\nsystem\x1b[0m\n.")
    assert main(["import-weights", str(tmp_path / "w.pth"), "--out", str(tmp_path / "run")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_class_names_out_of_a_file_are_kept_as_escapes_and_colours_only_as_bytes(tmp_path):
    tensors = {key: torch.zeros(tensor.shape) for key, tensor in source("openmmlab_pspnet").state_dict().items()}
    meta_of_file = {"CLASSES": [NASTY, " b ", "c", "d", "Straße"], "PALETTE": [[None, "x", float("inf")]] * 5}
    torch.save({"meta": meta_of_file, "state_dict": tensors}, tmp_path / "w.pth")
    model = segcontext.import_weights(tmp_path / "w.pth", align_corners=False)
    assert model.classes == (SHOWN, "b", "c", "d", "Straße")
    assert model.palette == ()


def test_lists_say_how_many_more_there_are():
    assert listing(map(str, range(23))).endswith("\n  19\n  … and 3 more")
    assert listing(map(str, range(20))).endswith("\n  19")
    assert shown("decode_head.größe.weight") == "decode_head.größe.weight"
