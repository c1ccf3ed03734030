import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segcontext.layers import ConvNormAct, resize
from segcontext.pooled_norm import PooledNorm


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel_size=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 4),
)
def test_an_odd_kernel_keeps_the_size_up_to_the_stride(size, kernel_size, stride, dilation):
    layer = ConvNormAct(4, 6, kernel_size=kernel_size, stride=stride, dilation=dilation, groups=2)
    out = layer.eval()(torch.randn(2, 4, *size))
    assert out.shape == (2, 6, -(-size[0] // stride), -(-size[1] // stride))
    assert (out >= 0).all()


def test_is_convolution_norm_and_relu_in_this_order():
    layer = ConvNormAct(3, 5, kernel_size=3, stride=2, dilation=2, bias=True).eval()
    assert isinstance(layer[0], nn.Conv2d)
    assert [type(each) for each in (layer[1], layer[2])] == [PooledNorm, nn.ReLU]
    layer[1].running_mean.normal_()
    x = torch.randn(2, 3, 8, 9)
    wanted = layer[1](F.conv2d(x, layer[0].weight, layer[0].bias, stride=2, padding=2, dilation=2)).relu()
    torch.testing.assert_close(layer(x), wanted)
    assert (layer.in_channels, layer.out_channels) == (3, 5)


def test_options_reach_their_layer():
    layer = ConvNormAct(4, 4, groups=4, act=False)
    assert layer[0].bias is None
    assert layer[0].groups == 4
    assert len(layer) == 2
    assert ConvNormAct(4, 4, kernel_size=3, padding=0)(torch.randn(2, 4, 5, 5)).shape == (2, 4, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 9)])
def test_a_strided_convolution_computes_what_pytorchs_does(size, dtype):
    """Only bfloat16 takes another way on narrow maps, and it rounds to the same numbers, but for ties."""
    layer = ConvNormAct(6, 6, kernel_size=3, stride=2, groups=6, bias=True)[0].to(dtype)
    x = torch.randn(2, 6, *size).to(dtype)
    plain = F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1, groups=6)
    found = layer(x)
    assert found.dtype == dtype
    if dtype == torch.bfloat16 and min(size) < 3:
        torch.testing.assert_close(found, plain, rtol=2**-7, atol=2**-7)
    else:
        assert torch.equal(found, plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1, groups=6).dtype


@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
def test_a_map_of_the_right_size_is_itself(size):
    x = torch.randn(1, 2, *size)
    assert resize(x, size) is x


def test_aligned_corners_keep_the_corner_pixels_and_are_linear_between():
    x = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
    torch.testing.assert_close(resize(x, (2, 4))[0, 0], torch.tensor([[0.0, 1, 2, 3], [6, 7, 8, 9]]))


def test_unaligned_corners_align_the_outer_edges():
    x = torch.tensor([[[[0.0, 4.0]]]])
    torch.testing.assert_close(resize(x, (1, 4), align_corners=False)[0, 0], torch.tensor([[0.0, 1, 3, 4]]))


def test_shrinking_is_not_antialiased():
    x = torch.arange(5.0)[None, None, None]
    torch.testing.assert_close(resize(x, (1, 3))[0, 0], torch.tensor([[0.0, 2, 4]]))


def test_one_pixel_fills_any_map():
    x = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(resize(x, (4, 5)), x.expand(-1, -1, 4, 5))
