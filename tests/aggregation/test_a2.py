import pytest
import torch

from segcontext.aggregation.a2 import A2
from segcontext.errors import RecipeError


def test_matches_a_slow_reference():
    block = A2(8, value_channels=3, maps=2).double().eval()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    value, gather, distribute = (each(x).flatten(2) for each in (block.value, block.gather, block.distribute))
    drawn = torch.zeros_like(value)
    for image in range(2):
        weights = gather[image].exp() / gather[image].exp().sum(1, keepdim=True)
        descriptors = [sum(weights[k, n] * value[image, :, n] for n in range(15)) for k in range(2)]
        for n in range(15):
            share = distribute[image, :, n].exp() / distribute[image, :, n].exp().sum()
            drawn[image, :, n] = share[0] * descriptors[0] + share[1] * descriptors[1]
    torch.testing.assert_close(block(x).features, x + block.project(drawn.view(2, 3, 3, 5)))


def test_evidence_tells_the_weights_that_were_used():
    block = A2(8, value_channels=3, maps=2).double().eval()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    out, (gather, distribute) = block(x, evidence=True)
    assert gather.shape == distribute.shape == (2, 2, 3, 5)
    torch.testing.assert_close(gather.sum((2, 3)), torch.ones(2, 2).double())
    torch.testing.assert_close(distribute.sum(1), torch.ones(2, 3, 5).double())
    descriptors = torch.einsum("bchw,bkhw->bck", block.value(x), gather)
    drawn = torch.einsum("bck,bkhw->bchw", descriptors, distribute)
    torch.testing.assert_close(out, x + block.project(drawn))


def test_quarters_the_channels():
    block = A2(512)
    assert (block.value.out_channels, block.gather.out_channels, block.distribute.out_channels) == (128, 128, 128)


@pytest.mark.parametrize("options", [{"value_channels": 0}, {"maps": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(RecipeError, match="at least 1"):
        A2(8, **options)
