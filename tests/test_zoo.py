"""The named networks: their settings, the papers' counts, and golden outputs.

`python tests/test_zoo.py --regenerate` writes golden/networks.json anew, after a change that means to change outputs.
"""

import inspect
import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segcontext import assembly, zoo
from segcontext.aggregation import AGGREGATIONS, ASPP, PSP, Downsampled
from segcontext.assembly import option_names, segmenter
from segcontext.distribution import DISTRIBUTIONS, AffinityDistribution, MaskDistribution
from segcontext.errors import RecipeError
from segcontext.layers import SeparableConvNormAct
from segcontext.types import Context
from segcontext.zoo import BUILDERS, build

GOLDEN = Path(__file__).parent / "golden" / "networks.json"
NAMES = [name for name in BUILDERS if name != "segmenter"]
TINY = {"backbone": "test_resnet", "pretrained": False, "reduce_channels": 16}
# Smaller than the papers' settings, so that the tests are quick.
SMALL = {
    "psp": {"out_channels": 16},
    "aspp": {"out_channels": 16, "rates": (1, 2)},
    "psa": {"channels": 8, "mask_size": 5},
    "ema": {"num_bases": 4},
    "affinity": {"key_channels": 4, "value_channels": 8, "kernel_size": 3},
}

every_network = pytest.mark.parametrize("name", NAMES)


def beyond_the_backbone(model):
    return sum(each.numel() for name, each in model.named_parameters() if not name.startswith("backbone."))


def meta(name, classes=21, **options):
    with torch.device("meta"):
        return BUILDERS[name](classes, **{"pretrained": False, **options})


def fill(model):
    """Gives every tensor values that follow from its name alone, not from the order in which layers are made."""
    for name, tensor in model.state_dict().items():
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        values = torch.from_numpy(2 * draw.random(tuple(tensor.shape)) - 1) if tensor.is_floating_point() else None
        if values is None:
            continue
        if name.endswith("bases"):
            values = values / values.norm(dim=1, keepdim=True)
        elif tensor.ndim > 1:
            values = values * math.sqrt(3 / tensor[0].numel())
        else:
            # Batch norms' weights and variances lie around 1, biases and means around 0.
            values = values / 4 + (1 if name.endswith(("running_var", ".weight")) else 0)
        tensor.copy_(values)


def measure(name):
    """What is kept of a network: its tensors' names and shapes, and samples of what it computes in float64."""
    model = BUILDERS[name](5, backbone="test_resnet", pretrained=False).double().eval()
    fill(model)
    shapes = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in model.state_dict().items())
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 33, 41), dtype=np.uint8))
    with torch.inference_mode():
        output = model(image, auxiliary=True)
    found = {
        "parameters": sum(each.numel() for each in model.parameters()),
        "tensors": zlib.crc32("\n".join(shapes).encode()),
        "size": list(output.features_logits.shape),
    }
    for key, logits in (("logits", output.features_logits), ("auxiliary", output.auxiliary)):
        if logits is not None:
            samples = logits.flatten()[:: logits.numel() // 12][:12].tolist()
            found[key] = [float(f"{value:.9g}") for value in (*samples, logits.mean().item(), logits.std().item())]
    return found


@every_network
def test_golden_outputs(name):
    """float64 on another machine or PyTorch differs by about 1e-12; a change of the arithmetic by 1e-3 and more."""
    golden, found = json.loads(GOLDEN.read_text())[name], measure(name)
    hint = "tensors were renamed or reshaped: saved weights would no longer load (see this file's top)"
    assert (found["tensors"], found["parameters"]) == (golden["tensors"], golden["parameters"]), hint
    assert found["size"] == golden["size"]
    assert found["logits"] == pytest.approx(golden["logits"], rel=1e-6, abs=1e-6)
    assert ("auxiliary" in found) == ("auxiliary" in golden)
    if "auxiliary" in golden:
        assert found["auxiliary"] == pytest.approx(golden["auxiliary"], rel=1e-6, abs=1e-6)


def test_golden_outputs_cover_every_network_and_tell_them_apart():
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(NAMES)
    assert len({tuple(each["logits"]) for each in golden.values()}) == len(NAMES)
    # Constant logits would guard nothing.
    assert all(each["logits"][-1] > 0.05 for each in golden.values())


@every_network
def test_signatures_are_alike(name):
    parameters = inspect.signature(BUILDERS[name]).parameters
    assert list(parameters)[:4] == ["num_classes", "backbone", "output_stride", "pretrained"]
    defaults = {key: parameters[key].default for key in ("backbone", "output_stride", "pretrained")}
    assert defaults == {"backbone": "resnet50s", "output_stride": 8, "pretrained": True}
    assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY for key in defaults)
    assert BUILDERS[name].__doc__


def test_every_option_of_the_segmenter_can_be_given_to_a_named_network():
    declared = set(assembly.SegmenterOptions.__annotations__) | {"backbone", "output_stride", "pretrained"}
    assert declared == set(option_names())
    assert set(zoo.__all__) == {*BUILDERS, "build"}


def test_emanet_has_the_papers_parameters():
    model = meta("emanet", backbone="resnet101s", project_channels=None)
    assert beyond_the_backbone(model) == 9_974_805
    assert model.aggregation.bases.numel() == 32_768
    assert sum(each.numel() for each in model.backbone.parameters()) == 42_623_936
    narrow = meta("emanet", project_channels=None, reduce_channels=256)
    assert beyond_the_backbone(narrow) == 4_856_341
    assert narrow.aggregation.bases.numel() == 16_384
    # The published code has a 3×3 convolution more.
    published = meta("emanet")
    assert beyond_the_backbone(published) == 9_974_805 + 512 * 256 * 9 + 2 * 256 - 256 * 21


def test_other_counts_of_the_papers():
    assert round(beyond_the_backbone(meta("deeplabv3")) / 1e6, 1) == 15.5
    assert sum(each.numel() for each in meta("cgnl_net").aggregation.parameters()) == 410_624
    affinity = meta("galdnet_v2").distribution
    assert sum(each.weight.numel() for each in (affinity.query, affinity.key, affinity.value)) == 2304 * 1024
    assert sum(each.numel() for each in meta("galdnet_v1").distribution.parameters()) == 18_432
    deep, shallow = (meta("fcn", backbone=f"resnet{depth}s") for depth in (101, 50))
    more = sum(each.numel() for each in deep.parameters()) - sum(each.numel() for each in shallow.parameters())
    assert round(more / 1e6, 2) == 18.99


@every_network
def test_the_settings_are_the_papers(name):
    model = meta(name)
    options = model.options
    aggregation, distribution = {
        "fcn": ("none", "none"),
        "pspnet": ("psp", "none"),
        "deeplabv3": ("aspp", "none"),
        "deeplabv3_plus": ("aspp", "none"),
        "nonlocal_net": ("non_local", "none"),
        "cgnl_net": ("cgnl", "none"),
        "psanet": ("psa", "none"),
        "a2net": ("a2", "none"),
        "emanet": ("ema", "none"),
        "galdnet_v1": ("cgnl", "mask"),
        "galdnet_v2": ("aspp", "affinity"),
    }[name]
    assert (options["aggregation"], options["distribution"]) == (aggregation, distribution)
    dilations = [block.conv2.dilation[0] for block in model.backbone.net.layer4]
    multi_grid = name in ("deeplabv3", "deeplabv3_plus", "emanet", "galdnet_v1", "galdnet_v2")
    first = 4 if name.startswith("galdnet") else 2
    assert dilations == ([first, 8, 16] if multi_grid else [2, 4, 4])
    assert model.backbone.net.maxpool.ceil_mode == name.startswith("galdnet")
    assert (model.auxiliary is not None) == (name in ("pspnet", "psanet", "galdnet_v1", "galdnet_v2"))
    assert (model.decoder is not None) == (name == "deeplabv3_plus")
    assert model.align_corners
    if name == "emanet":
        unit = model.aggregation
        assert (len(unit.bases), unit.iterations, unit.momentum, unit.gradient) == (64, 3, 0.9, "none")
        assert model.project.out_channels == 256
    if aggregation == "aspp":
        assert model.aggregation.rates == (12, 24, 36)
        assert model.aggregation.in_channels == 2048
    if aggregation == "psp":
        assert model.aggregation.bins == (1, 2, 3, 6)
    if name == "galdnet_v1":
        assert isinstance(model.aggregation, Downsampled)
        assert isinstance(model.distribution, MaskDistribution)
        assert (model.distribution.residual, model.distribution.ratio) == ("published", 8)
        assert (model.skip, model.fuse.in_channels) == ("deep", 2048 + 512)
    if name == "galdnet_v2":
        assert isinstance(model.distribution, AffinityDistribution)
        assert (model.distribution.kernel_size, model.distribution.dilation) == (5, 3)
        assert (model.local, model.skip, model.fuse.in_channels) == ("deep", "deep", 2048 + 512)


@pytest.mark.parametrize(("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_atrous_rates_follow_the_stride_unless_they_are_given(stride, rates):
    assert meta("deeplabv3", output_stride=stride).aggregation.rates == rates
    given = meta("deeplabv3", output_stride=stride, aggregation_options={"rates": (1, 2)})
    assert given.aggregation.rates == (1, 2)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_any_combination_trains_and_evaluates(aggregation, distribution):
    order = [*AGGREGATIONS].index(aggregation) + [*DISTRIBUTIONS].index(distribution)
    for arrangement in {"gald", ("gald", "ldga", "parallel")[order % 3]}:
        model = segmenter(
            3,
            **TINY,
            aggregation=aggregation,
            aggregation_options=SMALL.get(aggregation),
            distribution=distribution,
            distribution_options=SMALL.get(distribution),
            arrangement=arrangement,
            local=("deep", "reduced")[order % 2],
        )
        images = torch.rand(2, 3, 17, 25)
        model.train()(images).logits.square().mean().backward()
        assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
        with torch.inference_mode():
            output = model.eval()(images[:1], evidence=True)
        assert output.logits.shape == (1, 3, 17, 25)
        assert (output.aggregation is None) == (aggregation in ("none", "psp", "aspp", "cgnl"))
        assert (output.distribution is None) == (distribution == "none")


@pytest.mark.parametrize("backbone", ["convnext_atto", "resnet18"])
def test_presets_ask_for_multi_grid_where_it_exists(backbone):
    options = {"backbone": backbone, "pretrained": False, "reduce_channels": 8, "aggregation_options": {"num_bases": 4}}
    model = build("emanet", 3, options)
    assert (model.options["multi_grid"] == (1, 2, 4)) == (backbone == "resnet18")
    if backbone != "resnet18":
        with pytest.raises(RecipeError, match="multi_grid"):
            build("emanet", 3, {**options, "multi_grid": (1, 2, 4)})


@pytest.mark.parametrize("name", ["deeplabv3", "galdnet_v1"])
def test_dilations_of_ones_own_replace_the_presets(name):
    model = build(name, 3, {**TINY, "backbone_options": {"dilations": [None, None, [2], [6]]}})
    assert model.backbone.net.layer4[0].conv1.dilation == (6, 6)


def test_other_backbone_options_stand_beside_the_presets():
    model = build("galdnet_v1", 3, {**TINY, "backbone_options": {"ceil_mode": False}})
    assert not model.backbone.net.maxpool.ceil_mode
    assert model.backbone.net.layer4[0].conv1.dilation == (4, 4)


class Half(nn.Module):
    """An aggregation from outside the package."""

    def __init__(self, in_channels, *, share=2):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, in_channels // share
        self.conv = nn.Conv2d(in_channels, self.out_channels, 1)

    def forward(self, x, *, evidence=False):
        return Context(self.conv(x))


def test_a_dotted_path_names_a_class_of_ones_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "elsewhere.parts", sys.modules[__name__])
    model = segmenter(3, **TINY, aggregation="elsewhere.parts.Half", aggregation_options={"share": 4})
    assert type(model.aggregation) is Half
    assert model.classifier.in_channels == 4
    model = segmenter(3, **TINY, distribution="segcontext.distribution.MaskDistribution")
    assert isinstance(model.distribution, MaskDistribution)


def test_options_override_presets_and_leave_other_parts_alone():
    model = build("galdnet_v1", 3, {**TINY, "aggregation": "psp", "distribution_options": {"ratio": 4}})
    assert isinstance(model.aggregation.inner, PSP)
    # The preset's residual stays beside the ratio given, but would not follow another distribution.
    assert (model.distribution.residual, model.distribution.ratio) == ("published", 4)
    assert isinstance(build("galdnet_v1", 3, {**TINY, "distribution": "affinity"}).distribution, AffinityDistribution)
    assert isinstance(build("emanet", 3, {**TINY, "aggregation": "aspp"}).aggregation, ASPP)


@every_network
def test_the_options_kept_build_the_same_network_again(name):
    first = meta(name, backbone="test_resnet", output_stride=16)
    with torch.device("meta"):
        second = segmenter(21, **first.options)
    shapes = [{key: tensor.shape for key, tensor in model.state_dict().items()} for model in (first, second)]
    assert shapes[0] == shapes[1]
    assert second.options == first.options


def test_the_options_kept_do_not_change_with_the_callers():
    given = {"num_bases": 4}
    model = segmenter(3, **TINY, aggregation_options=given)
    given["num_bases"] = 5
    assert model.options["aggregation_options"] == {"num_bases": 4}


def test_batch_norm_momentum_reaches_every_norm():
    model = build("galdnet_v1", 3, {**TINY, "bn_momentum": 3e-4})
    momenta = {each.momentum for each in model.modules() if isinstance(each, nn.BatchNorm2d)}
    assert momenta == {3e-4}


def test_images_may_go_in_as_blue_green_red():
    torch.manual_seed(0)
    model = segmenter(3, **TINY, aggregation="none").eval()
    torch.manual_seed(0)
    other = segmenter(3, **TINY, aggregation="none", bgr=True).eval()
    images = torch.rand(1, 3, 17, 17)
    other.normalize.mean, other.normalize.std = model.normalize.mean.flip(1), model.normalize.std.flip(1)
    torch.testing.assert_close(model(images).logits, other(images.flip(1)).logits)


@pytest.mark.parametrize("aligned", [True, False])
def test_align_corners_reaches_every_part_that_resizes(aligned):
    common = {**TINY, "align_corners": aligned}
    for aggregation in ("psp", "psa"):
        model = segmenter(3, **common, aggregation=aggregation, aggregation_options=SMALL[aggregation])
        assert model.aggregation.align_corners == aligned
    model = segmenter(3, **common, aggregation="none", distribution="mask")
    assert model.align_corners == model.distribution.align_corners == aligned
    model = segmenter(3, **common, aggregation="psp", aggregation_options=SMALL["psp"], aggregation_stride=2)
    assert model.aggregation.align_corners == model.aggregation.inner.align_corners == aligned
    # A part of one's own takes it, too, and one without such an option is left alone.
    dotted = segmenter(3, **common, aggregation="segcontext.aggregation.PSP", distribution="affinity")
    assert dotted.aggregation.align_corners == aligned


def test_a_parts_own_align_corners_wins():
    own = {"align_corners": True}
    model = segmenter(
        3,
        **TINY,
        align_corners=False,
        aggregation="psp",
        aggregation_options={**SMALL["psp"], **own},
        aggregation_stride=2,
        downsampled_options=own,
        distribution="mask",
        distribution_options=own,
    )
    assert model.aggregation.align_corners
    assert model.aggregation.inner.align_corners
    assert model.distribution.align_corners
    assert not model.align_corners


def test_parts_around_the_context_take_options_of_their_own():
    options = {
        "aggregation": "cgnl",
        "aggregation_stride": 2,
        "downsampled_options": {"padding": 0, "align_corners": False},
        "decoder_channels": 8,
        "decoder_options": {"reduced_channels": 4, "separable": True},
        "auxiliary": True,
        "auxiliary_channels": 6,
        "auxiliary_options": {"bias": True, "dropout": 0.3},
        "mean": (0.1, 0.2, 0.3),
        "std": [1.0, 2.0, 4.0],
    }
    model = segmenter(3, **TINY, **options)
    assert (model.aggregation.padding, model.aggregation.align_corners) == (0, False)
    assert model.decoder.low.out_channels == 4
    assert isinstance(model.decoder.mix[0], SeparableConvNormAct)
    assert model.auxiliary[0][0].bias.shape == (6,)
    assert (model.auxiliary[1].p, model.dropout.p) == (0.3, 0.1)
    images = torch.full((1, 3, 2, 2), 0.5)
    torch.testing.assert_close(model.normalize(images)[0, :, 0, 0], torch.tensor([0.4, 0.15, 0.05]))


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("segmenter", {"aggregation_stride": 2, "downsampled_options": {"pading": 0}}, "Did you mean 'padding'?"),
        ("segmenter", {"decoder_channels": 8, "decoder_options": {"seperable": True}}, "Did you mean 'separable'?"),
        ("segmenter", {"auxiliary": True, "auxiliary_options": {"bais": True}}, "Did you mean 'bias'?"),
        ("segmenter", {"mean": (0.5, 0.5)}, "mean must be three numbers"),
        ("emanett", {}, "There is no model 'emanett'. Did you mean 'emanet'?"),
        ("emanet", {"reduce_chanels": 8}, "model option called 'reduce_chanels'. Did you mean 'reduce_channels'?"),
        ("segmenter", {"reduce_chanels": 8}, "Did you mean 'reduce_channels'?"),
        ("segmenter", {"num_classes": 8}, "There is no model option called 'num_classes'"),
        ("segmenter", {"aggregation": "emma"}, "There is no aggregation 'emma'. Did you mean 'ema'?"),
        ("segmenter", {"distribution": "afinity"}, "Did you mean 'affinity'?"),
        ("segmenter", {"aggregation_options": {"num_base": 3}}, "option of aggregation 'ema' called 'num_base'. Did"),
        ("segmenter", {"aggregation_options": {"in_channels": 3}}, "called 'in_channels'"),
        ("segmenter", {"aggregation_options": {"num_bases": "many"}}, "aggregation 'ema' cannot be built with"),
        ("segmenter", {"aggregation_options": {"kernel": "rfb"}}, "Did you mean 'rbf'?"),
        ("segmenter", {"distribution": "mask", "distribution_options": {"ratios": 4}}, "Did you mean 'ratio'?"),
        ("segmenter", {"distribution_options": {"k": 4}}, "option of distribution 'none' called 'k'. Known: none"),
        ("segmenter", {"backbone_options": {"ceil_mod": True}}, "Did you mean 'ceil_mode'?"),
        ("segmenter", {"backbone_options": {"multi_grid": (1, 2)}}, "no backbone option called 'multi_grid'"),
        ("segmenter", {"aggregation": "no.such.Part"}, "aggregation 'no.such.Part' cannot be imported"),
        ("segmenter", {"aggregation": "torch.nn.Nothing"}, "cannot be imported"),
        ("segmenter", {"aggregation": "..Part"}, "cannot be imported"),
        ("segmenter", {"aggregation": "math.sqrt"}, "must be a class derived from torch.nn.Module"),
        ("segmenter", {"arrangement": "glad"}, "arrangement must be one of gald, ldga, parallel"),
        ("segmenter", {"aggregation_stride": 4}, "aggregation_stride must be 1 or 2, not 4"),
        ("segmenter", {"output_stride": 4}, "output_stride must be 8, 16 or 32, not 4"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_that_does(model, options, words):
    with pytest.raises(RecipeError) as caught:
        build(model, 3, {**TINY, **options})
    assert words in str(caught.value)


if __name__ == "__main__":
    if sys.argv[1:] != ["--regenerate"]:
        sys.exit("python tests/test_zoo.py --regenerate writes the golden outputs anew; pytest compares with them")
    GOLDEN.parent.mkdir(exist_ok=True)
    lines = [f'  "{name}": {json.dumps(measure(name))}' for name in NAMES]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
