"""Parameter groups and the schedule by the papers' protocol."""

import pytest
import torch

from segcontext import Recipe, segmenter
from segcontext.training.optimization import learning_rate_factor, make_optimizer, parameter_groups


@pytest.fixture(scope="module")
def network():
    return segmenter(3, backbone="test_resnet", pretrained=False, aggregation="ema", reduce_channels=8)


def by_name(groups):
    return {group["name"]: group for group in groups}


def test_every_trainable_parameter_is_in_one_group(network):
    groups = parameter_groups(network, Recipe(data="demo"))
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    frozen = {id(p) for p in network.aggregation.conv1.parameters()}
    assert not frozen & set(listed)


def test_emanets_groups(network):
    """Biases learn twice as fast and, like batch norms, do not decay."""
    groups = by_name(parameter_groups(network, Recipe(data="demo", lr=0.009, weight_decay=1e-4, bias_lr_factor=2)))
    assert set(groups) == {"backbone.norm", "backbone.weight", "head.bias", "head.norm", "head.weight"}
    assert {name: (group["lr_scale"], group["weight_decay"]) for name, group in groups.items()} == {
        "backbone.norm": (1, 0),
        "backbone.weight": (1, 1e-4),
        "head.bias": (2, 0),
        "head.norm": (1, 0),
        "head.weight": (1, 1e-4),
    }
    assert groups["head.bias"]["params"][0] is network.classifier.bias


def test_galds_groups(network):
    """Everything decays, everything learns alike; a faster head is one key away."""
    groups = parameter_groups(network, Recipe(data="demo", weight_decay=5e-4, decay_norm_and_bias=True))
    assert {group["weight_decay"] for group in groups} == {5e-4}
    assert {group["lr_scale"] for group in groups} == {1}
    faster = by_name(parameter_groups(network, Recipe(data="demo", head_lr_factor=10, bias_lr_factor=2)))
    assert faster["head.bias"]["lr_scale"] == 20
    assert faster["backbone.weight"]["lr_scale"] == 1


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_one_kernel_updates_all_parameters(network, name):
    optimizer = make_optimizer(network, Recipe(data="demo", optimizer=name))
    assert all(group["fused"] for group in optimizer.param_groups)


def test_learned_bases_do_not_decay():
    network = segmenter(
        3, backbone="test_resnet", pretrained=False, reduce_channels=8, aggregation_options={"upkeep": "learned"}
    )
    groups = by_name(parameter_groups(network, Recipe(data="demo", weight_decay=0.1)))
    place = [name for name, group in groups.items() if any(p is network.aggregation.bases for p in group["params"])]
    assert place
    assert groups[place[0]]["weight_decay"] == 0


def test_the_optimizer_is_the_recipes(network):
    sgd = make_optimizer(network, Recipe(data="demo", momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.8}
    assert isinstance(make_optimizer(network, Recipe(data="demo", optimizer="adamw")), torch.optim.AdamW)


def test_poly():
    assert learning_rate_factor(0, 10) == 1
    assert learning_rate_factor(5, 10) == pytest.approx(0.5**0.9)
    assert learning_rate_factor(10, 10) == 0
    assert learning_rate_factor(12, 10) == 0
    assert learning_rate_factor(3, 10, power=1) == pytest.approx(0.7)
    risen = [learning_rate_factor(step, 100, warmup=4) for step in range(6)]
    assert risen[0] == pytest.approx(1 / 5)
    assert risen == [*sorted(risen[:5]), risen[5]]
    assert risen[4] == pytest.approx(learning_rate_factor(4, 100))
