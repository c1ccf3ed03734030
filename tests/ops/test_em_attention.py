import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.ops.em_attention import em_attention, em_responsibilities
from segcontext.ops.non_local_attention import non_local_attention

KERNELS = ("exponential_inner_product", "inner_product", "euclidean", "rbf")
NORMS = ("l2", "layer_norm", "none")
EPS = 1e-6

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_norm = pytest.mark.parametrize("norm", NORMS)


def tensors(*, batch=2, pixels=7, bases=3, channels=4, shared=True, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, pixels, channels, generator=generator, dtype=torch.float64)
    means = torch.randn(*(() if shared else (batch,)), bases, channels, generator=generator, dtype=torch.float64)
    return x.to(dtype), means.to(dtype)


def affinity(pixel, mean, kernel, lam):
    inner = sum(a * b for a, b in zip(pixel, mean, strict=True))
    squared = sum((a - b) ** 2 for a, b in zip(pixel, mean, strict=True))
    return {
        "exponential_inner_product": lambda: math.exp(lam * inner),
        "inner_product": lambda: max(inner, 0.0) + EPS,
        "euclidean": lambda: math.exp(-lam * math.sqrt(squared)),
        "rbf": lambda: math.exp(-lam * squared),
    }[kernel]()


def normalised(mean, norm):
    if norm == "l2":
        length = math.sqrt(sum(value**2 for value in mean)) + EPS
        return [value / length for value in mean]
    if norm == "layer_norm":
        centre = sum(mean) / len(mean)
        spread = math.sqrt(sum((value - centre) ** 2 for value in mean) / len(mean) + 1e-5)
        return [(value - centre) / spread for value in mean]
    return mean


def slow(x, bases, *, iterations, kernel="exponential_inner_product", lam=1.0, norm="l2"):
    """Eqs. 11-14, number by number; both denominators carry 1e-6, as in the published code."""
    found = {"reconstruction": [], "responsibilities": [], "bases": [], "mass": [], "history": []}
    for image, pixels in enumerate(x.tolist()):
        means = (bases if bases.ndim == 2 else bases[image]).tolist()
        every = []
        for _ in range(max(iterations, 1)):
            given = [[affinity(pixel, mean, kernel, lam) for mean in means] for pixel in pixels]
            z = [[value / sum(row) for value in row] for row in given]
            every.append(z)
            mass = [sum(row[k] for row in z) for k in range(len(means))]
            if iterations:
                means = [
                    normalised(
                        [
                            sum(row[k] * pixel[c] for row, pixel in zip(z, pixels, strict=True)) / (mass[k] + EPS)
                            for c in range(len(pixels[0]))
                        ],
                        norm,
                    )
                    if mass[k] > EPS
                    else means[k]
                    for k in range(len(means))
                ]
        found["history"].append(every)
        found["responsibilities"].append(z)
        found["bases"].append(means)
        found["mass"].append(mass)
        found["reconstruction"].append(
            [[sum(row[k] * mean[c] for k, mean in enumerate(means)) for c in range(len(pixels[0]))] for row in z]
        )
    wanted = {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}
    wanted["history"] = wanted["history"].transpose(0, 1)
    return wanted


@every_kernel
@every_norm
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_matches_the_equations(kernel, norm, iterations, shared):
    x, bases = tensors(shared=shared)
    options = {"iterations": iterations, "kernel": kernel, "norm": norm, "lam": 0.7}
    found = em_attention(x, bases, keep_history=True, **options)
    for name, wanted in slow(x, bases, **options).items():
        torch.testing.assert_close(
            getattr(found, name), wanted, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@every_kernel
def test_the_step_alone_matches_too(kernel):
    x, bases = tensors()
    wanted = slow(x, bases, iterations=0, kernel=kernel)["responsibilities"]
    torch.testing.assert_close(em_responsibilities(x, bases, kernel=kernel), wanted, rtol=1e-9, atol=1e-12)


def test_no_iterations_assign_the_pixels_to_the_bases_as_they_are():
    x, bases = tensors()
    found = em_attention(x, bases, iterations=0, keep_history=True)
    assert torch.equal(found.bases, bases.expand(2, -1, -1))
    assert torch.equal(found.history[0], found.responsibilities)
    torch.testing.assert_close(found.reconstruction, found.responsibilities @ bases)


def test_history_holds_every_step_and_only_where_it_is_asked_for():
    x, bases = tensors()
    history = em_attention(x, bases, iterations=4, keep_history=True).history
    assert history.shape == (4, 2, 7, 3)
    for step in range(4):
        assert torch.equal(history[step], em_attention(x, bases, iterations=step + 1).responsibilities)
    assert em_attention(x, bases).history is None


@every_norm
@pytest.mark.parametrize("gradient", ["none", "all"])
def test_a_base_without_mass_keeps_its_value(norm, gradient):
    """At a sharp λ positive pixels leave nothing at all to a base on the other side."""
    x = tensors(channels=2)[0].abs() + 1
    bases = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, -4.0]], dtype=torch.float64)
    found = em_attention(x, bases, lam=1e3, norm=norm, gradient=gradient)
    assert (found.mass[:, 2] == 0).all()
    assert torch.equal(found.bases[:, 2], bases[2].expand(2, -1))
    assert found.reconstruction.isfinite().all()


@pytest.mark.parametrize("eps", [1e-6, 1e-12])
@pytest.mark.parametrize("gradient", ["none", "all"])
def test_the_published_formula_moves_a_base_with_hardly_any_mass(eps, gradient):
    """At a sharp λ the base on the other side has a mass of about 1e-9: its few shares decide where it goes."""
    x = tensors(channels=2)[0].abs() + 1
    bases = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, -4.0]], dtype=torch.float64)
    found = em_attention(x, bases, iterations=1, lam=2.0, eps=eps, without_mass="published", gradient=gradient)
    z = (2.0 * x @ bases.T).softmax(-1)
    assert 0 < z.sum(1)[:, 2].max() < 1e-6
    means = z.mT @ x / (z.sum(1) + eps).unsqueeze(-1)
    means = means / (means.norm(dim=-1, keepdim=True) + eps)
    torch.testing.assert_close(found.bases, means)
    assert (found.bases[:, 2] > 0).all()
    kept = em_attention(x, bases, iterations=1, lam=2.0, gradient=gradient)
    assert torch.equal(kept.bases[:, 2], bases[2].expand(2, -1))
    nothing = em_attention(x, bases, lam=1e3, without_mass="published", gradient=gradient)
    assert (nothing.bases[:, 2] == 0).all()


def test_gradients_survive_a_base_without_mass():
    x = (tensors(channels=2)[0].abs() + 1).requires_grad_()
    bases = torch.tensor([[1.0, 0.0], [-3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    em_attention(x, bases, lam=1e3, gradient="all").reconstruction.sum().backward()
    assert x.grad.isfinite().all()
    assert bases.grad.isfinite().all()


def test_without_gradient_everything_is_a_constant():
    x, bases = (each.requires_grad_() for each in tensors())
    found = em_attention(x, bases, keep_history=True)
    assert not any(each.requires_grad for each in found)


@pytest.mark.parametrize("iterations", [0, 1, 3])
@every_kernel
def test_the_last_gradient_goes_through_the_last_assignment_alone(iterations, kernel):
    x, bases = (each.requires_grad_() for each in tensors())
    found = em_attention(x, bases, iterations=iterations, gradient="last", kernel=kernel)
    assert not found.bases.requires_grad
    assert not found.mass.requires_grad
    given = em_attention(x.detach(), bases.detach(), iterations=max(iterations - 1, 0), kernel=kernel).bases
    wanted = em_responsibilities(x, given, kernel=kernel) @ found.bases
    torch.testing.assert_close(found.reconstruction, wanted)
    sign = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=wanted.dtype)
    (one,) = torch.autograd.grad((found.reconstruction * sign).sum(), x)
    (two,) = torch.autograd.grad((wanted * sign).sum(), x)
    assert one.abs().max() > 0
    torch.testing.assert_close(one, two)


@every_kernel
@every_norm
@pytest.mark.parametrize("iterations", [0, 2])
def test_the_full_gradient_is_right(kernel, norm, iterations):
    given = [each.requires_grad_() for each in tensors(batch=1, pixels=4, bases=2, channels=3)]
    options = {"iterations": iterations, "kernel": kernel, "norm": norm, "gradient": "all"}
    assert torch.autograd.gradcheck(lambda x, bases: em_attention(x, bases, **options)[:3], given)


def test_the_gradient_changes_no_value():
    x, bases = tensors()
    found = [em_attention(x, bases, gradient=gradient).reconstruction for gradient in ("none", "last", "all")]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@every_kernel
def test_the_reference_computes_half_precision_wide_and_rounds_it_once(kernel):
    x, bases = tensors(pixels=300, channels=16, dtype=torch.bfloat16)
    found = em_attention(x, bases, kernel=kernel, implementation="reference")
    wide = em_attention(x.float(), bases.float(), kernel=kernel, implementation="reference")
    assert found.reconstruction.dtype == torch.bfloat16
    assert found.bases.dtype == found.responsibilities.dtype == found.mass.dtype == torch.float32
    assert torch.equal(found.reconstruction, wide.reconstruction.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = em_attention(x.float(), bases.float(), kernel=kernel, implementation="reference")
    assert torch.equal(again.bases, wide.bases)


def test_a_sharp_kernel_is_k_means():
    x, bases = tensors(pixels=20)
    found = em_attention(x, bases, iterations=1, lam=1e6, norm="none")
    nearest = (x @ bases.mT).argmax(-1)
    assert torch.equal(found.responsibilities, torch.nn.functional.one_hot(nearest, 3).double())
    for image in range(2):
        for k in nearest[image].unique():
            mean = x[image][nearest[image] == k].mean(0)
            torch.testing.assert_close(found.bases[image, k], mean, rtol=2e-6, atol=0)


def test_pixels_as_bases_without_iterations_are_non_local_attention():
    x, _ = tensors()
    found = em_attention(x, x, iterations=0)
    torch.testing.assert_close(found.reconstruction, non_local_attention(x.mT, x.mT, x.mT).mT)


def test_the_reconstruction_has_at_most_the_rank_of_the_bases():
    x, bases = tensors(pixels=40, channels=8)
    assert torch.linalg.matrix_rank(em_attention(x, bases).reconstruction).tolist() == [3, 3]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), lam=st.floats(0.05, 5), bases=st.integers(1, 5), pixels=st.integers(2, 12))
def test_the_likelihood_of_a_gaussian_mixture_never_falls(seed, lam, bases, pixels):
    x, means = tensors(seed=seed, bases=bases, pixels=pixels, channels=2)
    likelihoods = []
    for steps in range(5):
        # The 1e-6 in the published denominator pulls the means off the optimum; 1e-15 leaves EM as it is.
        found = em_attention(x, means, iterations=steps, kernel="rbf", lam=lam, norm="none", eps=1e-15).bases
        likelihoods.append(
            (-lam * torch.cdist(x, found, compute_mode="donot_use_mm_for_euclid_dist") ** 2).logsumexp(-1).sum(-1)
        )
    history = torch.stack(likelihoods)
    assert (history.diff(dim=0) >= -1e-7 * history[:-1].abs().clamp_min(1)).all()


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.sampled_from(KERNELS),
    norm=st.sampled_from(NORMS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 6)),
    size=st.sampled_from([0.0, 1e-8, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_any_size_and_magnitude_stays_finite_and_sums_to_one(kernel, norm, shape, size, seed):
    batch, pixels, bases, channels = shape
    x, means = tensors(batch=batch, pixels=pixels, bases=bases, channels=channels, seed=seed, dtype=torch.float32)
    found = em_attention(size * x, means, kernel=kernel, norm=norm)
    assert all(each.isfinite().all() for each in found if each is not None)
    assert (found.responsibilities >= 0).all()
    torch.testing.assert_close(found.responsibilities.sum(-1), torch.ones(batch, pixels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mass.sum(-1), torch.full((batch,), float(pixels)), rtol=1e-4, atol=1e-4)


@every_kernel
def test_the_order_of_pixels_and_bases_does_not_matter(kernel):
    x, bases = tensors()
    pixels, order = torch.randperm(7), torch.randperm(3)
    one, two = em_attention(x, bases, kernel=kernel), em_attention(x[:, pixels], bases[order], kernel=kernel)
    torch.testing.assert_close(two.reconstruction, one.reconstruction[:, pixels])
    torch.testing.assert_close(two.responsibilities, one.responsibilities[:, pixels][..., order])
    torch.testing.assert_close(two.bases, one.bases[:, order])


def test_what_came_in_is_left_alone():
    x, bases = tensors()
    copies = x.clone(), bases.clone()
    em_attention(x, bases)
    assert torch.equal(x, copies[0])
    assert torch.equal(bases, copies[1])


@pytest.mark.parametrize("iterations", [0, 3])
@pytest.mark.parametrize("option", ["kernel", "norm", "gradient", "without_mass"])
def test_unknown_options_are_refused(option, iterations):
    with pytest.raises(ValueError, match=f"{option} must be .*, not 'other'"):
        em_attention(*tensors(), iterations=iterations, **{option: "other"})


def test_negative_iterations_are_refused():
    with pytest.raises(ValueError, match="iterations must be 0 or more, not -1"):
        em_attention(*tensors(), iterations=-1)


@pytest.mark.parametrize(
    ("x", "bases"),
    [((2, 7, 4), (3, 5)), ((7, 4), (3, 4)), ((2, 7, 4), (4,)), ((2, 7, 4), (3, 2, 4)), ((2, 7, 4), (1, 3, 4))],
)
def test_shapes_that_do_not_fit_are_refused(x, bases):
    with pytest.raises(ValueError, match="expected x"):
        em_attention(torch.zeros(x), torch.zeros(bases))
