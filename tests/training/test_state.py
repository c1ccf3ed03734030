"""The optimizer's part of a saved state."""

import pytest
import torch
from torch import nn

from segcontext import Recipe, segmenter
from segcontext.state_file import StateFile
from segcontext.training.optimization import make_optimizer
from segcontext.training.state import load_optimizer


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_an_optimizer_keeps_comes_back_in_the_layout_of_its_parameters(name):
    """Files hold every tensor row by row, and a fused kernel takes memory as it lies."""
    network = segmenter(3, backbone="test_resnet", pretrained=False, aggregation="none", reduce_channels=8)
    network = network.to(memory_format=torch.channels_last)
    recipe = Recipe(data="demo", optimizer=name)
    before = make_optimizer(network, recipe)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    before.step()
    tensors = {
        f"optimizer.{index}.{key}": value.contiguous()
        for index, kept in before.state_dict()["state"].items()
        for key, value in kept.items()
        if isinstance(value, torch.Tensor)
    }
    after = make_optimizer(network, recipe)
    load_optimizer(StateFile(tensors, {"optimizer": {}}), after)
    assert any(isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1 for module in network.modules())
    for parameter, kept in before.state.items():
        for key, value in kept.items():
            found = after.state[parameter][key]
            assert torch.equal(found, value)
            assert found.stride() == value.stride()
