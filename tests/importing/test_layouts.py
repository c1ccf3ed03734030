"""Names and shapes of every layout, at every depth, without numbers."""

import re
from pathlib import Path

import pytest
import torch
from tests.importing.sources import SOURCES, source

import segcontext
from segcontext.errors import WeightsError
from segcontext.importing import LAYOUTS
from segcontext.importing.layout import leading
from segcontext.importing.shapes import Shapes
from segcontext.layers import Normalize

LISTED = {
    "emanet": ("emanet_authors_resnet50_voc.txt", 21),
    "gald": ("galdnet_v1_authors_resnet50_cityscapes.txt", 19),
}


def listed(file):
    """The names and shapes that a listing of a checkpoint holds."""
    lines = (Path(__file__).parent / "layouts" / file).read_text().splitlines()
    found = (re.fullmatch(r"(\S+) \(([\d, ]*)\)", line) for line in lines if not line.startswith("#"))
    return {each[1]: tuple(int(number) for number in re.findall(r"\d+", each[2])) for each in found}


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def meta(builder, classes, **options):
    with torch.device("meta"):
        return getattr(segcontext, builder)(classes, pretrained=False, **options)


@pytest.mark.parametrize(
    ("name", "depth"),
    [*((name, depth) for name in SOURCES for depth in (50, 101)), ("emanet", 152)],
)
def test_names_and_shapes_are_those_of_the_source_at_every_depth(name, depth):
    layout, wanted = LAYOUTS[name], source(name, depth, classes=7).state_dict()
    model = layout.build(Shapes.of(wanted), align_corners=True)
    assert model.num_classes == 7
    assert shapes(layout.to_theirs(model.state_dict())) == shapes(wanted)
    # There and back again is where it came from.
    ours = layout.to_ours(layout.to_theirs(model.state_dict()))
    assert shapes(ours) == shapes(model.state_dict())


@pytest.mark.parametrize("name", LISTED)
def test_the_authors_checkpoints_are_as_listed(name):
    file, classes = LISTED[name]
    wanted = listed(file)
    assert len(wanted) > 300
    assert shapes(source(name, classes=classes).state_dict()) == wanted
    assert shapes(LAYOUTS[name].to_theirs(LAYOUTS[name].build(Shapes(wanted), True).state_dict())) == wanted


@pytest.mark.parametrize("name", LISTED)
def test_the_named_networks_go_into_the_authors_layouts(tmp_path, name, caplog):
    """Every tensor that is listed is written; in what else they differ is said."""
    file, classes = LISTED[name]
    wanted, builder = listed(file), {"emanet": "emanet", "gald": "galdnet_v1"}[name]
    model = meta(builder, classes).to_empty(device="cpu")
    model.normalize = Normalize()
    for tensor in model.state_dict().values():
        tensor.zero_()
    differing = segcontext.export_weights(model, tmp_path / "theirs.pth", layout=name)
    written = torch.load(tmp_path / "theirs.pth", weights_only=True)
    if name == "emanet":
        assert set(written) == {"net", "step"}
        written = written["net"]
        assert differing == ("aggregation: without_mass is keep, there published",)
    else:
        assert "aggregation: padding is 1, there 0" in differing
        assert "distribution: padding is 1, there 0" in differing
        assert any("bgr" in line for line in differing)
    assert shapes(written) == wanted
    assert len(caplog.records) == len(differing)
    again = segcontext.import_weights(tmp_path / "theirs.pth")
    assert again.num_classes == classes


def test_other_widths_and_counts_are_taken_from_the_shapes():
    """EMANet(256) of the paper's Table 1, with other bases and classes."""
    model = meta("emanet", 60, reduce_channels=256, project_channels=64, aggregation_options={"num_bases": 32})
    theirs = LAYOUTS["emanet"].to_theirs(model.state_dict())
    built = LAYOUTS["emanet"].build(Shapes.of(theirs), True)
    assert shapes(built.state_dict()) == shapes(model.state_dict())
    assert built.aggregation.num_bases == 32


@pytest.mark.parametrize(
    ("name", "without"),
    [("torchvision_fcn", "aux_classifier"), ("openmmlab_emanet", "decode_head.conv_cat"), ("gald", "dsn")],
)
def test_heads_that_are_not_there_are_not_built(name, without):
    layout = LAYOUTS[name]
    wanted = {key: tensor for key, tensor in source(name).state_dict().items() if not key.startswith(without)}
    if name == "openmmlab_emanet":
        assert layout.build(Shapes.of(wanted), False).fuse is None
    model = layout.build(Shapes.of(wanted), False)
    assert shapes(layout.to_theirs(model.state_dict())) == shapes(wanted)


def test_a_network_of_another_kind_has_no_place_in_a_layout(tmp_path):
    with pytest.raises(WeightsError, match=r"no EMANet as its authors save it.*\n.*aggregation.levels.0.0.weight"):
        segcontext.export_weights(meta("pspnet", 3), tmp_path / "x.pth", layout="emanet")
    with pytest.raises(WeightsError, match=r"(?s)missing: extractor.0.0.weight \(64, 3, 3, 3\).*unexpected"):
        segcontext.export_weights(meta("emanet", 3, backbone="resnet50"), tmp_path / "x.pth", layout="emanet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("first", [2, 5, 6])
def test_channels_of_concatenated_maps_change_places(first):
    weight = torch.arange(7.0).view(1, 7, 1, 1)
    turn = leading(lambda channels: first)
    ours = turn.to_ours(weight)
    assert ours.flatten().tolist() == [*range(first, 7), *range(first)]
    assert torch.equal(turn.to_theirs(ours), weight)
