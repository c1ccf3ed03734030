"""The likelihood under EM (EMANet §3.1, §3.2, §4, §5.2): what never falls, why, and what may.

§4 says that the likelihood rises from one iteration to the next, without saying which kernel and norm it speaks of.
What holds is proved and tested here:

* the Gaussian kernel without a norm is EM of a Gaussian mixture (equal weights, covariance I / 2λ), so it never falls;
* the L2 norm does not spoil it: among bases of unit length the normalised mean *is* the best one, for the Gaussian
  kernel and for eq. 12's, whose mixture is then one of von Mises-Fisher densities. So the claim holds for EMANet as
  it is built. The layer norm does the same among bases of zero mean and unit variance;
* it does not hold for eq. 12's kernel without a norm, for the Euclidean kernel, for the plain inner product, nor for
  the first step away from bases that the norm would change; one small example each.

That the Gaussian likelihood never falls over whole runs is in tests/ops/test_em_attention.py; here each step counts.
"""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch.nn import functional as F

from segcontext.ops.em_attention import em_attention, em_responsibilities

# Small enough for the published denominators to be eq. 13's own.
NO_EPS = 1e-300

problems = {
    "seed": st.integers(0, 10**6),
    "lam": st.floats(0.05, 5),
    "pixels": st.integers(1, 12),
    "bases": st.integers(1, 5),
    "channels": st.integers(1, 4),
}


def draw(seed, *, pixels, bases, channels, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = size * torch.randn(1, pixels, channels, generator=generator, dtype=torch.float64)
    return x, torch.randn(1, bases, channels, generator=generator, dtype=torch.float64)


def log_gaussians(x, means, lam):
    """log N(x_n | μ_k, I / 2λ) by scipy, (N, K)."""
    x, means = x[0].numpy(), means[0].numpy()
    spread = np.eye(x.shape[1]) / (2 * lam)
    return np.stack([multivariate_normal.logpdf(x - mean, cov=spread).reshape(len(x)) for mean in means], axis=1)


def gaussian_likelihood(x, means, lam):
    """Eq. 4 with equal weights: Σ_n log Σ_k N(x_n | μ_k) / K."""
    return logsumexp(log_gaussians(x, means, lam) - np.log(means.shape[1]), axis=1).sum()


def log_kernel(x, means, kernel, lam):
    """log 𝒦(x_n, μ_k), (N, K), pair by pair."""
    formula = {
        "exponential_inner_product": lambda pixel, mean: lam * (pixel @ mean),
        "inner_product": lambda pixel, mean: np.log(max(pixel @ mean, 1e-300)),
        "euclidean": lambda pixel, mean: -lam * np.sqrt(((pixel - mean) ** 2).sum()),
        "rbf": lambda pixel, mean: -lam * ((pixel - mean) ** 2).sum(),
    }[kernel]
    return np.array([[formula(pixel, mean) for mean in means[0].numpy()] for pixel in x[0].numpy()])


def likelihood(x, means, kernel, lam):
    """Σ_n log Σ_k 𝒦(x_n, μ_k): the likelihood of a mixture whose densities are the kernel's, up to a constant."""
    return logsumexp(log_kernel(x, means, kernel, lam), axis=1).sum()


@settings(max_examples=25, deadline=None)
@given(**problems)
def test_a_step_is_that_of_a_mixture_of_equal_gaussians(seed, lam, pixels, bases, channels):
    """Eqs. 5 and 6 with the densities from scipy."""
    x, means = draw(seed, pixels=pixels, bases=bases, channels=channels)
    found = em_attention(x, means, iterations=1, kernel="rbf", lam=lam, norm="none", eps=NO_EPS)
    logs = log_gaussians(x, means, lam)
    posterior = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    wanted = posterior.T @ x[0].numpy() / posterior.sum(0)[:, None]
    np.testing.assert_allclose(found.responsibilities[0], posterior, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found.bases[0], wanted, rtol=1e-6, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(**problems)
def test_either_step_lifts_the_lower_bound(seed, lam, pixels, bases, channels):
    """§5.2: the E step brings the bound Σ z (log p - log z) up to the likelihood, the M step raises it further."""

    def bound(z, means):
        return (z * log_gaussians(x, means, lam)).sum() - np.where(z > 0, z * np.log(np.maximum(z, 1e-300)), 0).sum()

    x, means = draw(seed, pixels=pixels, bases=bases, channels=channels)
    before = np.full((pixels, bases), 1 / bases)
    constant = pixels * np.log(bases)
    for _ in range(3):
        z = em_responsibilities(x, means, kernel="rbf", lam=lam)[0].numpy()
        slack = 1e-9 * (1 + abs(bound(z, means)))
        assert bound(z, means) >= bound(before, means) - slack
        assert bound(z, means) - constant == pytest.approx(gaussian_likelihood(x, means, lam), rel=1e-7, abs=1e-9)
        moved = em_attention(x, means, iterations=1, kernel="rbf", lam=lam, norm="none", eps=NO_EPS).bases
        assert bound(z, moved) >= bound(z, means) - slack
        before, means = z, moved


def test_where_it_comes_to_rest_the_likelihood_is_stationary():
    x, means = draw(3, pixels=30, bases=4, channels=3)
    options = {"kernel": "rbf", "lam": 0.8, "norm": "none", "eps": NO_EPS}
    rest = em_attention(x, means, iterations=2000, **options).bases
    torch.testing.assert_close(em_attention(x, rest, iterations=1, **options).bases, rest, rtol=0, atol=1e-10)
    assert gaussian_likelihood(x, rest, 0.8) > gaussian_likelihood(x, means, 0.8) + 1
    for k in range(4):
        for c in range(3):
            step = torch.zeros_like(rest)
            step[0, k, c] = 1e-5
            slope = (gaussian_likelihood(x, rest + step, 0.8) - gaussian_likelihood(x, rest - step, 0.8)) / 2e-5
            assert abs(slope) < 1e-5


@pytest.mark.parametrize("kernel", ["exponential_inner_product", "rbf"])
@settings(max_examples=25, deadline=None)
@given(**problems)
def test_among_bases_of_unit_length_it_never_falls(kernel, seed, lam, pixels, bases, channels):
    """The M step maximises Σ z x·μ, and so -Σ z ‖x - μ‖², over ‖μ‖ = 1: that is the normalised sum."""
    x, means = draw(seed, pixels=pixels, bases=bases, channels=channels)
    means = F.normalize(means, dim=-1)
    history = [likelihood(x, means, kernel, lam)]
    for _ in range(5):
        means = em_attention(x, means, iterations=1, kernel=kernel, lam=lam, norm="l2", eps=NO_EPS).bases
        history.append(likelihood(x, means, kernel, lam))
    assert (np.diff(history) >= -1e-9 * (1 + np.abs(history[:-1]))).all()


@settings(max_examples=25, deadline=None)
@given(**problems)
def test_eq_12_with_unit_bases_is_the_gaussian_kernel_at_half_the_sharpness(seed, lam, pixels, bases, channels):
    """‖x - μ‖² = ‖x‖² - 2 x·μ + 1, and what does not depend on the basis cancels."""
    x, means = draw(seed, pixels=pixels, bases=bases, channels=channels)
    means = F.normalize(means, dim=-1)
    ours = em_attention(x, means, lam=lam, eps=NO_EPS)
    gaussian = em_attention(x, means, kernel="rbf", lam=lam / 2, eps=NO_EPS)
    # Bases that end up on opposite directions of nearly nothing have no direction to compare.
    assume(ours.mass.min() > 1e-6)
    torch.testing.assert_close(ours.responsibilities, gaussian.responsibilities, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.bases, gaussian.bases, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kernel", ["exponential_inner_product", "rbf"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), lam=st.floats(0.01, 0.2), pixels=st.integers(4, 12), bases=st.integers(1, 4))
def test_among_bases_of_zero_mean_and_unit_variance_it_never_falls(kernel, seed, lam, pixels, bases):
    """The layer norm projects the sum onto that set, where it is the best one again, but for its own ε of 1e-5."""
    x, means = draw(seed, pixels=pixels, bases=bases, channels=5, size=30)
    means = F.layer_norm(means, (5,), eps=0)
    history = [likelihood(x, means, kernel, lam)]
    for _ in range(4):
        given_sum = em_responsibilities(x, means, kernel=kernel, lam=lam).mT @ x
        found = em_attention(x, means, iterations=1, kernel=kernel, lam=lam, norm="layer_norm", eps=NO_EPS)
        assume((given_sum / found.mass[..., None]).var(-1).min() > 1)
        means = found.bases
        history.append(likelihood(x, means, kernel, lam))
    assert (np.diff(history) >= -2e-5 * (1 + np.abs(history[:-1]))).all()


@pytest.mark.parametrize(
    ("kernel", "norm", "pixels", "start", "fall"),
    [
        # Not eq. 12's kernel without a norm: longer bases have larger products, and the mean is no longer.
        ("exponential_inner_product", "none", [[1.0, 0.0]], [[2.0, 0.0]], 1.0),
        # Not the Euclidean kernel: the sum of distances is least at the median, and the step goes to the mean.
        ("euclidean", "none", [[0.0], [0.0], [0.0], [10.0]], [[0.0]], 5.0),
        # Not the plain inner product, norm or no norm: log x·μ is not linear in μ. Best is 30°, the mean is at 18°.
        ("inner_product", "l2", [[1.0, 0.0]] * 3 + [[0.0, 1.0]], [[3**0.5 / 2, 0.5]], 0.1),
        # Not the first step from bases that the norm changes: the only pixel is already its basis.
        ("rbf", "l2", [[3.0, 0.0]], [[3.0, 0.0]], 4.0),
        ("rbf", "layer_norm", [[3.0, 0.0]], [[3.0, 0.0]], 4.0),
    ],
)
def test_what_may_fall(kernel, norm, pixels, start, fall):
    x, means = (torch.tensor([each], dtype=torch.float64) for each in (pixels, start))
    moved = em_attention(x, means, iterations=1, kernel=kernel, norm=norm, eps=NO_EPS).bases
    assert likelihood(x, moved, kernel, 1.0) <= likelihood(x, means, kernel, 1.0) - fall


def test_the_steps_of_eq_12_without_a_norm_are_not_those_of_gaussians():
    """Each pixel has its basis, a Gaussian mixture would stay; eq. 12 gives both pixels to the longer basis."""
    x = torch.tensor([[[1.0], [10.0]]], dtype=torch.float64)
    options = {"iterations": 1, "norm": "none", "eps": NO_EPS}
    torch.testing.assert_close(em_attention(x, x, kernel="rbf", **options).bases, x, rtol=0, atol=1e-9)
    moved = em_attention(x, x, **options).bases
    torch.testing.assert_close(moved[0, 1], torch.tensor([5.5], dtype=torch.float64), rtol=1e-3, atol=0)
    assert gaussian_likelihood(x, moved, 1.0) < gaussian_likelihood(x, x, 1.0) - 15


def test_the_published_denominators_cost_a_millionth():
    """The 1e-6 beside the mass pulls a mean towards zero, so a mixture at its best loses λ m ‖μ‖² (1e-6 / m)²."""
    x = torch.full((1, 4, 1), 1000.0, dtype=torch.float64)
    best = x[:, :1]
    moved = em_attention(x, best, iterations=1, kernel="rbf", norm="none").bases
    lost = gaussian_likelihood(x, best, 1.0) - gaussian_likelihood(x, moved, 1.0)
    assert 0 < lost == pytest.approx(4 * (1000 * 1e-6 / 4) ** 2, rel=1e-3)
    stays = em_attention(x, best, iterations=1, kernel="rbf", norm="none", eps=NO_EPS).bases
    assert torch.equal(stays, best)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kernel=st.sampled_from(["exponential_inner_product", "inner_product", "euclidean", "rbf"]),
    norm=st.sampled_from(["l2", "layer_norm", "none"]),
    steps=st.integers(1, 5),
)
def test_iterations_are_steps_one_after_another(seed, kernel, norm, steps):
    x, means = draw(seed, pixels=9, bases=3, channels=4)
    together = em_attention(x, means, iterations=steps, kernel=kernel, norm=norm)
    for _ in range(steps):
        last = em_attention(x, means, iterations=1, kernel=kernel, norm=norm)
        means = last.bases
    torch.testing.assert_close(together.bases, means)
    torch.testing.assert_close(together.responsibilities, last.responsibilities)
    torch.testing.assert_close(together.reconstruction, last.reconstruction)
