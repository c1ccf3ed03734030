"""The end of the EM attention unit against the equations in float64."""

import pytest
import torch
from tests.gpu.conftest import check_operator

from segcontext.gpu.em_output import em_output


def draw(device, dtype, *, pixels=70, channels=20, bases=5):
    shares = torch.randn(2, pixels, bases).softmax(-1)
    others = (torch.randn(2, bases, channels), torch.randn(channels, channels) / channels**0.5, torch.randn(channels))
    tensors = [each.to(dtype) for each in (torch.randn(2, pixels, channels), shares, *others)]
    return [each.to(device) for each in tensors], [each.double() for each in tensors]


@pytest.mark.parametrize("sizes", [{}, {"pixels": 1, "channels": 70}, {"bases": 19, "channels": 3}])
def test_matches_the_equations(device, precision, far, sizes):
    dtype, slack = precision
    ours, (x, shares, means, weight, shift) = draw(device, dtype, **sizes)
    found = em_output(*ours)
    assert found.dtype == dtype
    assert far(found, (x + (shares @ means).relu() @ weight.mT + shift).relu()) < slack


def test_the_operator_is_whole(device):
    check_operator(em_output, tuple(draw(device, torch.float32, pixels=3)[0]))
