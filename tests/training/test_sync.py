"""Synchronised batch norm computes what the network computed before, and gives its layers back."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segcontext.errors import RecipeError
from segcontext.pooled_norm import PooledNorm
from segcontext.training.sync import TimmSyncBatchNorm
from segcontext.zoo import build

# A network with plain batch norm, and two with the activation inside it; EMANet's parts bring PooledNorm.
BACKBONES = ["resnet10t", "mobilenetv3_small_050", "test_efficientnet"]


def network(backbone: str) -> nn.Module:
    """A small EMANet with statistics and gains that are not the initial ones."""
    torch.manual_seed(0)
    model = build("emanet", 3, {"backbone": backbone, "pretrained": False, "output_stride": 16}).eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
    return model


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_network_computes_what_it_did_before(backbone):
    model = network(backbone)
    images = torch.rand(2, 3, 64, 80)
    before = {name: type(module) for name, module in batch_norms(model).items()}
    state = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    fused = sum(kind is BatchNormAct2d for kind in before.values())
    assert PooledNorm in before.values()
    assert (fused > 0) == (backbone != "resnet10t")
    with torch.no_grad():
        expected = model(images).logits

        sync = TimmSyncBatchNorm()
        assert sync.apply(model) is model
        kinds = [type(module) for module in batch_norms(model).values()]
        assert set(kinds) <= {nn.SyncBatchNorm, SyncBatchNormAct}
        assert kinds.count(SyncBatchNormAct) == fused
        assert list(batch_norms(model)) == list(before)
        torch.testing.assert_close(model(images).logits, expected, rtol=0, atol=0)

        assert sync.revert(model) is model
        assert {name: type(module) for name, module in batch_norms(model).items()} == before
        torch.testing.assert_close(model(images).logits, expected, rtol=0, atol=0)
    assert list(model.state_dict()) == list(state)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


def test_what_was_learned_meanwhile_comes_back():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4, momentum=0.3), PooledNorm(4))
    layers = list(net)
    sync = TimmSyncBatchNorm()
    twin = copy.deepcopy(net)
    sync.apply(net)
    # As Lightning does between the two: other buffers after a move, other values after a step.
    net.to(torch.float64)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    out = net(x)
    out.square().sum().backward()
    torch.testing.assert_close(out, twin.to(torch.float64)(x))
    net.eval()
    state = copy.deepcopy(net.state_dict())
    sync.revert(net)
    assert list(net) == layers
    assert not any(module.training for module in net)
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    torch.testing.assert_close(net.state_dict(), twin.state_dict(), rtol=0, atol=0)
    assert net[1].momentum == 0.3
    assert net[1].weight.grad is not None


def test_frozen_shared_lone_and_already_synchronised_layers():
    shared = nn.BatchNorm1d(2)
    shared.weight.requires_grad_(False)
    ready = nn.SyncBatchNorm(2)
    net = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "c": ready})
    sync = TimmSyncBatchNorm()
    sync.apply(net)
    assert isinstance(net["a"], nn.SyncBatchNorm)
    assert net["a"] is net["b"][0]
    assert not net["a"].weight.requires_grad
    assert net["c"] is ready
    once = net["a"]
    sync.apply(net)
    assert net["a"] is once
    sync.revert(net)
    assert net["a"] is shared
    assert net["b"][0] is shared
    assert net["c"] is ready
    alone = sync.apply(shared)
    assert isinstance(alone, nn.SyncBatchNorm)
    assert sync.revert(alone) is shared


class Doubled(nn.BatchNorm2d):
    """A batch norm with something of its own in it."""

    def forward(self, input):
        return 2 * super().forward(input)


def test_a_batch_norm_that_would_lose_something_is_refused():
    net = nn.Sequential(nn.BatchNorm2d(3), Doubled(3))
    with pytest.raises(RecipeError, match=r"Doubled computes something of its own.*sync_bn: false"):
        TimmSyncBatchNorm().apply(net)


def test_lightning_takes_the_plugin():
    sync = TimmSyncBatchNorm()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", plugins=[sync], logger=False, enable_checkpointing=False
    )
    assert trainer.strategy._layer_sync is sync
