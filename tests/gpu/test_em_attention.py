"""EM attention's kernels against the reference in float64."""

import pytest
import torch
from tests.gpu.conftest import check_operator

from segcontext import ops
from segcontext.gpu.em_attention import _run, em_attention, em_obstacle
from segcontext.gpu.em_steps import em_mix, em_sums

PROJECTED = {"projected": True}


def draw(device, dtype, *, pixels=203, given=21, channels=37, bases=5, projected=False):
    """Pixels with channels first in memory, bases, and a projection; as given and in float64, with gradients."""
    channels = channels if projected else given
    tensors = [torch.randn(2, given, pixels).mT.to(dtype), torch.randn(bases, channels)]
    if projected:
        tensors += [torch.randn(channels, given) / given**0.5, torch.randn(channels)]
    ours = [each.to(device, copy=True).requires_grad_() for each in tensors]
    return ours, [each.double().detach().requires_grad_() for each in tensors]


def projected(x, bases, weight=None, bias=None):
    """The pixels that the reference takes."""
    return x if weight is None else x @ weight.mT + bias


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"gradient": "none", "iterations": 3}, PROJECTED),
        ({"gradient": "last", "without_mass": "published"}, PROJECTED),
        ({"gradient": "all"}, PROJECTED),
        ({"gradient": "all", "norm": "layer_norm"}, {"bases": 19, "pixels": 1}),
        ({"gradient": "all", "norm": "none", "iterations": 1}, {"given": 70}),
        ({"gradient": "last", "iterations": 0}, {}),
        ({"gradient": "none", "iterations": 0}, PROJECTED),
    ],
)
def test_matches_the_reference(device, precision, far, options, sizes):
    dtype, slack = precision
    options = {"iterations": 2, "lam": 1.3, **options}
    ours, exact = draw(device, dtype, **sizes)
    assert em_obstacle(*ours) is None
    found = em_attention(
        *ours[:2], **dict(zip(("weight", "bias"), ours[2:], strict=False)), **options, responsibilities=True
    )
    wanted = ops.em_attention(projected(*exact), exact[1], **options)
    assert found.reconstruction.dtype == dtype
    for name in ("reconstruction", "responsibilities", "bases", "mass"):
        assert far(getattr(found, name), getattr(wanted, name)) < slack, name
    if options["gradient"] == "none":
        assert not found.reconstruction.requires_grad
        return
    slopes = torch.randn_like(wanted.reconstruction), torch.randn_like(wanted.bases)
    for each, results in ((ours, found), (exact, wanted)):
        loss = (results.reconstruction * slopes[0].to(each[0])).sum()
        if options["gradient"] == "all":
            loss = loss + (results.bases * slopes[1].to(results.bases)).sum()
        loss.backward()
    for mine, theirs in zip(ours, exact, strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None and sizes.get("pixels") != 1:
            assert far(mine.grad, theirs.grad) < 2 * slack


@pytest.mark.parametrize("gradient", ["none", "last", "all"])
@pytest.mark.parametrize("following", [False, True])
def test_what_the_reconstruction_is_added_to(device, far, gradient, following):
    ours, (x, bases) = draw(device, torch.float32, pixels=40)
    residual = [torch.randn(size, requires_grad=following) for size in ((2, 40, 21), (21, 21), (21,))]
    there = tuple(each.detach().to(device).requires_grad_(following) for each in residual)
    found = em_attention(*ours, iterations=1, gradient=gradient, residual=there).reconstruction
    plain = ops.em_attention(x, bases, iterations=1, gradient=gradient).reconstruction
    residual = [each.detach().double().requires_grad_(following) for each in residual]
    wanted = (residual[0] + plain.relu() @ residual[1].mT + residual[2]).relu()
    assert far(found, wanted) < 1e-5
    if following:
        slopes = torch.autograd.grad(found.square().sum(), there)
        for mine, theirs in zip(slopes, torch.autograd.grad(wanted.square().sum(), residual), strict=True):
            assert far(mine, theirs) < 1e-5


def test_a_basis_without_mass_stays(device):
    x, bases = torch.ones(1, 40, 16, device=device), torch.zeros(3, 16, device=device)
    bases[0] = 10
    found = em_attention(x, bases, iterations=1)
    torch.testing.assert_close(found.bases[0, 1:], bases[1:])
    assert em_attention(x, bases, iterations=1, without_mass="published").bases[0, 1:].isfinite().all()


def test_operators_are_whole(device):
    ours, _ = draw(device, torch.float32, pixels=33, bases=4)
    folded = torch.randn(2, 4, 21, device=device, requires_grad=True)
    offset = torch.randn(2, 4, device=device, requires_grad=True)
    x = ours[0].detach().contiguous().requires_grad_()
    check_operator(em_sums, (x, folded, offset))
    for keep in (False, True):
        check_operator(_run, (x.detach(), folded.detach(), None, None, 1, 1.0, "l2", 1e-6, True, keep))
    check_operator(em_mix, (x, folded, offset, torch.randn(2, 4, 9, device=device, requires_grad=True)))


@pytest.mark.parametrize("gradient", ["none", "last", "all"])
def test_compiles_in_one_graph(device, far, gradient):
    ours, _ = draw(device, torch.float32, pixels=40, projected=True)
    function = torch.compile(em_attention, backend="aot_eager", fullgraph=True)
    options = {"weight": ours[2], "bias": ours[3], "gradient": gradient, "iterations": 1}
    plain, compiled = (each(*ours[:2], **options).reconstruction for each in (em_attention, function))
    assert far(compiled, plain) < 1e-6
    if gradient == "none":
        return
    followed = ours if gradient == "all" else [ours[0], *ours[2:]]
    wanted = torch.autograd.grad(plain.square().sum(), followed)
    for mine, theirs in zip(torch.autograd.grad(compiled.square().sum(), followed), wanted, strict=True):
        assert far(mine, theirs) < 1e-5


def test_more_bases_than_fit(device):
    assert "128 bases" in em_obstacle(torch.zeros(1, 2, 3, device=device), torch.zeros(300, 3, device=device))
