"""The counter of operations, against counts by hand."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from segcontext import ops
from segcontext.costs import OperationCounter
from segcontext.costs.operations import PRODUCTS, Operation, operation_cost


def count(function, *, mode=torch.no_grad):
    with mode(), OperationCounter() as counter:
        function()
    kinds = counter.operations.get("", {})
    return counter.products[""], sum(kinds.values()) - counter.products[""], counter


def rand(*shape):
    return torch.rand(shape)


# Each with its multiply-adds and its small operations (None: not held to a number), worked out by hand.
CASES = {
    "convolution": (lambda: F.conv2d(rand(2, 3, 9, 7), rand(5, 3, 3, 3), padding=1), 2 * 5 * 9 * 7 * 3 * 9, 0),
    "its bias": (lambda: F.conv2d(rand(1, 3, 4, 4), rand(5, 3, 1, 1), rand(5)), 5 * 16 * 3, 5 * 16),
    "strided, dilated": (
        lambda: F.conv2d(rand(1, 4, 11, 11), rand(6, 4, 3, 3), stride=2, dilation=2, padding=2),
        6 * 6 * 6 * 4 * 9,
        0,
    ),
    "grouped": (lambda: F.conv2d(rand(1, 8, 5, 5), rand(12, 2, 3, 3), groups=4, padding=1), 12 * 25 * 2 * 9, 0),
    "depthwise": (lambda: F.conv2d(rand(1, 8, 5, 5), rand(8, 1, 3, 3), groups=8, padding=1), 8 * 25 * 9, 0),
    "transposed": (lambda: F.conv_transpose2d(rand(1, 3, 4, 4), rand(3, 5, 2, 2), stride=2), 3 * 16 * 5 * 4, 0),
    "transposed, grouped": (
        lambda: F.conv_transpose2d(rand(1, 4, 4, 4), rand(4, 3, 2, 2), groups=2),
        4 * 16 * 3 * 4,
        0,
    ),
    "one dimension": (lambda: F.conv1d(rand(1, 3, 10), rand(5, 3, 3)), 5 * 8 * 3 * 3, 0),
    "matrices": (lambda: rand(3, 4) @ rand(4, 5), 3 * 4 * 5, 0),
    "matrix and vector": (lambda: rand(3, 4) @ rand(4), 12, 0),
    "vectors": (lambda: rand(7) @ rand(7), 7, 0),
    "batches": (lambda: rand(2, 3, 4) @ rand(2, 4, 5), 2 * 3 * 4 * 5, 0),
    "many batches": (lambda: rand(2, 6, 3, 4) @ rand(2, 6, 4, 5), 12 * 3 * 4 * 5, 0),
    "linear": (lambda: F.linear(rand(6, 4), rand(5, 4), rand(5)), 6 * 4 * 5, 6 * 5),
    "baddbmm": (lambda: torch.baddbmm(rand(2, 3, 5), rand(2, 3, 4), rand(2, 4, 5)), 2 * 3 * 4 * 5, 30),
    "addbmm": (lambda: torch.addbmm(rand(3, 5), rand(2, 3, 4), rand(2, 4, 5)), 2 * 3 * 4 * 5, 15),
    "einsum": (lambda: torch.einsum("bnc,bkc->bnk", rand(2, 7, 3), rand(2, 4, 3)), 2 * 7 * 3 * 4, 0),
    "softmax": (lambda: rand(3, 4).softmax(1), 0, 5 * 12),
    "log-softmax": (lambda: rand(3, 4).log_softmax(1), 0, 5 * 12),
    "batch norm": (lambda: nn.BatchNorm2d(4).eval()(rand(2, 4, 3, 3)), 0, 2 * 72),
    "batch norm, training": (
        lambda: F.batch_norm(rand(2, 4, 3, 3), torch.zeros(4), torch.ones(4), training=True),
        0,
        7 * 72,
    ),
    "batch norm, with new statistics": (
        lambda: torch.ops.aten._batch_norm_with_update(
            rand(2, 4, 3, 3), None, None, torch.zeros(4), torch.ones(4), 0.1, 1e-5
        ),
        0,
        7 * 72,
    ),
    "group norm": (lambda: nn.GroupNorm(2, 4)(rand(2, 4, 3, 3)), 0, 7 * 72),
    "layer norm": (lambda: F.layer_norm(rand(5, 4), (4,)), 0, 7 * 20),
    "ReLU": (lambda: rand(3, 4).relu(), 0, 12),
    "in place": (lambda: rand(3, 4).relu_().mul_(2), 0, 24),
    "sum": (lambda: rand(3, 4).sum(1), 0, 12),
    "mean of a map": (lambda: rand(1, 3, 4, 4).mean((2, 3)), 0, 48),
    "max pooling": (lambda: F.max_pool2d(rand(1, 3, 9, 9), 3, stride=2, padding=1), 0, 3 * 25 * 9),
    "average pooling": (lambda: F.avg_pool2d(rand(1, 3, 8, 8), (2, 4)), 0, 3 * 4 * 2 * 8),
    "adaptive pooling": (lambda: F.adaptive_avg_pool2d(rand(1, 3, 8, 8), 2), 0, 3 * 64),
    "bilinear": (
        lambda: F.interpolate(rand(1, 3, 4, 4), size=(9, 9), mode="bilinear", align_corners=True),
        0,
        4 * 3 * 81,
    ),
    "bicubic": (lambda: F.interpolate(rand(1, 3, 4, 4), size=(9, 9), mode="bicubic"), 0, 16 * 3 * 81),
    "nearest": (lambda: F.interpolate(rand(1, 3, 4, 4), size=(9, 9)), 0, 0),
    "distances": (lambda: torch.cdist(rand(30, 8), rand(40, 8)), 30 * 40 * 8, 2 * 8 * (30 + 40) + 4 * 30 * 40),
    "distances, few": (lambda: torch.cdist(rand(3, 8), rand(4, 8)), 3 * 4 * 8, 2 * 8 * (3 + 4) + 4 * 3 * 4),
    "distances by sums": (lambda: torch.cdist(rand(3, 8), rand(4, 8), p=1), 0, 3 * 3 * 4 * 8),
    "bilinear form": (lambda: F.bilinear(rand(6, 3), rand(6, 4), rand(5, 3, 4)), 6 * 5 * 3 * 4 + 6 * 5 * 4, 0),
    "LSTM": (
        lambda: nn.LSTM(3, 5, bias=False)(rand(7, 2, 3)),
        7 * 2 * 4 * 5 * (3 + 5),
        None,
    ),
    "deformable": (
        lambda: torchvision.ops.deform_conv2d(rand(1, 3, 6, 6), rand(1, 18, 6, 6), rand(5, 3, 3, 3), padding=1),
        36 * 5 * 27,
        36 * 3 * 9 * 4 + 36 * 5,
    ),
    "deformable, masked": (
        lambda: torchvision.ops.deform_conv2d(
            rand(1, 3, 6, 6), rand(1, 18, 6, 6), rand(5, 3, 3, 3), padding=1, mask=rand(1, 9, 6, 6)
        ),
        36 * 5 * 27,
        36 * 3 * 9 * 5 + 36 * 5,
    ),
    "views and copies": (lambda: torch.cat([rand(2, 3).mT.contiguous(), rand(3, 2)]).reshape(-1).clone(), 0, 0),
    "padding": (lambda: F.pad(rand(1, 1, 3, 3), (1, 1, 1, 1)), 0, 0),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("case", CASES)
def test_an_operation_counts_what_it_does(case, mode):
    function, products, small = CASES[case]
    found = count(function, mode=mode)
    assert found[0] == products
    assert small is None or found[1] == small
    assert not found[2].unlisted


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("values", [8, 5])
def test_attention_counts_alike_fused_or_not(values, mode):
    query, key, value = rand(2, 3, 11, 8), rand(2, 3, 13, 8), rand(2, 3, 13, values)
    products, small, counter = count(lambda: F.scaled_dot_product_attention(query, key, value), mode=mode)
    assert products == 2 * 3 * 11 * 13 * (8 + values)
    assert small >= 5 * 2 * 3 * 11 * 13
    assert not counter.unlisted


@pytest.mark.parametrize("benchmark", [False, True])
def test_a_convolution_of_cudnn_is_none_transposed(benchmark):
    x, weight, out = rand(1, 3, 9, 9), rand(5, 3, 3, 3), rand(1, 5, 4, 4)
    arguments = (x, weight, [0, 0], [2, 2], [1, 1], 1, benchmark, False, True)
    found = operation_cost(torch.ops.aten.cudnn_convolution.default, arguments, out)
    assert found == Operation("convolution", 5 * 16 * 27)


def test_what_no_rule_knows_is_counted_and_named():
    products, small, counter = count(lambda: rand(5, 5).det())
    assert products == 0
    assert small > 0
    assert counter.unlisted


def test_parts_are_counted_apart():
    where = "first"
    with torch.no_grad(), OperationCounter(lambda: where) as counter:
        _ = rand(2, 3) @ rand(3, 4)
        where = "second"
        _ = (rand(2, 3) @ rand(3, 4)).relu()
    assert counter.products == {"first": 24, "second": 24}
    assert counter.operations["second"] == {"matrix product": 24, "elementwise": 8}
    assert set(PRODUCTS) == {"convolution", "matrix product"}


def test_our_ops_cost_what_their_docstrings_say():
    batch, pixels, channels, bases = 2, 35, 16, 4
    x, mu = rand(batch, pixels, channels), rand(bases, channels)
    for iterations in (1, 3):
        steps = 2 * iterations + 1
        products = count(lambda t=iterations: ops.em_attention(x, mu, iterations=t))[0]
        assert products == steps * batch * channels * bases * pixels
    q, k, v = rand(batch, 8, pixels), rand(batch, 8, pixels), rand(batch, 16, pixels)
    assert count(lambda: ops.non_local_attention(q, k, v))[0] == batch * pixels**2 * (8 + 16)
    maps = rand(batch, bases, pixels)
    assert count(lambda: ops.double_attention(v, maps, maps))[0] == 2 * batch * 16 * bases * pixels
    # The other two multiply and add without a matrix product, and announce what they compute.
    products, small, counter = count(lambda: ops.compact_attention(q, k, k, groups=4))
    assert products == batch * 8 * pixels * 2
    assert small == 0
    assert not counter.unlisted
    q, k, v = rand(1, 8, 5, 7), rand(1, 8, 5, 7), rand(1, 16, 5, 7)
    products, small, counter = count(lambda: ops.local_attention(q, k, v, kernel_size=3, dilation=1))
    assert products == 9 * (8 + 16) * 35
    assert small == 5 * 9 * 35
    assert counter.operations[""]["softmax"] == small


def test_a_function_that_announces_is_the_plain_one_without_listeners():
    q, k, v = rand(1, 8, 5, 7), rand(1, 8, 5, 7), rand(1, 16, 5, 7)
    with OperationCounter() as counter:
        heard = ops.local_attention(q, k, v, kernel_size=3, dilation=1)
    assert torch.equal(heard, ops.local_attention(q, k, v, kernel_size=3, dilation=1))
    assert counter.products.total() == 9 * (8 + 16) * 35


def test_a_function_that_fails_announces_nothing_and_goes_on_listening():
    q = rand(1, 8, 5, 7)
    with OperationCounter() as counter:
        with pytest.raises(ValueError, match="odd"):
            ops.local_attention(q, q, q, kernel_size=2)
        _ = rand(2, 3) @ rand(3, 4)
    assert counter.products.total() == 24
