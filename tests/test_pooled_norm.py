import pytest
import torch
from torch import nn

from segcontext.pooled_norm import PooledNorm


def norms():
    ours, theirs = PooledNorm(4), nn.BatchNorm2d(4)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(ours, name).copy_(torch.rand(4) + 0.5)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (1, 4, 1, 2), (3, 4, 5, 7)])
def test_is_batch_norm_wherever_a_channel_has_more_than_one_value(shape, training):
    ours, theirs = norms()
    x = torch.randn(shape)
    torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_a_single_value_takes_the_running_statistics_and_leaves_them():
    ours, theirs = norms()
    x = torch.randn(1, 4, 1, 1)
    torch.testing.assert_close(ours.train()(x), theirs.eval()(x), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="more than 1 value"):
        theirs.train()(x)


def test_a_single_value_trains_the_affine_parameters_and_what_comes_before():
    ours, _ = norms()
    x = torch.randn(1, 4, 1, 1, requires_grad=True)
    ours.train()(x).square().sum().backward()
    assert all(each.grad.abs().min() > 0 for each in (x, ours.weight, ours.bias))


def test_converts_to_synchronised_batch_norm():
    ours, _ = norms()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(ours))[0]
    assert isinstance(converted, nn.SyncBatchNorm)
    torch.testing.assert_close(converted.state_dict(), ours.state_dict())
