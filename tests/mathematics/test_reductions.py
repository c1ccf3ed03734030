"""Global aggregation, then local distribution (GALD Fig. 6): what is left when either part is none."""

import pytest
import torch
from torch import nn

from segcontext.aggregation import CGNL, Identity
from segcontext.distribution import AffinityDistribution, MaskDistribution
from segcontext.distribution import Identity as NoDistribution
from segcontext.model import Segmenter
from segcontext.types import Features
from segcontext.zoo import build

DEEP, CLASSES = 8, 3
TINY = {
    "backbone": "test_resnet",
    "pretrained": False,
    "reduce_channels": 16,
    "project_channels": 16,
    "fuse_channels": 16,
}

every_distribution = pytest.mark.parametrize("distribution", ["mask", "affinity"])


class Trunk(nn.Module):
    channels = (4, 6, DEEP)

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, c, 3, stride=4, padding=1) for c in self.channels)

    def forward(self, x):
        return Features(*(conv(x) for conv in self.convs))


def aggregate():
    return CGNL(DEEP, groups=2)


def distribute(name):
    if name == "mask":
        return MaskDistribution(DEEP, DEEP)
    return AffinityDistribution(DEEP, DEEP, kernel_size=3, key_channels=4, value_channels=DEEP)


def network(aggregation, distribution, arrangement):
    torch.manual_seed(0)
    return (
        Segmenter(Trunk(), aggregation, distribution, num_classes=CLASSES, arrangement=arrangement, dropout=0)
        .double()
        .eval()
    )


def reduced_and_fused(model):
    images = torch.rand(2, 3, 33, 41, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stages = model(images, evidence=True).stages
    return stages.reduced, stages.fused


@pytest.mark.parametrize("arrangement", ["gald", "ldga"])
def test_without_distribution_aggregation_is_left(arrangement):
    model = network(aggregate(), NoDistribution(DEEP, DEEP), arrangement)
    given, found = reduced_and_fused(model)
    torch.testing.assert_close(found, model.aggregation(given).features)


@pytest.mark.parametrize("arrangement", ["gald", "ldga"])
@every_distribution
def test_without_aggregation_distribution_is_left(arrangement, distribution):
    model = network(Identity(DEEP), distribute(distribution), arrangement)
    given, found = reduced_and_fused(model)
    torch.testing.assert_close(found, model.distribution(given, given).features)


@pytest.mark.parametrize("arrangement", ["gald", "ldga"])
def test_without_either_nothing_is_left(arrangement):
    given, found = reduced_and_fused(network(Identity(DEEP), NoDistribution(DEEP, DEEP), arrangement))
    torch.testing.assert_close(found, given, rtol=0, atol=0)


@every_distribution
def test_side_by_side_a_missing_part_leaves_the_features_themselves_beside_the_other(distribution):
    """Parallel concatenates, so it does not reduce: the classifier still sees both halves."""
    model = network(aggregate(), NoDistribution(DEEP, DEEP), "parallel")
    given, found = reduced_and_fused(model)
    torch.testing.assert_close(found, torch.cat([model.aggregation(given).features, given], 1))
    model = network(Identity(DEEP), distribute(distribution), "parallel")
    given, found = reduced_and_fused(model)
    torch.testing.assert_close(found, torch.cat([given, model.distribution(given, given).features], 1))


def logits(model):
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            # By shape alone, so that networks of the same layers get the same weights; variances stay positive.
            generator = torch.Generator().manual_seed(tensor.numel())
            tensor.copy_(torch.rand(tensor.shape, generator=generator) / max(1, tensor[:1].numel()) ** 0.5)
    images = torch.rand(1, 3, 65, 97, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model.eval()(images).features_logits


def test_galdnet_without_distribution_is_its_aggregation_alone():
    alone = {"aggregation": "cgnl", "aggregation_stride": 2, "skip": "deep", "auxiliary": True, "multi_grid": (1, 2, 4)}
    alone["backbone_options"] = {"first_block": "same", "ceil_mode": True}
    found = logits(build("galdnet_v1", CLASSES, {**TINY, "distribution": "none"}))
    torch.testing.assert_close(found, logits(build("segmenter", CLASSES, {**TINY, **alone})), rtol=0, atol=0)


def test_galdnet_without_aggregation_is_its_distribution_alone():
    """Table I(b)'s LDv1 alone sees the reduced features as they are."""
    model = build("galdnet_v1", CLASSES, {**TINY, "aggregation": "none"}).eval()
    images = torch.rand(1, 3, 65, 97, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stages = model(images, evidence=True).stages
    torch.testing.assert_close(stages.aggregated, stages.reduced, rtol=0, atol=0)
    torch.testing.assert_close(stages.distributed, model.distribution(stages.reduced, stages.reduced).features)
