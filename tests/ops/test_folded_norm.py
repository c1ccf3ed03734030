import pytest
import torch
from torch import nn

from segcontext.ops.folded_norm import folded_norm, has_fixed_norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_folded_they_do_the_same(bias, affine, groups):
    convolution = nn.Conv2d(4, 8, 3, bias=bias, groups=groups).double()
    norm = nn.BatchNorm2d(8, affine=affine).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    weight, shift = folded_norm(convolution, norm)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, shift, groups=groups), norm(convolution(x)))


def test_what_cannot_be_folded():
    convolution, norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    assert not has_fixed_norm(convolution, norm)
    assert has_fixed_norm(convolution, norm.eval())
    assert not has_fixed_norm(nn.Identity(), norm)
    assert not has_fixed_norm(convolution, nn.GroupNorm(2, 4))
    assert not has_fixed_norm(convolution, nn.BatchNorm2d(4, track_running_stats=False).eval())
    handle = convolution.register_forward_hook(lambda *given: None)
    assert not has_fixed_norm(convolution, norm)
    handle.remove()
    assert has_fixed_norm(convolution, norm)
