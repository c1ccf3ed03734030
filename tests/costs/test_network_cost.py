"""The cost of whole networks: the papers' facts on networks without numbers, and small ones counted by hand."""

import copy

import pytest
import torch
from torch import nn

import segcontext
from segcontext.backbone import Backbone
from segcontext.costs import CONVENTION, cost
from segcontext.errors import RecipeError, ShapeError
from segcontext.types import Context
from segcontext.zoo import build

TINY = {"backbone": "test_resnet", "pretrained": False, "reduce_channels": 16}


def meta(name, classes=21, **options):
    with torch.device("meta"):
        return build(name, classes, {"pretrained": False, **options})


@pytest.fixture(scope="module")
def backbone():
    with torch.device("meta"):
        return cost(Backbone("resnet101s", pretrained=False), (513, 513))


def test_the_papers_backbone(backbone):
    """papers.md, section 4: the facts to check against."""
    assert backbone.total.parameters == 42_623_936
    assert backbone.total.multiply_adds == 189_889_136_320
    assert backbone.total.operations["convolution"] == backbone.total.multiply_adds
    # EMANet prints 190.6 G with the small operations of its layers; ours also have the sums and each ReLU.
    assert 190.6e9 < backbone.total.with_small < 191e9
    assert backbone.total.buffers == 0


def test_the_papers_unit():
    """EMANet, section 5.1: 7·C·K·N, and K·C numbers kept."""
    model = meta("emanet", backbone="resnet18", project_channels=None)
    found = cost(model, (513, 513))
    pixels = 65 * 65
    assert found.part("aggregation").operations["matrix product"] == 7 * 512 * 64 * pixels
    assert found.part("aggregation").operations["convolution"] == 2 * 512**2 * pixels
    assert found.part("aggregation").buffers == 32_768
    assert found.part("reduce").multiply_adds == 9 * 512 * 512 * pixels
    assert found.part("classifier").multiply_adds == 512 * 21 * pixels
    assert found.part("upsampling").operations == {"interpolation": 4 * 21 * 513**2}
    assert found.total.parameters == sum(each.numel() for each in model.parameters())
    assert found.unlisted == ()


@pytest.mark.parametrize("name", sorted(set(segcontext.zoo.BUILDERS) - {"segmenter"}))
def test_the_parts_add_up_to_the_whole(name):
    model = meta(name, backbone="test_resnet")
    found = cost(model, (65, 97))
    for column in ("parameters", "buffers", "multiply_adds", "with_small", "training_memory"):
        assert sum(getattr(each, column) for each in found.parts) == getattr(found.total, column)
    assert max(each.inference_memory for each in found.parts) == found.total.inference_memory
    assert found.total.multiply_adds > 0
    assert found.total.with_small > found.total.multiply_adds
    assert found.unlisted == ()
    names = [each.part for each in found.parts]
    assert names.index("backbone") < names.index("classifier") < names.index("upsampling")
    if "auxiliary" in names:
        auxiliary = found.part("auxiliary")
        assert auxiliary.multiply_adds == 0
        assert min(auxiliary.parameters, auxiliary.training_memory) > 0


def test_without_numbers_as_with_them():
    """What a copy without numbers does is what the network does."""
    from segcontext.costs.network_cost import _count

    for name in ("emanet", "galdnet_v1", "nonlocal_net", "psanet"):
        model = build(name, 3, TINY)
        hollow = cost(model, (33, 41), batch=2)
        real = _count(copy.deepcopy(model), torch.zeros(2, 3, 33, 41))
        assert sum(real.operations.products.values()) == hollow.total.multiply_adds
        assert sum(kinds.total() for kinds in real.operations.operations.values()) == hollow.total.with_small
        assert real.saved.total() == hollow.total.training_memory
        assert max(real.peak.values()) == hollow.total.inference_memory


def test_a_large_image_costs_nothing_to_count():
    model = meta("emanet", backbone="resnet18")
    found, small = cost(model, (1024, 2048)), cost(model, (256, 512))
    assert found.total.multiply_adds == 16 * small.total.multiply_adds


def test_batches_and_sides():
    model = meta("fcn", backbone="test_resnet")
    one, two = cost(model, 64), cost(model, (64, 64), batch=2)
    assert (one.size, one.batch, two.batch) == ((64, 64), 1, 2)
    assert two.total.multiply_adds == 2 * one.total.multiply_adds
    assert two.total.inference_memory == 2 * one.total.inference_memory
    assert two.total.parameters == one.total.parameters


class Functions(nn.Module):
    """Nothing here is a module that a hook would see."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.rand(4, 3))
        self.in_channels, self.out_channels = 16, 16

    def forward(self, x, *, evidence=False):
        pixels = x.flatten(2)
        affinity = torch.einsum("bcn,bcm->bnm", pixels, pixels).softmax(-1)
        drawn = nn.functional.scaled_dot_product_attention(pixels.mT, pixels.mT, pixels.mT).mT
        return Context(x + (drawn + pixels @ affinity.mT).reshape(x.shape))


def test_what_hooks_on_modules_miss_is_counted():
    from segcontext.assembly import segmenter

    model = segmenter(3, **TINY, aggregation="none")
    plain = cost(model, (65, 65)).total
    model.aggregation = Functions()
    found = cost(model, (65, 65))
    pixels, channels = 9 * 9, 16
    # The einsum, the product behind it, and the attention.
    assert found.part("aggregation").multiply_adds == (2 + 2) * pixels**2 * channels
    assert found.total.multiply_adds - plain.multiply_adds == found.part("aggregation").multiply_adds
    assert found.part("aggregation").operations["softmax"] >= 5 * pixels**2


class Sequence(nn.Module):
    """Hands pixels as a sequence to a layer that PyTorch has one kernel for."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(2).mT)


@pytest.mark.parametrize(
    ("layer", "products"),
    [
        # 4·hidden·(input + hidden) a pixel.
        (nn.LSTM(3, 16, batch_first=True), 4 * 16 * (3 + 16) * 20),
        # Query, key, value and output of the attention, its two products, and both layers of the feed-forward part.
        (nn.TransformerEncoderLayer(3, 1, 8, batch_first=True), (4 * 3 * 3 + 2 * 20 * 3 + 2 * 3 * 8) * 20),
    ],
    ids=["lstm", "transformer"],
)
def test_layers_with_a_kernel_of_their_own_count_as_products(layer, products):
    fast = torch.backends.mha.get_fastpath_enabled()
    found = cost(Sequence(layer), (4, 5))
    assert found.unlisted == ()
    assert found.total.multiply_adds == products
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_rows_say_what_no_rule_knows():
    found = cost(Sequence(nn.Hardshrink()), (4, 5))
    assert all(row["unlisted"] == list(found.unlisted) for row in found.rows())


def test_the_network_is_left_as_it_is():
    model = build("emanet", 3, {**TINY, "aggregation_options": {"num_bases": 4}}).train()
    model.backbone.eval()
    model(torch.rand(1, 3, 33, 33))
    before, seen = copy.deepcopy(model.state_dict()), model.aggregation._seen.clone()
    modes = [module.training for module in model.modules()]
    with torch.inference_mode():
        cost(model, (33, 33), timed=True, rounds=1, warmup=0)
    assert [module.training for module in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(model.aggregation._seen, seen, rtol=0, atol=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Looks(nn.Module):
    """Does something else when it sees other numbers."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return self.near(x) if x.sum().item() == 0 else self.far(x)


def test_a_network_that_looks_at_numbers_is_run_with_them():
    found = cost(Looks(), (5, 5))
    assert found.total.multiply_adds == 3 * 4 * 25
    assert [each.part for each in found.parts] == ["near", "far", "between"]


def test_half_precision_takes_half_the_memory():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    single, half = cost(layers, (16, 16)), cost(copy.deepcopy(layers).bfloat16(), (16, 16))
    assert half.total.inference_memory * 2 == single.total.inference_memory
    assert half.total.training_memory * 2 == single.total.training_memory


def test_latency_is_of_the_whole_and_of_each_part():
    model = build("emanet", 3, {**TINY, "aggregation_options": {"num_bases": 4}})
    found = cost(model, (33, 33), timed=True, rounds=3, warmup=1)
    assert found.device == "cpu"
    assert found.total.latency > found.part("classifier").latency > 0
    assert cost(model, (33, 33)).total.latency is None


def test_a_part_that_runs_twice_is_timed_as_one():
    from segcontext.costs import latency

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.idle = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x):
            return self.layer(self.layer(x))

    whole, parts = latency(Twice(), torch.rand(1, 3, 8, 8), rounds=2, warmup=0)
    assert list(parts) == ["layer"]
    assert whole > 0


def test_rows_are_plain_values_with_the_convention():
    rows = cost(meta("fcn", backbone="test_resnet"), (33, 33)).rows()
    assert rows[-1]["part"] == "total"
    assert all(row["convention"] == CONVENTION for row in rows)
    assert rows[-1]["parameters_with_buffers"] == rows[-1]["parameters"] + rows[-1]["buffers"]
    assert sum(rows[-1]["operations"].values()) == rows[-1]["with_small"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: cost(nn.Identity(), (0, 4)), ShapeError, "size"),
        (lambda: cost(nn.Identity(), (4, 4), batch=0), ShapeError, "batch"),
        (lambda: cost(meta("fcn", backbone="test_resnet"), 33, timed=True), RecipeError, "meta device"),
        (lambda: cost(nn.Identity(), (4, 4), timed=True, rounds=0), RecipeError, "round"),
    ],
)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
