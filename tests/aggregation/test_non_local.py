import pytest
import torch

from segcontext.aggregation.non_local import NonLocal
from segcontext.errors import RecipeError


def module(**options):
    torch.manual_seed(0)
    return NonLocal(8, zero_init=False, **options).double().eval()


@pytest.mark.parametrize(("scaled", "biases"), [(False, "query"), (True, "query"), (True, "all")])
def test_matches_a_slow_reference(scaled, biases):
    block = module(key_channels=3, scaled=scaled, biases=biases)
    assert [each.bias is not None for each in (block.query, block.key, block.value)] == [True] + 2 * [biases == "all"]
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    query, key, value = (each(x).flatten(2) for each in (block.query, block.key, block.value))
    scale = 3**-0.5 if scaled else 1.0
    drawn = torch.zeros_like(value)
    for image in range(2):
        for p in range(15):
            kernel = torch.stack([(scale * query[image, :, p] @ key[image, :, m]).exp() for m in range(15)])
            drawn[image, :, p] = (kernel / kernel.sum() * value[image]).sum(1)
    torch.testing.assert_close(block(x).features, x + block.project(drawn.view(2, 4, 3, 5)))


def test_starts_as_the_identity():
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(NonLocal(8)(x).features, x, rtol=0, atol=0)


@pytest.mark.parametrize("pool", [1, 2, 3])
def test_evidence_tells_the_weights_that_were_used(pool):
    block = module(pool=pool, scaled=True)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    out, affinity = block(x, evidence=True)
    values = torch.nn.functional.max_pool2d(block.value(x), pool, ceil_mode=True)
    for y, u in ((0, 0), (2, 4), (1, 2)):
        row = affinity.row(y, u).double()
        torch.testing.assert_close(row.sum((1, 2)), torch.ones(2, dtype=torch.float64), rtol=1e-5, atol=0)
        drawn = (values * row[:, None]).sum((2, 3))
        given = x[:, :, y, u] + block.project(drawn[:, :, None, None])[:, :, 0, 0]
        torch.testing.assert_close(out[:, :, y, u], given, rtol=1e-4, atol=1e-5)


def test_pooling_works_on_the_smallest_map():
    block = module(pool=2)
    assert block(torch.randn(1, 8, 1, 1, dtype=torch.float64)).features.shape == (1, 8, 1, 1)


def test_halves_the_channels():
    block = NonLocal(512)
    assert (block.query.out_channels, block.key.out_channels, block.value.out_channels) == (256, 256, 256)


@pytest.mark.parametrize("options", [{"key_channels": 0}, {"value_channels": 0}, {"pool": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(RecipeError, match="at least 1"):
        NonLocal(8, **options)
    with pytest.raises(RecipeError, match="biases must be query or all"):
        NonLocal(8, biases="none")
