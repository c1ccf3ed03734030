"""What is missing, misshapen or too many is named with the shape that it should have, and nothing else is blamed."""

from pathlib import Path

import pytest
import torch
import torchvision
from tests.importing.sources import source

import segcontext
from segcontext.errors import WeightsError
from segcontext.importing import LAYOUTS
from segcontext.importing.fitting import fitted
from segcontext.importing.recognition import recognise

FILE = Path("theirs.pth")
MARKS = [(name, mark) for name, layout in LAYOUTS.items() for mark in layout.marks]


def meta(shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def theirs(name, depth=50, **options):
    return dict(source(name, depth, **options).state_dict())


def complaints(tensors):
    """What is said of tensors of which only names and shapes are known: the network's title, and line by line."""
    layout = recognise(tensors, FILE)
    with pytest.raises(WeightsError) as caught:
        fitted(layout, tensors, FILE, align_corners=False, told={})
    head, *lines = str(caught.value).split("\n  ")
    assert head.startswith(f"theirs.pth looks like {layout.title}, but does not fit it (")
    return layout.name, head, lines


@pytest.mark.parametrize(("name", "mark"), MARKS)
def test_a_missing_mark_is_missing_like_any_other_tensor(name, mark):
    tensors = theirs(name, classes=7)
    lost = tensors.pop(mark)
    assert complaints(tensors)[::2] == (name, [f"missing: {mark} {tuple(lost.shape)}"])


def test_a_missing_mark_is_named_from_a_file_and_by_the_command(tmp_path, capsys):
    tensors = {key: torch.zeros(tensor.shape) for key, tensor in theirs("emanet").items() if key != "emau.mu"}
    torch.save({"net": tensors}, tmp_path / "w.pth")
    assert segcontext.cli.main(["import-weights", str(tmp_path / "w.pth"), "--out", str(tmp_path / "run")]) == 2
    assert "missing: emau.mu (1, 512, 64)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def convolution(name, outside, inside):
    bn = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (outside,))
    shapes = {f"{name}.conv.weight": (outside, inside, 3, 3), **{f"{name}.bn.{key}": size for key, size in bn.items()}}
    return {key: meta(shape) for key, shape in shapes.items()}


def test_other_networks_on_the_same_backbones_are_of_no_known_kind():
    with torch.device("meta"):
        classifier = torchvision.models.resnet50(weights=None).state_dict()
    # OpenMMLab's FCN has every part of its Non-local network but the block itself.
    backbone = {key: tensor for key, tensor in theirs("openmmlab_nonlocal").items() if ".nl_block." not in key}
    names = (("convs.0", 512, 2048), ("convs.1", 512, 512), ("conv_cat", 512, 2560))
    fcn = {
        **backbone,
        **{k: v for name, *widths in names for k, v in convolution(f"decode_head.{name}", *widths).items()},
    }
    for tensors in (classifier, fcn, {}):
        with pytest.raises(WeightsError, match="is of no network that is known"):
            recognise(tensors, FILE)


def changed(builder, layout, **options):
    """A network of ours as another code base would name its tensors."""
    with torch.device("meta"):
        model = getattr(segcontext, builder)(21, pretrained=False, **options)
    return dict(LAYOUTS[layout].to_theirs(model.state_dict()))


#: Files of networks, some with widths that are nobody's default.
FILES = {
    "emanet": lambda: changed("emanet", "emanet", reduce_channels=96, project_channels=48),
    "torchvision_fcn": lambda: changed(
        "fcn", "torchvision_fcn", backbone="resnet50", reduce_channels=96, auxiliary=True, auxiliary_channels=24
    ),
    "gald": lambda: changed(
        *("galdnet_v1", "gald"),
        **{"reduce_channels": 96, "project_channels": 80, "fuse_channels": 40, "auxiliary_channels": 24},
        **{"aggregation_options": {"channels": 48, "groups": 4}, "auxiliary_options": {"bias": True}},
    ),
    "openmmlab_nonlocal": lambda: theirs("openmmlab_nonlocal", classes=21),
    "openmmlab_psanet": lambda: theirs("openmmlab_psanet", classes=21, side=5),
    "openmmlab_emanet": lambda: theirs("openmmlab_emanet", classes=21),
}
#: Tensors whose sizes stand in more than one other, too.
OUTVOTED = [
    ("emanet", "fc0.conv.weight"),
    ("emanet", "fc1.0.conv.weight"),
    ("gald", "head.conva.0.weight"),
    ("gald", "head.convb.0.weight"),
    ("gald", "head.bottleneck.0.weight"),
    ("gald", "head.bottleneck.3.weight"),
    ("gald", "head.a2block.long_relation.t.weight"),
    ("gald", "dsn.0.weight"),
    ("torchvision_fcn", "classifier.0.weight"),
    ("torchvision_fcn", "aux_classifier.0.weight"),
    ("openmmlab_nonlocal", "decode_head.conv_seg.weight"),
    ("openmmlab_nonlocal", "decode_head.conv_cat.conv.weight"),
    ("openmmlab_nonlocal", "decode_head.nl_block.phi.conv.weight"),
    ("openmmlab_nonlocal", "auxiliary_head.convs.0.conv.weight"),
    ("openmmlab_emanet", "decode_head.conv_cat.conv.weight"),
]


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        *OUTVOTED,
        ("emanet", "fc2.weight"),
        ("emanet", "fc2.bias"),
        ("openmmlab_psanet", "decode_head.attention.1.weight"),
    ],
)
def test_a_missing_tensor_is_blamed_and_not_those_around_it(name, tensor):
    tensors = FILES[name]()
    lost = tensors.pop(tensor)
    assert complaints(tensors)[2] == [f"missing: {tensor} {tuple(lost.shape)}"]


@pytest.mark.parametrize(("name", "tensor"), OUTVOTED)
def test_a_misshapen_tensor_is_blamed_and_not_those_around_it(name, tensor):
    tensors = FILES[name]()
    outside, *others = tensors[tensor].shape
    right, wrong = (outside, *others), (outside + 1, *others)
    assert complaints({**tensors, tensor: meta(wrong)})[2] == [f"shape of {tensor}: expected {right}, found {wrong}"]


def test_a_file_without_any_classifier_does_not_say_how_many_classes():
    tensors = {key: tensor for key, tensor in theirs("emanet").items() if not key.startswith("fc2.")}
    _, head, lines = complaints(tensors)
    assert "(2 missing)" in head
    assert lines == ["missing: fc2.weight (classes, 256, 1, 1)", "missing: fc2.bias (classes,)"]


def renamed(tensors, old, new):
    return {key.replace(old, new): tensor for key, tensor in tensors.items() if key.startswith(old)}


@pytest.mark.parametrize(
    ("depth", "block"),
    [(50, "extractor.6.6."), (50, "extractor.4.3."), (101, "extractor.6.23."), (152, "extractor.5.8.")],
)
def test_a_block_too_many_is_the_only_one_that_is_named(depth, block):
    tensors = theirs("emanet", depth)
    added = renamed(tensors, f"{block.rsplit('.', 2)[0]}.1.", block)
    _, head, lines = complaints({**tensors, **added})
    assert f"({len(added)} unexpected)" in head
    assert all(line.startswith((f"unexpected: {block}", "… and")) for line in lines)


@pytest.mark.parametrize(("depth", "block"), [(50, "layer3.5."), (101, "layer3.11."), (152, "layer2.7.")])
def test_a_missing_block_is_the_only_one_that_is_named(depth, block):
    tensors = theirs("openmmlab_pspnet", depth)
    block = f"backbone.{block}"
    left = {key: tensor for key, tensor in tensors.items() if not key.startswith(block)}
    lines = complaints(left)[2]
    assert len(lines) == 15
    assert all(line.startswith(f"missing: {block}") for line in lines)


def test_how_many_there_are_of_each_kind_is_said_before_the_list_and_how_many_more_after_it():
    tensors = {
        key: tensor for key, tensor in theirs("emanet").items() if not key.startswith(("extractor.7.1.", "fc1."))
    }
    tensors |= {f"new.{number}": meta((2,)) for number in range(9)}
    _, head, lines = complaints(tensors)
    # The fifteen without counters of the block, five of the projection.
    assert "(20 missing, 9 unexpected)" in head
    assert lines[20:] == ["… and 9 more"]
