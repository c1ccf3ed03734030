"""Memory of activations, against what is known of each layer."""

import torch
from torch import nn

from segcontext.costs.activations import LiveMemory, SavedMemory


def saved(model, x, scope=None):
    with SavedMemory(model, scope) as found:
        model(x)
    return found.bytes


def test_a_convolution_keeps_its_input_and_not_its_weights():
    assert saved(nn.Conv2d(3, 5, 3), torch.rand(2, 3, 8, 8)) == {"": 4 * 2 * 3 * 64}


def test_a_map_kept_twice_counts_once():
    # Batch norm keeps its input and a mean and deviation per channel; ReLU its output, which the next layer keeps too.
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    expected = 4 * (3 * 64 + 4 * 64 + 2 * 4 + 4 * 64)
    assert saved(layers, torch.rand(1, 3, 8, 8))[""] == expected
    # In place, the output of the batch norm is the ReLU's.
    layers[2].inplace = True
    assert saved(layers, torch.rand(1, 3, 8, 8))[""] == expected


def test_nothing_is_kept_without_gradients():
    layer = nn.Conv2d(3, 5, 3)
    with torch.no_grad():
        assert saved(layer, torch.rand(1, 3, 8, 8)) == {}
    assert saved(layer.requires_grad_(False), torch.rand(1, 3, 8, 8)) == {}


def test_what_is_freed_is_not_alive():
    x = torch.rand(256)

    def chain():
        y = x + 1
        for _ in range(5):
            y = y * 2
        return y

    def hoard():
        return [x + number for number in range(6)]

    for function, tensors in ((chain, 2), (hoard, 6)):
        with torch.no_grad(), LiveMemory([x]) as live:
            function()
        assert live.peak == {"": tensors * 1024}


def test_views_and_what_works_in_place_need_no_memory():
    x = torch.rand(256)
    with torch.no_grad(), LiveMemory([x]) as live:
        _ = x.view(16, 16).mT[2:].relu_().unsqueeze(0)
    assert live.peak[""] == 0


def test_peaks_belong_to_the_part_that_runs():
    where = "first"
    x = torch.rand(256)
    with torch.no_grad(), LiveMemory([x], lambda: where) as live:
        y = x + 1
        where = "second"
        _ = y + 1
    assert live.peak == {"first": 1024, "second": 2048}
