import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segcontext.aggregation.cgnl import CGNL
from segcontext.aggregation.downsampled import Downsampled
from segcontext.aggregation.identity import Identity
from segcontext.aggregation.non_local import NonLocal
from segcontext.aggregation.psp import PSP
from segcontext.errors import RecipeError, ShapeError


def test_the_unpadded_form_is_the_published_one():
    block = Downsampled(CGNL(8, groups=2), 8, padding=0).double().eval()
    x = torch.randn(2, 8, 7, 10, dtype=torch.float64)
    weight, bias = block.down[0].weight, block.down[0].bias
    small = torch.zeros(2, 8, 3, 4, dtype=torch.float64)
    for y in range(3):
        for u in range(4):
            window = x[:, :, 2 * y : 2 * y + 3, 2 * u : 2 * u + 3]
            small[:, :, y, u] = (window * weight[:, 0]).sum((2, 3)) + bias
    small = block.inner(block.down[2](block.down[1](small))).features
    published = F.interpolate(small, size=(7, 10), mode="bilinear", align_corners=True)
    torch.testing.assert_close(block(x).features, published)


def test_has_the_published_tensors():
    shapes = {name: tuple(tensor.shape) for name, tensor in Downsampled(CGNL(512), 512).down[0].state_dict().items()}
    assert shapes == {"weight": (512, 1, 3, 3), "bias": (512,)}


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 6), (3, 3), (5, 7), (8, 6)])
def test_any_map_keeps_its_size(size, padding):
    block = Downsampled(PSP(8, out_channels=4), 8, padding=padding)
    assert block.out_channels == 4
    assert block(torch.randn(2, 8, *size)).features.shape == (2, 4, *size)


def test_padding_keeps_the_pixels_in_place():
    """On an odd map, a kernel that copies its centre gives back the pixels that were kept."""
    block = Downsampled(Identity(1), 1).eval()
    with torch.no_grad():
        block.down[0].weight.zero_()[:, :, 1, 1] = 1
        block.down[0].bias.zero_()
    x = torch.rand(1, 1, 5, 9)
    torch.testing.assert_close(block(x).features[:, :, ::2, ::2], x[:, :, ::2, ::2], rtol=1e-4, atol=1e-5)


def test_evidence_is_that_of_the_inner_aggregation():
    block = Downsampled(NonLocal(8), 8)
    x = torch.randn(2, 8, 6, 9)
    assert block(x).evidence is None
    assert block(x, evidence=True).evidence.query.shape == (2, 4, 3, 5)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="in_channels is 4"):
        Downsampled(Identity(4), 8)
    with pytest.raises(ShapeError, match="in_channels is 8 and its out_channels None"):
        Downsampled(Nameless(), 8)
    with pytest.raises(RecipeError, match="padding"):
        Downsampled(Identity(8), 8, padding=2)


class Nameless(nn.Module):
    in_channels = 8
