"""What is said of files that cannot be taken, and what is taken from files besides tensors."""

import logging

import pytest
import torch
from tests.importing.sources import source

import segcontext
from segcontext.data import VOC, Cityscapes
from segcontext.errors import RecipeError, WeightsError
from segcontext.importing.layout import Told
from segcontext.importing.openmmlab_meta import told


def blank(name, depth=50, **options):
    """A source network's tensors, all zero."""
    return {key: torch.zeros(tensor.shape) for key, tensor in source(name, depth, **options).state_dict().items()}


def saved(tmp_path, content, name="weights.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.fixture(scope="module")
def fcn():
    return blank("torchvision_fcn", classes=21)


@pytest.fixture(scope="module")
def pspnet():
    return blank("openmmlab_pspnet", classes=19)


def test_missing_unexpected_and_misshapen_tensors_are_listed(tmp_path, fcn):
    tensors = dict(fcn)
    del tensors["backbone.layer3.2.conv2.weight"]
    tensors["classifier.7.weight"] = torch.zeros(3, 4)
    tensors["classifier.0.weight"] = torch.zeros(512, 2048, 1, 1)
    with pytest.raises(WeightsError) as caught:
        segcontext.import_weights(saved(tmp_path, tensors))
    text = str(caught.value)
    assert "looks like torchvision's FCN" in text
    assert "missing: backbone.layer3.2.conv2.weight (256, 256, 3, 3)" in text
    assert "unexpected: classifier.7.weight (3, 4)" in text
    assert "shape of classifier.0.weight: expected (512, 2048, 3, 3), found (512, 2048, 1, 1)" in text
    few = {name: tensor for name, tensor in fcn.items() if name.startswith(("classifier", "backbone.layer1"))}
    with pytest.raises(WeightsError, match=r"… and \d+ more"):
        segcontext.import_weights(saved(tmp_path, few))


def test_files_from_before_batch_norms_counted_are_taken(tmp_path, fcn):
    tensors = {name: tensor for name, tensor in fcn.items() if not name.endswith("num_batches_tracked")}
    model = segcontext.import_weights(saved(tmp_path, tensors))
    assert model.reduce[1].num_batches_tracked == 0
    assert not model.training


def test_unknown_networks_are_refused_with_what_is_known(tmp_path):
    with pytest.raises(WeightsError) as caught:
        segcontext.import_weights(saved(tmp_path, {"encoder.weight": torch.zeros(2, 3)}))
    text = str(caught.value)
    assert "emanet: EMANet as its authors save it" in text
    assert "openmmlab_psanet: OpenMMLab's PSANet" in text
    assert "encoder.weight (2, 3)" in text


def test_other_backbones_are_refused(tmp_path, pspnet):
    narrow = {name: tensor for name, tensor in pspnet.items() if ".conv3." not in name}
    with pytest.raises(WeightsError, match="ResNet has no bottlenecks"):
        segcontext.import_weights(saved(tmp_path, narrow))
    # A classic stem in place of v1c's three convolutions.
    classic = {name: tensor for name, tensor in pspnet.items() if ".stem." not in name}
    classic["backbone.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    with pytest.raises(WeightsError, match=r"(?s)missing: backbone.stem.0.weight.*unexpected: backbone.conv1.weight"):
        segcontext.import_weights(saved(tmp_path, classic))


def test_windows_that_are_no_squares_are_refused(tmp_path):
    tensors = blank("openmmlab_psanet", side=3)
    for branch in ("attention", "attention_p"):
        tensors[f"decode_head.{branch}.1.weight"] = torch.zeros(15, 512, 1, 1)
    with pytest.raises(WeightsError, match="windows of 15 cells"):
        segcontext.import_weights(saved(tmp_path, tensors))


CONFIG = """
model = dict(
    backbone=dict(type='ResNetV1c', dilations=(1, 1, 2, 4), strides=({strides}), contract_dilation=True),
    decode_head=dict(type='PSPHead', align_corners={aligned}),
    auxiliary_head=dict(type='FCNHead', align_corners={aligned}))
"""


@pytest.mark.parametrize(
    ("facts", "name", "aligned"),
    [
        ({"config": CONFIG.format(strides="1, 2, 1, 1", aligned=True)}, "x.pth", True),
        ({"cfg": CONFIG.format(strides="1, 2, 1, 1", aligned=False)}, "pspnet_r50-d8_769x769_40k.pth", False),
        ({}, "pspnet_r50-d8_769x769_40k_cityscapes_20200606-b2638721.pth", True),
        ({}, "pspnet_r50-d8_4xb2-40k_cityscapes-769x769_20200606.pth", True),
        ({}, "pspnet_r50-d8_512x1024_40k_cityscapes_20200606-b2638721.pth", False),
        ({}, "pspnet_r50-d8_480x480_40k_pascal_context.pth", False),
        ({}, "iter_40000.pth", None),
        ({"config": 3}, "best.pth", None),
    ],
)
def test_openmmlabs_files_say_whether_corners_are_aligned(facts, name, aligned):
    assert told(facts, name) == Told(aligned)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"config": CONFIG.format(strides="1, 2, 2, 1", aligned=True)}, "x.pth"),
        ({}, "deeplabv3_r101-d16-mg124_512x1024_40k_cityscapes.pth"),
        ({}, "pspnet_r50-d32_512x1024_80k_cityscapes.pth"),
    ],
)
def test_other_strides_are_refused(tmp_path, pspnet, facts, name):
    with pytest.raises(WeightsError, match="another output stride than 8"):
        segcontext.import_weights(saved(tmp_path, {"state_dict": pspnet, "meta": facts}, name))


def test_whether_corners_are_aligned_may_be_said_or_is_assumed(tmp_path, pspnet, fcn, caplog):
    path = saved(tmp_path, pspnet)
    with caplog.at_level(logging.WARNING):
        assert not segcontext.import_weights(path).align_corners
    assert "taken for unaligned" in caplog.text
    caplog.clear()
    model = segcontext.import_weights(path, align_corners=True)
    assert model.align_corners
    assert model.aggregation.align_corners
    assert not caplog.text
    with pytest.raises(RecipeError, match="align_corners=False: leave it out"):
        segcontext.import_weights(saved(tmp_path, fcn), align_corners=True)
    assert not segcontext.import_weights(saved(tmp_path, fcn), align_corners=False).align_corners


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": list(Cityscapes.classes), "PALETTE": [list(colour) for colour in Cityscapes.palette]},
        {"dataset_meta": {"classes": Cityscapes.classes, "palette": Cityscapes.palette}},
    ],
)
def test_classes_come_from_the_file(tmp_path, pspnet, meta):
    model = segcontext.import_weights(saved(tmp_path, {"meta": meta, "state_dict": pspnet}), align_corners=False)
    assert model.classes == tuple(Cityscapes.classes)
    assert model.palette == tuple(Cityscapes.palette)


def test_classes_that_do_not_fit_are_left_out(tmp_path, pspnet):
    content = {"meta": {"CLASSES": ("a", "b"), "PALETTE": [1, 2]}, "state_dict": pspnet}
    model = segcontext.import_weights(saved(tmp_path, content), align_corners=False)
    assert (model.classes, model.palette) == ((), ())


def test_a_data_set_names_the_classes(tmp_path, fcn):
    model = segcontext.import_weights(saved(tmp_path, fcn), dataset="voc")
    assert (model.classes, model.palette) == (VOC.classes, VOC.palette)
    with pytest.raises(RecipeError, match="has 21 classes, but cityscapes has 19"):
        segcontext.import_weights(saved(tmp_path, fcn), dataset="cityscapes")
    with pytest.raises(RecipeError, match="Did you mean 'cityscapes'"):
        segcontext.import_weights(saved(tmp_path, fcn), dataset="cityscape")


def test_importing_draws_no_random_numbers(tmp_path, fcn):
    path = saved(tmp_path, fcn)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    segcontext.import_weights(path)
    assert torch.equal(torch.random.get_rng_state(), before)
