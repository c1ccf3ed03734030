"""Gradients that are differentiated again, by inputs that are one tensor or made of one another."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from segcontext import native
from segcontext.distribution import MaskDistribution
from segcontext.gpu.trust import Site
from segcontext.ops import gated_by_mask, local_attention, use_implementation
from segcontext.ops.halved import halved, halved_beside
from segcontext.ops.halved_gate import _reference as gate_reference
from segcontext.ops.halved_gate import halved_gate
from segcontext.ops.launching import launched

MASKS = MaskDistribution(3, 3)
CPU = Site(torch.device("cpu"), torch.float64, True)


def kernel_of(x):
    return x[0, :, None, :3, :3]


def plain_halved(x, kernel, shift):
    return F.conv2d(x, kernel, shift, stride=2, padding=1, groups=len(kernel))


def plain_beside(x, kernel, shift):
    return plain_halved(x, kernel, shift), x


def sum_of_squares(results):
    results = results if isinstance(results, tuple) else (results,)
    return sum(each.square().sum() for each in results)


def by_halves(operation, *options):
    return lambda x: operation(x, kernel_of(x), x.mean((0, 2, 3)), *options)


def by_gate(operation):
    return lambda x: operation(x, kernel_of(x)[None, :, 0], x.mean((2, 3))[:1], 1.0, True)


def attend(query, key, value):
    return local_attention(query, key, value, kernel_size=3, dilation=1)


def gate_in_loops(x, kernels, shifts, times, align_corners):
    return halved_gate(x, kernels, shifts, times=times, align_corners=align_corners)


#: A form in compiled loops and one of PyTorch's operators; the same function where `use_implementation` tells.
FORMS = {
    "one map": (lambda x: attend(x, x, x),) * 2,
    "one map, made": (lambda x: (lambda y: attend(y, y, x))(2 * x),) * 2,
    "maps of one another": (lambda x: attend(x, 2 * x, x.sin()),) * 2,
    "a gate of its features": (lambda x: gated_by_mask(x, F.avg_pool2d(x, 3)),) * 2,
    "halved by itself": (by_halves(halved), by_halves(plain_halved)),
    "halved beside": (by_halves(halved_beside), by_halves(plain_beside)),
    "halved and gated by itself": (by_gate(gate_in_loops), by_gate(gate_reference)),
    "LDv1": (lambda x: MASKS(x, x).features,) * 2,
}


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("name", FORMS)
def test_inputs_of_one_another(name):
    x = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = []
    for form, implementation in zip(FORMS[name], ("native", "reference"), strict=True):
        with use_implementation(implementation):
            (slope,) = torch.autograd.grad(sum_of_squares(form(x)), x, create_graph=True)
            found.append((slope, *torch.autograd.grad(slope.square().sum(), x)))
    for left, right in zip(*found, strict=True):
        assert (left - right).norm() <= 1e-4 * right.norm()


def test_guarded_kernels():
    def call(x, y):
        return launched("op", None, CPU, product, product, x, y)

    def product(x, y):
        return x.square() * y

    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    for function in (lambda x: call(x, x), lambda x: call(x, x.sin())):
        assert gradcheck(function, (x,))
        assert gradgradcheck(function, (x,))
        (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        assert torch.equal(slope, torch.autograd.grad(function(x).sum(), x)[0])
