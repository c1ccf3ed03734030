"""Folding changes how a network is computed, not what comes out."""

import copy

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn

from segcontext.speed.folding import fold_batch_norms
from segcontext.zoo import build


def shaken(model):
    """Statistics and scales that are not those of a new norm."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.double().eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("galdnet_v1", "test_resnet"), ("deeplabv3_plus", "test_efficientnet"), ("emanet", "test_byobnet")],
)
def test_networks_give_the_same_without_their_norms(name, backbone):
    model = shaken(build(name, 3, {"backbone": backbone, "pretrained": False}))
    folded, images = copy.deepcopy(model), torch.rand(2, 3, 65, 97, dtype=torch.float64)
    count = fold_batch_norms(folded, torch.zeros(1, 3, 65, 65))
    # Auxiliary heads did not run, so nobody saw what follows what in them.
    assert count == norms(model) - norms(model.auxiliary or nn.Identity())
    assert norms(folded) == norms(model) - count
    with torch.no_grad():
        torch.testing.assert_close(folded(images).logits, model(images).logits, rtol=1e-9, atol=1e-9)


class Odd(nn.Module):
    """What must not be folded: each keeps its norm."""

    def __init__(self):
        super().__init__()
        self.shown, self.norm1 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.norm2, self.norm3 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.standardised, self.norm4 = StdConv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.first, self.second, self.shared = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.changed, self.norm5 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.plain, self.norm6 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        map_ = self.shown(x)
        x = self.norm1(map_) + map_
        x = self.norm3(self.twice(self.norm2(self.twice(x))))
        x = self.norm4(self.standardised(x))
        x = self.shared(self.second(self.shared(self.first(x))))
        x = self.norm5(self.changed(x).relu_())
        return self.norm6(self.plain(x))


def test_norms_stay_where_the_convolution_is_not_theirs_alone():
    model = shaken(Odd())
    folded, images = copy.deepcopy(model), torch.rand(2, 3, 5, 6, dtype=torch.float64)
    assert fold_batch_norms(folded, images) == 1
    assert isinstance(folded.norm6, nn.Identity)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-9, atol=1e-9)


def test_norms_without_scale_and_convolutions_with_bias_fold_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)).double().eval()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    folded, images = copy.deepcopy(model), torch.rand(1, 3, 5, 6, dtype=torch.float64)
    assert fold_batch_norms(folded, images) == 1
    torch.testing.assert_close(folded(images), model(images), rtol=1e-9, atol=1e-9)
    untracked = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert fold_batch_norms(untracked, images.float()) == 0
