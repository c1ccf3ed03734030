import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segcontext.aggregation import ASPP, EMA, NonLocal
from segcontext.distribution import AffinityDistribution, Identity, MaskDistribution
from segcontext.errors import RecipeError, ShapeError
from segcontext.heads import AuxiliaryHead, Decoder
from segcontext.layers import ConvNormAct, Normalize
from segcontext.model import Segmenter, update_bases
from segcontext.types import Affinity, Features, Mask, Responsibilities

LOW, MIDDLE, DEEP, REDUCED, CLASSES = 4, 6, 10, 8, 3


class Trunk(nn.Module):
    channels = (LOW, MIDDLE, DEEP)

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(3, c, 3, stride=s, padding=1) for c, s in zip(self.channels, (4, 8, 8), strict=True)
        )

    def forward(self, x):
        return Features(*(conv(x) for conv in self.convs))


def network(*, arrangement="gald", local="reduced", reduce=True, seed=0, distribution=AffinityDistribution, **options):
    torch.manual_seed(seed)
    reduced = REDUCED if reduce else DEEP
    local_channels = DEEP if local == "deep" else reduced
    width = {"gald": 5, "ldga": reduced, "parallel": reduced}[arrangement]
    given = {"key_channels": 4, "value_channels": 7, "kernel_size": 3}
    second = distribution(width, local_channels, **(given if distribution is AffinityDistribution else {}))
    first = ASPP(second.out_channels if arrangement == "ldga" else reduced, out_channels=5, rates=(1, 2))
    return Segmenter(
        Trunk(),
        first,
        second,
        num_classes=CLASSES,
        reduce=ConvNormAct(DEEP, REDUCED, kernel_size=3) if reduce else None,
        arrangement=arrangement,
        local=local,
        **options,
    ).eval()


def pictures(size=(33, 41), *, batch=2):
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def composed(model, images):
    """What the arrangements of GALD Fig. 6 say, written out; the context features and what the skip would see."""
    features = model.backbone(model.normalize(images))
    reduced = model.reduce(features.deep)
    local = features.deep if model.local == "deep" else reduced
    aggregate, distribute = (lambda *x: model.aggregation(*x).features), (lambda *x: model.distribution(*x).features)
    if model.arrangement == "gald":
        x = distribute(aggregate(reduced), local)
    elif model.arrangement == "ldga":
        x = aggregate(distribute(reduced, local))
    else:
        x = torch.cat([aggregate(reduced), distribute(reduced, local)], 1)
    return features, reduced, x


every_arrangement = pytest.mark.parametrize("arrangement", ["gald", "ldga", "parallel"])
WIDTHS = {"gald": 7, "ldga": 5, "parallel": 12}


@every_arrangement
@pytest.mark.parametrize("local", ["reduced", "deep"])
@pytest.mark.parametrize("reduce", [True, False])
def test_arrangements_wire_what_they_say(arrangement, local, reduce):
    model = network(arrangement=arrangement, local=local, reduce=reduce)
    images = pictures()
    _, _, x = composed(model, images)
    assert x.shape[1] == WIDTHS[arrangement]
    torch.testing.assert_close(model(images).features_logits, model.classifier(x))


@every_arrangement
@pytest.mark.parametrize("skip", ["reduced", "deep"])
def test_project_skip_and_decoder_come_in_this_order(arrangement, skip):
    torch.manual_seed(5)
    parts = {
        "project": ConvNormAct(WIDTHS[arrangement], 6, kernel_size=3),
        "fuse": ConvNormAct(6 + (DEEP if skip == "deep" else REDUCED), 9, kernel_size=3),
        "decoder": Decoder(9, LOW, channels=4, reduced_channels=2),
    }
    model = network(arrangement=arrangement, skip=skip, align_corners=False, **parts)
    images = pictures()
    features, reduced, x = composed(model, images)
    x = parts["fuse"](torch.cat([parts["project"](x), features.deep if skip == "deep" else reduced], 1))
    x = F.interpolate(x, size=features.low.shape[2:], mode="bilinear", align_corners=False)
    x = parts["decoder"].mix(torch.cat([x, parts["decoder"].low(features.low)], 1))
    output = model(images)
    torch.testing.assert_close(output.features_logits, model.classifier(x))
    assert output.features_logits.shape == (2, CLASSES, 9, 11)
    assert output.logits.shape == (2, CLASSES, 33, 41)


def test_a_separable_decoder_mixes_depth_by_depth():
    decoder = Decoder(5, 3, channels=4, reduced_channels=2, separable=True).eval()
    shapes = [tuple(each.weight.shape) for each in decoder.mix.modules() if isinstance(each, nn.Conv2d)]
    assert shapes == [(7, 1, 3, 3), (4, 7, 1, 1), (4, 1, 3, 3), (4, 4, 1, 1)]
    assert decoder(torch.randn(1, 5, 3, 4), torch.randn(1, 3, 9, 11)).shape == (1, 4, 9, 11)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 41), (17, 64)])
def test_logits_have_the_size_of_the_images(size):
    output = network()(pictures(size))
    assert output.size == size
    assert output.logits.shape == (2, CLASSES, *size)
    wanted = F.interpolate(output.features_logits, size=size, mode="bilinear", align_corners=True)
    assert torch.equal(output.logits, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_and_floats_say_the_same(dtype):
    model, images = network(), pictures()
    wanted = model(images).features_logits
    torch.testing.assert_close(model(images.to(dtype) / 255).features_logits, wanted)
    assert torch.equal(model(images.float() / 255).features_logits, wanted)


@pytest.mark.parametrize("training", [False, True])
def test_evidence_and_auxiliary_come_on_request_alone(training):
    model = network(auxiliary=AuxiliaryHead(MIDDLE, CLASSES, channels=4), dropout=0).train(training)
    calls = []
    model.auxiliary.register_forward_hook(lambda *_: calls.append(1))
    images = pictures()
    plain = model(images)
    assert plain[3:] == (None, None, None, None)
    assert not calls
    told = model(images, evidence=True, auxiliary=True)
    torch.testing.assert_close(told.features_logits, plain.features_logits)
    assert told.auxiliary.shape == (2, CLASSES, 5, 6)
    assert told.aggregation is None
    assert isinstance(told.distribution, Affinity)
    assert model(images, evidence=True).auxiliary is None
    assert network()(images, auxiliary=True).auxiliary is None


@every_arrangement
def test_evidence_says_which_part_it_is_of_and_stages_what_went_between(arrangement):
    torch.manual_seed(0)
    model = Segmenter(
        Trunk(), EMA(DEEP, num_bases=2), MaskDistribution(DEEP, DEEP), num_classes=CLASSES, arrangement=arrangement
    ).eval()
    output = model(pictures(), evidence=True)
    assert isinstance(output.aggregation, Responsibilities)
    assert isinstance(output.distribution, Mask)
    assert not any(stage.requires_grad for stage in output.stages)
    stages = output.stages
    assert torch.equal(stages.deep, stages.reduced)
    given = {"gald": stages.reduced, "ldga": stages.distributed, "parallel": stages.reduced}[arrangement]
    torch.testing.assert_close(model.aggregation(given).features, stages.aggregated)
    torch.testing.assert_close(model.classifier(stages.fused), output.features_logits)


def test_normalising_matches_the_backbones_statistics():
    images = pictures((4, 5))
    norm = Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    for c in range(3):
        wanted = (images[:, c] / 255 - (0.1, 0.2, 0.3)[c]) / (0.5, 0.25, 2.0)[c]
        torch.testing.assert_close(norm(images)[:, c], wanted)
    assert not norm.state_dict()


def test_the_gald_authors_input_can_be_given():
    images = pictures((4, 5))
    mean = (104.00698793, 116.66876762, 122.67891434)
    norm = Normalize(tuple(value / 255 for value in mean[::-1]), (1 / 255,) * 3, bgr=True)
    wanted = images[:, [2, 1, 0]].float() - torch.tensor(mean)[:, None, None]
    torch.testing.assert_close(norm(images), wanted, rtol=1e-5, atol=1e-4)


def test_a_step_moves_the_bases_of_the_whole_model():
    torch.manual_seed(0)
    model = Segmenter(Trunk(), EMA(DEEP, num_bases=2), Identity(DEEP, DEEP), num_classes=CLASSES)
    start = model.aggregation.bases.clone()
    model(pictures())
    assert torch.equal(model.aggregation.bases, start)
    assert update_bases(model) == 0
    assert not torch.equal(model.aggregation.bases, start)
    assert update_bases(network()) == 0


def test_dropout_drops_channels_before_the_classifier_in_training_alone():
    model = network(dropout=1.0)
    bias = model.classifier.bias[:, None, None].expand(2, -1, 5, 6)
    assert not torch.equal(model(pictures()).features_logits, bias)
    assert torch.equal(model.train()(pictures()).features_logits, bias)


def build(*, backbone=None, first=None, second=None, **options):
    return Segmenter(
        backbone or Trunk(), first or NonLocal(DEEP), second or Identity(DEEP, DEEP), num_classes=CLASSES, **options
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"first": NonLocal(12)}, "aggregation expects 12 channels, but the reduced features have 10"),
        ({"second": Identity(12, 10)}, "distribution expects 12 channels, but the aggregated features have 10"),
        ({"second": Identity(10, 12)}, "expects 12 local channels, but they are 10"),
        ({"reduce": ConvNormAct(9, 10)}, "reduce expects 9 channels, but the backbone's deep features have 10"),
        ({"reduce": ConvNormAct(10, 4), "local": "deep"}, "aggregation expects 10 channels, .* have 4"),
        ({"project": ConvNormAct(9, 4)}, "project expects 9 channels, but the context features have 10"),
        ({"fuse": ConvNormAct(9, 4), "skip": "deep"}, "fuse expects 9 channels, .* have 20"),
        ({"decoder": Decoder(9, 4)}, "decoder expects 9 channels, but the context features have 10"),
        (
            {"arrangement": "parallel", "second": Identity(9, 10)},
            "distribution expects 9 .* the reduced features have 10",
        ),
        ({"arrangement": "ldga", "first": NonLocal(8)}, "aggregation expects 8 .* the distributed features have 10"),
        ({"first": nn.ReLU()}, r"aggregation \(ReLU\) must say its width"),
        ({"backbone": nn.Conv2d(3, DEEP, 1)}, r"backbone \(Conv2d\) must say its widths"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_both_widths(options, words):
    with pytest.raises(ShapeError, match=words):
        build(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arrangement": "glad"}, "arrangement must be one of gald, ldga, parallel, not 'glad'"),
        ({"local": "low"}, "local must be one of"),
        ({"skip": "low"}, "skip must be one of"),
        ({"skip": "deep"}, "A skip needs a fuse"),
        ({"fuse": ConvNormAct(20, 4)}, "a fuse a skip"),
    ],
)
def test_impossible_settings_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        build(**options)


def test_no_classes_are_refused():
    with pytest.raises(RecipeError, match="num_classes must be at least 1, not 0"):
        Segmenter(Trunk(), NonLocal(DEEP), Identity(DEEP, DEEP), num_classes=0)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 8, 8), r"\(B, 3, H, W\), RGB, but they are \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), r"\(1, 1, 8, 8\)"),
        (torch.zeros(1, 8, 8, 3), r"\(1, 8, 8, 3\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "torch.int64"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, words):
    with pytest.raises(ShapeError, match=words):
        network()(images)
