"""The rearranged and the native form of EM attention against the reference in float64."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from segcontext.costs.counter import OperationCounter
from segcontext.ops.em_attention import Residual, em_attention

KERNELS = ("exponential_inner_product", "inner_product", "rbf")
FORMS = ("rearranged", "native")
U = 2.0**-8

every_form = pytest.mark.parametrize("form", FORMS)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(batch=2, pixels=35, channels=6, comes=8, bases=4, *, shared=True):
    x, means = draw(batch, pixels, comes, seed=1), draw(*(() if shared else (batch,)), bases, channels, seed=2)
    return x, F.normalize(means, dim=-1), (draw(channels, comes, seed=3), 0.3 * draw(channels, seed=4))


def laid_out(x, layout):
    """The same pixels, with channels or pixels side by side, or neither."""
    if layout == "pixels apart":
        return torch.stack([x, x], 2)[:, :, 0]
    if layout == "channels apart":
        return torch.stack([x.mT, x.mT], 3)[..., 0].mT
    return x.contiguous() if layout == "pixel-major" else x.mT.contiguous().mT


def cast(values, dtype):
    return tuple(None if each is None else each.to(dtype) for each in values)


def assert_near(found, exact, *, rtol=1e-5, atol=1e-5):
    for name in ("reconstruction", "responsibilities", "bases", "mass", "history"):
        torch.testing.assert_close(
            getattr(found, name).double(),
            getattr(exact, name),
            rtol=rtol,
            atol=atol,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@every_form
@every_kernel
@pytest.mark.parametrize("norm", ["l2", "layer_norm", "none"])
@pytest.mark.parametrize("without_mass", ["keep", "published"])
def test_every_option(form, kernel, norm, without_mass):
    x, bases, projection = given()
    options = {"kernel": kernel, "norm": norm, "without_mass": without_mass, "lam": 0.7, "keep_history": True}
    exact = em_attention(x, bases, projection=projection, implementation="reference", **options)
    found = em_attention(
        x.float(), bases.float(), projection=cast(projection, torch.float32), implementation=form, **options
    )
    assert found.responsibilities.dtype == found.bases.dtype == found.reconstruction.dtype == torch.float32
    assert_near(found, exact)


@every_form
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("layout", ["pixel-major", "channel-major", "pixels apart", "channels apart"])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (1, 7, 3, 5, 2), (3, 64, 8, 4, 17)])
def test_every_size_and_layout(form, iterations, layout, sizes):
    x, bases, projection = given(*sizes, shared=False)
    options = {"iterations": iterations, "keep_history": True}
    exact = em_attention(x, bases, projection=projection, implementation="reference", **options)
    single = cast(projection, torch.float32)
    found = em_attention(laid_out(x.float(), layout), bases.float(), projection=single, implementation=form, **options)
    assert_near(found, exact)


@every_form
@pytest.mark.parametrize("bias", [True, False])
def test_more_pixels_than_a_block_and_no_bias(form, bias):
    x, bases, (weight, shift) = given(1, 8195, 4, 4, 3)
    projection = (weight, shift if bias else None)
    exact = em_attention(x, bases, projection=projection, implementation="reference", keep_history=True)
    single = cast(projection, torch.float32)
    found = em_attention(x.float(), bases.float(), projection=single, implementation=form, keep_history=True)
    assert_near(found, exact, rtol=1e-4)


@every_kernel
@pytest.mark.parametrize("gradient", ["last", "all"])
@pytest.mark.parametrize("layout", ["pixel-major", "channel-major"])
def test_gradients_of_the_rearranged_form(kernel, gradient, layout):
    x, bases, projection = given()
    results = []
    for form in ("reference", "rearranged"):
        leaves = [each.clone().requires_grad_() for each in (laid_out(x, layout), bases, *projection)]
        options = {"kernel": kernel, "gradient": gradient, "projection": tuple(leaves[2:]), "implementation": form}
        out = em_attention(*leaves[:2], **options).reconstruction
        sign = draw(*out.shape, seed=5)
        results.append((out, *torch.autograd.grad((out * sign).sum(), leaves, allow_unused=True)))
    torch.testing.assert_close(results[1], results[0])
    # The bases learn where everything is followed; everything else in both cases.
    assert [each is not None for each in results[0]] == [True, True, gradient == "all", True, True]


@pytest.mark.parametrize("gradient", ["last", "all"])
@pytest.mark.parametrize("layout", ["pixel-major", "channel-major"])
@pytest.mark.parametrize("batch", [1, 2])
def test_bfloat16_gradients_of_the_rearranged_form_stay_within_their_bound(gradient, layout, batch):
    """To within 4 u: everything that is rounded on the way forward is, on the way back, rounded once more."""
    x, bases, _ = given(batch, 300, 32, 32, 8)
    x = laid_out(x.bfloat16(), layout)
    found = []
    for form, pixels in (("reference", x.double()), ("rearranged", x)):
        leaf = pixels.clone().requires_grad_()
        out = em_attention(
            leaf, bases.to(torch.promote_types(leaf.dtype, torch.float32)), gradient=gradient, implementation=form
        ).reconstruction
        sign = draw(*out.shape, seed=5).bfloat16().to(out.dtype)
        found.append(torch.autograd.grad((out * sign).sum(), leaf)[0].double())
    assert (found[1] - found[0]).norm() <= 4 * U * found[0].norm()


@every_form
def test_nothing_is_followed_by_default(form):
    x, bases, projection = given()
    leaves = [each.float().requires_grad_() for each in (x, bases, *projection)]
    found = em_attention(*leaves[:2], projection=tuple(leaves[2:]), implementation=form)
    assert not any(each.requires_grad for each in found if each is not None)


@every_form
@every_kernel
@pytest.mark.parametrize("layout", ["pixel-major", "channel-major"])
@pytest.mark.parametrize("projected", [True, False])
def test_bfloat16_stays_within_its_bound(form, kernel, layout, projected):
    """To within 3 u: bases, responsibilities and result are rounded, 0.7 u, and so are the logits of three iterations.

    The RBF kernel's logits are twice the others', and so is what their rounding does.
    """
    x, bases, projection = given(2, 300, 32, 32, 8)
    x = laid_out(x.bfloat16(), layout)
    narrow = cast((projection[0] / 32**0.5, projection[1]), torch.bfloat16) if projected else None
    wide = None if narrow is None else cast(narrow, torch.float64)
    exact = em_attention(x.double(), bases, projection=wide, kernel=kernel, implementation="reference")
    found = em_attention(x, bases.float(), projection=narrow, kernel=kernel, implementation=form)
    assert found.reconstruction.dtype == torch.bfloat16
    assert found.responsibilities.dtype == found.bases.dtype == found.mass.dtype == torch.float32
    for name in ("reconstruction", "responsibilities", "bases", "mass"):
        error, true = getattr(found, name).double() - getattr(exact, name), getattr(exact, name)
        assert error.norm() <= 3 * U * true.norm(), name
    torch.testing.assert_close(found.responsibilities.sum(-1), torch.ones(2, 300), rtol=1e-5, atol=1e-5)


@every_form
def test_what_bases_have_in_common_costs_no_digits(form):
    """Logits around 300 would be rounded to whole numbers, were they not taken about their mean."""
    x, bases, _ = given(2, 300, 8, 8, 4)
    x, bases = (x + 20).bfloat16(), (0.1 * bases + 2).bfloat16()
    exact = em_attention(x.double(), bases.double(), norm="none", iterations=0, implementation="reference")
    found = em_attention(x, bases, norm="none", iterations=0, implementation=form)
    assert exact.responsibilities.std() > 0.2
    torch.testing.assert_close(found.responsibilities.double(), exact.responsibilities, rtol=0, atol=0.02)


@every_form
def test_autocast_runs_the_projection_as_a_linear_layer(form):
    x, bases, projection = given(2, 50)
    single = cast(projection, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = em_attention(x.float(), bases.float(), projection=single, implementation=form)
        wide = em_attention(x, bases, projection=projection)
    exact = em_attention(x, bases, projection=projection, implementation="reference")
    assert found.reconstruction.dtype == torch.bfloat16
    assert (found.reconstruction.double() - exact.reconstruction).norm() < 2 * U * exact.reconstruction.norm()
    torch.testing.assert_close(wide.reconstruction, exact.reconstruction)


@every_form
def test_numbers_that_are_none_spoil_their_own_image_only(form):
    x, bases, projection = given()
    x, bases, projection = x.float(), bases.float(), cast(projection, torch.float32)
    x[0, 3, 1] = float("nan")
    options = {"projection": projection, "implementation": form, "without_mass": "published"}
    found, alone = em_attention(x, bases, **options), em_attention(x[1:], bases, **options)
    assert found.bases[0].isnan().all()
    torch.testing.assert_close(found.bases[1:], alone.bases)


@every_form
@pytest.mark.parametrize(
    ("dtype", "base"),
    [*itertools.product([torch.float32, torch.bfloat16], repeat=2), (torch.float64, torch.float64)],
)
@pytest.mark.parametrize("layout", ["pixel-major", "channel-major"])
def test_what_follows_in_the_unit(form, dtype, base, layout):
    x, bases, projection = given(2, 77, 8, 8)
    x = laid_out(x.to(base), layout)
    weight, bias = draw(8, 8, seed=6) / 8**0.5, draw(8, seed=7)
    narrow = cast(projection, torch.float32 if dtype == torch.bfloat16 else dtype)
    residual = Residual(x, *cast((weight, bias), narrow[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16 and base != dtype):
        found = em_attention(
            x.to(base if base != torch.bfloat16 else dtype), bases.to(narrow[0].dtype),
            projection=narrow, residual=residual, implementation=form,
        ).reconstruction  # fmt: skip
    again = em_attention(x.double(), bases, projection=projection, implementation="reference").reconstruction
    exact = (x.double() + again.relu() @ weight.T + bias).relu()
    assert found.dtype == torch.promote_types(dtype, base)
    limit = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2 * U)
    assert (found.double() - exact).norm() <= max(limit, U if base == torch.bfloat16 else 0) * exact.norm()


def test_without_compiled_loops_it_runs_rearranged(monkeypatch):
    x, bases, projection = given()
    x, bases, projection = x.float(), bases.float(), cast(projection, torch.float32)
    monkeypatch.setenv("SEGCONTEXT_NATIVE", "0")
    found = em_attention(x, bases, projection=projection)
    wanted = em_attention(x, bases, projection=projection, implementation="rearranged")
    assert torch.equal(found.reconstruction, wanted.reconstruction)


def test_a_residual_that_does_not_fit_is_refused():
    x, bases, projection = given()
    for residual in (
        Residual(x, torch.zeros(6, 6), torch.zeros(6)),
        Residual(torch.zeros(2, 35, 6), torch.zeros(6, 8), torch.zeros(6)),
    ):
        with pytest.raises(ValueError, match=r"expected a residual of .* C = 6"):
            em_attention(x, bases, projection=projection, residual=residual)


@every_form
def test_tensors_that_learn_elsewhere_are_welcome(form):
    x, bases, projection = given(2, 20, 8, 8)
    leaves = [each.float().requires_grad_() for each in (x, bases, *projection, draw(8, 8), draw(8))]
    options = {"gradient": "all", "implementation": form}
    with torch.no_grad():
        found = em_attention(
            *leaves[:2], projection=tuple(leaves[2:4]), residual=Residual(leaves[0], *leaves[4:]), **options
        )
    assert not found.reconstruction.requires_grad


def test_what_is_added_to_is_followed():
    x, bases, projection = given(2, 20, 8, 8)
    x, bases, projection = x.float(), bases.float(), cast(projection, torch.float32)
    base = x.clone().requires_grad_()
    residual = Residual(base, torch.eye(8), torch.zeros(8))
    out = em_attention(x, bases, projection=projection, residual=residual).reconstruction
    (gradient,) = torch.autograd.grad(out.sum(), base)
    assert torch.equal(gradient, (out > 0).float())


@every_form
def test_a_count_is_of_the_equations(form):
    """Of the projection of all pixels, three E and M steps and R, not of what runs instead."""
    x, bases, projection = given(2, 35, 6, 8, 4)
    with torch.no_grad(), OperationCounter() as counter:
        em_attention(x.float(), bases.float(), projection=cast(projection, torch.float32), implementation=form)
    assert counter.products[""] == 2 * 35 * (6 * 8 + 7 * 6 * 4)


def test_the_euclidean_kernel_projects_the_pixels(caplog):
    x, bases, projection = given()
    options = {"kernel": "euclidean", "projection": projection}
    with caplog.at_level("WARNING"):
        found = em_attention(x, bases, implementation="rearranged", **options)
    assert "distances need the length of each projected pixel" in caplog.text
    assert torch.equal(found.reconstruction, em_attention(x, bases, **options).reconstruction)


@pytest.mark.parametrize(
    ("projection", "words"),
    [
        ((torch.zeros(5, 8), None), "a projection"),
        ((torch.zeros(6, 7), None), "a projection"),
        ((torch.zeros(6, 8), torch.zeros(8)), "bias of 6 values"),
    ],
)
def test_projections_that_do_not_fit_are_refused(projection, words):
    x, bases, _ = given()
    with pytest.raises(ValueError, match=words):
        em_attention(x.float(), bases.float(), projection=projection)
