"""Winograd's convolutions beside float64 ones."""

import pytest
import torch
from torch import nn

from segcontext import native
from segcontext.speed.winograd import CHANNELS, Winograd, use_winograd

pytestmark = pytest.mark.skipif(not native.is_available(), reason="needs compiled loops")


def pair(inputs=16, outputs=24, dilation=1, bias=True):
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)
    return convolution, Winograd(convolution)


def error(found, wanted):
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (9, 14), (40, 33)])
@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_it_is_the_same_convolution(size, dilation):
    convolution, fast = pair(dilation=dilation)
    images = torch.randn(2, 16, *size)
    with torch.no_grad():
        wanted = convolution.double()(images.double())
        convolution.float()
        for given in (images, images.to(memory_format=torch.channels_last), images.mT.contiguous().mT):
            found = fast(given)
            assert found.shape == wanted.shape
            assert error(found, wanted) < 0.012


def test_without_bias_and_in_parts(monkeypatch):
    """More tiles than are transformed at once."""
    monkeypatch.setattr("segcontext.speed.winograd.TILES", 7)
    convolution, fast = pair(bias=False)
    images = torch.randn(1, 16, 13, 12)
    with torch.no_grad():
        found, wanted = fast(images), convolution.double()(images.double())
    assert found.dtype == torch.bfloat16
    assert error(found, wanted) < 0.012
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_maps_that_a_few_wide_steps_cover_are_convolved_plainly(monkeypatch):
    convolution, fast = pair(dilation=4)
    called = []
    convolution.register_forward_hook(lambda *_: called.append(True))
    with torch.no_grad():
        fast(torch.randn(1, 16, 5, 5))
        assert called
        called.clear()
        fast(torch.randn(1, 16, 16, 16))
        assert not called


def test_it_compiles_whole():
    torch._dynamo.reset()
    _, fast = pair()
    images = torch.randn(1, 16, 9, 14).bfloat16().to(memory_format=torch.channels_last)
    with torch.no_grad():
        compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)(images)
        assert torch.equal(compiled, fast(images))
    torch._dynamo.reset()


def test_which_convolutions_it_takes():
    wide = CHANNELS
    taken = nn.Conv2d(wide, wide, 3, padding=2, dilation=2)
    others = [
        nn.Conv2d(wide - 1, wide, 3, padding=1),
        nn.Conv2d(wide, wide, 3, padding=1, stride=2),
        nn.Conv2d(wide, wide, 3, padding=1, groups=2),
        nn.Conv2d(wide, wide, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(wide, wide, 3),
        nn.Conv2d(wide, wide, 3, padding="same"),
        nn.Conv2d(wide, wide, 3, padding=(1, 2), dilation=(1, 2)),
        nn.Conv2d(wide, wide, 1),
        nn.ConvTranspose2d(wide, wide, 3, padding=1),
    ]
    network = nn.Sequential(nn.Sequential(taken), *others)
    assert use_winograd(network) == 1
    assert isinstance(network[0][0], Winograd)


def test_without_compiled_loops_nothing_is_replaced(monkeypatch):
    monkeypatch.setenv("SEGCONTEXT_NATIVE", "0")
    assert use_winograd(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))) == 0
