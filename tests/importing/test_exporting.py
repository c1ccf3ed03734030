"""What files in other people's layouts say of a network, and what is said where they cannot say it."""

import pytest
import torch
from tests.importing.sources import filled, source
from tests.importing.test_networks import as_theirs, pictures

import segcontext
from segcontext.cli import main
from segcontext.errors import WeightsError
from segcontext.importing import LAYOUTS
from segcontext.importing.recognition import load


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("name", ["openmmlab_pspnet", "openmmlab_deeplabv3_plus"])
def test_corners_go_there_and_back(tmp_path, capsys, name, aligned):
    """A file says itself whether corners are aligned, whatever it is called."""
    images = pictures(name, size=(49, 65))
    network = filled(source(name), as_theirs(images, name))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    model = segcontext.import_weights(tmp_path / "weights.pth", align_corners=aligned)
    file = tmp_path / ("a_512x1024.pth" if aligned else "a_769x769.pth")
    assert segcontext.export_weights(model, file, layout=name) == ()
    again = load(file)
    assert again.notes == ()
    with torch.no_grad():
        wanted, found = model(images).logits, again.model(images).logits
        other = segcontext.import_weights(file, align_corners=not aligned)(images).logits
    assert torch.equal(found, wanted)
    assert (other - wanted).abs().max() > 1e-2 * wanted.abs().max()
    # Safetensors has no place for it, and the command says so.
    segcontext.save_model(tmp_path / "run.safetensors", model)
    out = tmp_path / "b.safetensors"
    words = ["export-weights", str(tmp_path / "run.safetensors"), "--layout", name, "--out"]
    assert main([*words, str(out)]) == 0
    printed = capsys.readouterr().out
    assert ("align_corners is True, for which a .safetensors file has no place" in printed) == aligned
    assert main([*words, str(tmp_path / "c_769x769.safetensors")]) == 0
    assert ("align_corners is False, for which" in capsys.readouterr().out) == (not aligned)
    with torch.no_grad():
        assert torch.equal(segcontext.import_weights(out, align_corners=aligned)(images).logits, wanted)


def test_a_network_at_another_stride_or_with_multi_grid_says_so_in_the_file(tmp_path):
    with torch.device("meta"):
        options = {"pretrained": False, "backbone": "resnet50c", "auxiliary_channels": 256}
        networks = {
            "strides (1, 2, 2, 1)": segcontext.pspnet(3, output_stride=16, **options),
            "multi_grid=(4, 8, 16)": segcontext.pspnet(
                3, multi_grid=(1, 2, 4), backbone_options={"first_block": "same"}, **options
            ),
            "multi_grid=(2, 8, 16)": segcontext.pspnet(3, multi_grid=(1, 2, 4), **options),
        }
    for words, network in networks.items():
        model = network.to_empty(device="cpu")
        for tensor in model.state_dict().values():
            tensor.zero_()
        model.normalize = type(model.normalize)()
        lines = segcontext.export_weights(model, tmp_path / "w.pth", layout="openmmlab_pspnet", overwrite=True)
        assert words in next(line for line in lines if line.startswith("segcontext does not import the file again"))
        with pytest.raises(WeightsError) as caught:
            segcontext.import_weights(tmp_path / "w.pth")
        assert words in str(caught.value)


def build(name, classes=21, **options):
    model = getattr(segcontext, name)(classes, pretrained=False, **options)
    return model.eval()


def lines_of(tmp_path, layout, model):
    return segcontext.export_weights(model, tmp_path / "w.pth", layout=layout, overwrite=True)


def test_what_the_authors_code_cannot_read_is_said(tmp_path, caplog):
    published = {"num_bases": 32, "without_mass": "published"}
    model = build("emanet", reduce_channels=256, project_channels=128, aggregation_options=published)
    unread = "its code cannot read the file: "
    assert lines_of(tmp_path, "emanet", model) == (
        f"{unread}fc0.conv.weight has shape (256, 2048, 3, 3), there always (512, 2048, 3, 3)",
        f"{unread}emau.mu has shape (1, 256, 32), there always (1, 512, 64)",
        f"{unread}fc1.0.conv.weight has shape (128, 256, 3, 3), there always (256, 512, 3, 3)",
    )
    assert "cannot read the file" in caplog.text
    # Ours reads it all the same.
    assert segcontext.import_weights(tmp_path / "w.pth").aggregation.num_bases == 32
    lines = lines_of(tmp_path, "gald", build("galdnet_v1", auxiliary=False))
    assert f"{unread}dsn.0.weight (512, 1024, 3, 3) is missing" in lines
    lines = lines_of(tmp_path, "gald", build("galdnet_v1", fuse_channels=64))
    assert f"{unread}head.bottleneck.0.weight has shape (64, 2560, 3, 3), there always (512, 2560, 3, 3)" in lines
    narrow = build("fcn", backbone="resnet50", reduce_channels=64, align_corners=False)
    assert lines_of(tmp_path, "torchvision_fcn", narrow) == (
        f"{unread}classifier.0.weight has shape (64, 2048, 3, 3), there always (512, 2048, 3, 3)",
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_that_are_always_so_are_those_of_the_source(layout):
    shapes = {name: tuple(tensor.shape) for name, tensor in source(layout).state_dict().items()}
    fixed = LAYOUTS[layout].fixed
    assert {name: shapes[name] for name in fixed} == dict(fixed)
    assert set(LAYOUTS[layout].required) <= set(fixed)
