"""What the configuration in OpenMMLab's files says is rebuilt, or refused by name."""

import pytest
import torch
from tests.importing.sources import filled, source
from tests.importing.test_networks import as_theirs, assert_same, pictures
from torch import nn

import segcontext
from segcontext.cli import main
from segcontext.errors import WeightsError
from segcontext.importing import import_run
from segcontext.importing.layout import Told
from segcontext.importing.openmmlab_meta import told
from segcontext.importing.recognition import load

BACKBONE = {"type": "ResNetV1c", "strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "contract_dilation": True}


def config(backbone=None, head=None, further=""):
    """A configuration as OpenMMLab prints it: the published backbone and a head, with settings changed."""
    parts = {"backbone": {**BACKBONE, **(backbone or {})}, "decode_head": {"align_corners": False, **(head or {})}}
    words = (
        f"{name}=dict({', '.join(f'{key}={value!r}' for key, value in part.items())})" for name, part in parts.items()
    )
    return f"norm_cfg = dict(type='SyncBN')\nmodel = dict(\n    type='EncoderDecoder', {', '.join(words)})\n{further}"


def said(text, name="x.pth"):
    return told({"config": text}, name)


def test_a_published_configuration_says_nothing_new():
    heads = (
        {"type": "EMAHead", "num_stages": 3, "num_bases": 64},
        {"type": "PSPHead", "pool_scales": (1, 2, 3, 6)},
        {"type": "ASPPHead", "dilations": [1, 12, 24, 36]},
        {"type": "NLHead", "use_scale": True, "mode": "embedded_gaussian", "reduction": 2},
        {"type": "PSAHead", "mask_size": (97, 97), "psa_type": "bi-direction", "compact": False, "shrink_factor": 2},
    )
    images = "data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)"
    for head in heads:
        assert said(config({"depth": 50, "norm_eval": False, "style": "pytorch"}, head, images)) == Told(False)


@pytest.mark.parametrize(
    ("backbone", "head", "name"),
    [
        ({"multi_grid": (1, 2, 4)}, {}, "multi_grid=(1, 2, 4) in backbone"),
        ({"dilations": [1, 1, 1, 2]}, {}, "dilations=(1, 1, 1, 2) in backbone"),
        ({"style": "caffe"}, {}, "style='caffe' in backbone"),
        ({"contract_dilation": "maybe"}, {}, "contract_dilation='maybe' in backbone"),
        ({}, {"mode": "dot_product"}, "mode='dot_product' in decode_head"),
        ({}, {"psa_type": "collect"}, "psa_type='collect' in decode_head"),
        ({}, {"compact": True}, "compact=True in decode_head"),
        ({}, {"psa_softmax": False}, "psa_softmax=False in decode_head"),
        ({}, {"normalization_factor": None}, "normalization_factor=None in decode_head"),
        ({}, {"mask_size": (4, 9)}, "mask_size=(4, 9) in decode_head"),
        ({}, {"num_stages": 0}, "num_stages=0 in decode_head"),
        ({}, {"num_stages": 10**9}, "num_stages=1000000000 in decode_head"),
        ({}, {"use_scale": "no"}, "use_scale='no' in decode_head"),
        ({}, {"shrink_factor": 1.5}, "shrink_factor=1.5 in decode_head"),
        ({}, {"dilations": (6, 12, 18)}, "dilations=(6, 12, 18) in decode_head"),
        ({}, {"dilations": (2, 12, 24, 36)}, "dilations=(2, 12, 24, 36) in decode_head"),
        ({}, {"pool_scales": (1, 2)}, "pool_scales=(1, 2) in decode_head"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused_by_name(backbone, head, name):
    problem = said(config(backbone, head)).problem
    assert problem is not None
    assert f"its configuration has {name}, which cannot be rebuilt" in problem


@pytest.mark.parametrize("strides", ["(1, 2, 2, 1)", "[1, 2, 2, 1]", "(\n  1,2,2,1)"])
def test_strides_count_however_they_are_written(strides):
    text = f"model = dict(backbone=dict(strides={strides}), decode_head=dict(align_corners=True))"
    found = said(text)
    assert "another output stride than 8 (strides (1, 2, 2, 1))" in found.problem
    assert found.align_corners
    # They count before the name.
    assert said(config(), "pspnet_r50-d16_769x769.pth") == Told(False)


@pytest.mark.parametrize(
    ("backbone", "head", "options"),
    [
        ({"contract_dilation": False}, {}, {"backbone_options": {"first_block": "same"}}),
        ({}, {"num_stages": 5}, {"aggregation_options": {"iterations": 5}}),
        ({}, {"use_scale": False}, {"aggregation_options": {"scaled": False}}),
        ({}, {"dilations": (1, 6, 12, 18)}, {"aggregation_options": {"rates": (6, 12, 18)}}),
        ({}, {"pool_scales": [1, 2, 4, 8]}, {"aggregation_options": {"bins": (1, 2, 4, 8)}}),
        ({}, {"shrink_factor": 1}, {"aggregation_options": {"shrink": 1}}),
        # What their class takes where a whole configuration leaves it out.
        ({}, {"type": "ASPPHead"}, {"aggregation_options": {"rates": (6, 12, 18)}}),
    ],
)
def test_what_our_parts_have_an_option_for_is_handed_on(backbone, head, options):
    assert said(config(backbone, head)) == Told(False, None, options)


def test_defaults_of_their_classes_count_where_a_whole_configuration_is_there():
    found = said("model = dict(backbone=dict(type='ResNetV1c'), decode_head=dict(type='PSPHead'))", "x_769x769.pth")
    assert found.align_corners is False
    assert found.options == {"backbone_options": {"first_block": "same"}}
    assert "strides (1, 2, 2, 2)" in found.problem
    # A text without classes says what it says, and no more.
    assert said("model = dict(backbone=dict(strides=(1, 2, 1, 1)))", "x_769x769.pth") == Told(True)


def test_images_that_are_normalised_otherwise():
    part = "mean=[1.0, 2.0, 4.0], std=[255, 51, 25.5]"
    for text in (f"img_norm_cfg = dict({part}, to_rgb=True)", f"data_preprocessor = dict({part}, bgr_to_rgb=True)"):
        options = said(config(further=text)).options
        assert options == {"mean": (1 / 255, 2 / 255, 4 / 255), "std": (1.0, 0.2, 0.1)}
    turned = said(config(further=f"img_norm_cfg = dict({part}, to_rgb=False)")).options
    assert turned == {"bgr": True, "mean": (4 / 255, 2 / 255, 1 / 255), "std": (0.1, 0.2, 1.0)}
    for wrong in ("mean=[1, 2]", "std=[1, 0, 1]", "mean='x'", "mean=[1, 2, 1e999]"):
        assert (
            "in img_norm_cfg, which cannot be rebuilt" in said(config(further=f"img_norm_cfg = dict({wrong})")).problem
        )


@pytest.mark.parametrize(
    "text",
    ["model = dict(", "x = '\0'", "model = " + 5000 * "(", "model = " + 100_000 * "-" + "1", "#" * 1_000_001, "\ud800"],
)
def test_texts_that_are_no_configuration_are_left_out_of_account_and_that_is_said(text):
    found = said(text, "pspnet_512x1024.pth")
    assert found[:3] == (False, None, {})
    assert "cannot be read" in found.notes[0]


@pytest.mark.parametrize(
    "value", ["open('/tmp/x', 'w')", "dict(type='x')", "0x" + 10_000 * "f", "{[]: 1}", "f'{1}'", "'\\d'"]
)
def test_what_is_no_plain_value_is_not_run_and_fits_nothing(value):
    found = said(f"model = dict(decode_head=dict(mode={value}, align_corners=True))")
    assert found.align_corners
    assert "has mode=" in found.problem
    assert len(found.problem) < 300


def theirs(tmp_path, layout, text, images=None, **options):
    """A file of a source network with numbers and a configuration, and the network."""
    network = source(layout, **options)
    network = network.to_empty(device="cpu") if images is None else filled(network, images)
    if images is None:
        for tensor in network.state_dict().values():
            tensor.zero_()
    torch.save({"meta": {"config": text}, "state_dict": network.state_dict()}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth", network


@pytest.mark.parametrize(
    ("layout", "head", "attribute", "value"),
    [
        ("openmmlab_emanet", {"num_stages": 5}, "evaluation_iterations", 5),
        ("openmmlab_nonlocal", {"use_scale": False}, "scale", 1.0),
        ("openmmlab_psanet", {"shrink_factor": 3}, "shrink", 3),
    ],
)
def test_networks_are_built_with_it_and_give_it_back(tmp_path, layout, head, attribute, value):
    options = {"side": 3} if layout == "openmmlab_psanet" else {}
    file, _ = theirs(tmp_path, layout, config(head=head), **options)
    import_run(file, tmp_path / "run")
    model = segcontext.load_model(tmp_path / "run")
    assert getattr(model.aggregation, attribute) == value
    # The PyTorch file holds the setting, safetensors has no place for it.
    assert segcontext.export_weights(model, tmp_path / "again.pth", layout=layout) == ()
    assert getattr(load(tmp_path / "again.pth").model.aggregation, attribute) == value
    (line,) = (
        line
        for line in segcontext.export_weights(model, tmp_path / "again.safetensors", layout=layout)
        if not line.startswith("aggregation: iterations")
    )
    assert line.startswith(f"aggregation: {attribute} is {value}, there ")


def test_dilations_and_rates_and_images_are_those_of_the_source(tmp_path):
    """DeepLabV3 whose dilations are not contracted, at the rates of stride 16, on BGR images from 0 to 255."""
    images = pictures("openmmlab_deeplabv3", size=(49, 57))
    prepared = 255 * images.flip(1) - torch.tensor((104.0, 117.0, 123.0)).view(1, 3, 1, 1)
    network = source("openmmlab_deeplabv3")
    first = ((network.backbone.layer3[0].conv2, 2), (network.backbone.layer4[0].conv2, 4))
    branches = ((network.decode_head.aspp_modules[n].conv, 6 * n) for n in (1, 2, 3))
    for convolution, dilation in (*first, *branches):
        convolution.dilation = convolution.padding = (dilation, dilation)
    text = config(
        {"contract_dilation": False},
        {"type": "ASPPHead", "dilations": (1, 6, 12, 18)},
        "img_norm_cfg = dict(mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 1.0], to_rgb=False)",
    )
    network = filled(network, prepared)
    torch.save({"meta": {"config": text}, "state_dict": network.state_dict()}, tmp_path / "weights.pth")
    import_run(tmp_path / "weights.pth", tmp_path / "run")
    model = segcontext.load_model(tmp_path / "run")
    with torch.no_grad():
        assert_same(model(images).features_logits, network(prepared)[0])
    assert segcontext.export_weights(model, tmp_path / "again.pth", layout="openmmlab_deeplabv3") == ()
    again = segcontext.import_weights(tmp_path / "again.pth")
    with torch.no_grad():
        assert_same(again(images).features_logits, network(prepared)[0])


def test_pooling_is_that_of_the_source(tmp_path):
    images = pictures("openmmlab_pspnet", size=(57, 65))
    network = source("openmmlab_pspnet")
    for level, side in zip(network.decode_head.psp_modules, (1, 2, 4, 5), strict=True):
        level[0] = nn.AdaptiveAvgPool2d(side)
    network = filled(network, as_theirs(images, "openmmlab_pspnet"))
    content = {"meta": {"config": config(head={"pool_scales": (1, 2, 4, 5)})}, "state_dict": network.state_dict()}
    torch.save(content, tmp_path / "weights.pth")
    model = segcontext.import_weights(tmp_path / "weights.pth")
    with torch.no_grad():
        assert_same(model(images).features_logits, network(as_theirs(images, "openmmlab_pspnet"))[0])


def test_a_setting_of_another_head_and_what_cannot_be_rebuilt_end_with_exit_code_2(tmp_path, capsys):
    file, _ = theirs(tmp_path, "openmmlab_pspnet", config(head={"num_stages": 5}))
    assert main(["import-weights", str(file), "--out", str(tmp_path / "run")]) == 2
    assert "no such network can be built" in capsys.readouterr().err
    file, _ = theirs(tmp_path, "openmmlab_pspnet", config({"multi_grid": (1, 2, 4)}))
    with pytest.raises(WeightsError, match=r"weights\.pth is OpenMMLab's PSPNet, but .*multi_grid=\(1, 2, 4\)"):
        segcontext.import_weights(file)


def test_a_text_that_cannot_be_read_is_noted(tmp_path):
    file, _ = theirs(tmp_path, "openmmlab_pspnet", "model = dict(")
    assert any("configuration in the file cannot be read" in note for note in load(file).notes)
