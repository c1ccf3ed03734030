"""EM attention at λ → ∞ (EMANet §4.2): K-means, spherical K-means, and where it is neither.

scikit-learn is the oracle. What is true with a proviso: eq. 12's kernel gives each pixel to the basis of the largest
product, which is the nearest one only among bases of one length, so §4.2's K-means needs the RBF kernel or the L2 norm;
the L2 norm gives spherical K-means for pixels of unit length, and a weighted one for others.
"""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segcontext.ops.em_attention import em_attention

# Small enough for the published denominators to be eq. 13's own.
NO_EPS = 1e-300
# Sharp enough for a one-hot softmax wherever the two best bases differ by more than GAP.
SHARP, GAP = 1e9, 1e-6

clusterings = {
    "seed": st.integers(0, 10**6),
    "pixels": st.integers(8, 40),
    "bases": st.integers(1, 5),
    "channels": st.integers(1, 4),
}


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def assume_no_tie(scores):
    if scores.shape[-1] > 1:
        best = scores.topk(2).values
        assume((best[..., 0] - best[..., 1]).min() > GAP)


# --- K-means ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(**clusterings)
def test_the_sharp_rbf_kernel_is_k_means_step_for_step(seed, pixels, bases, channels):
    cluster = pytest.importorskip("sklearn.cluster")
    (x,) = draw(seed, (1, pixels, channels))
    options = {"kernel": "rbf", "lam": SHARP, "norm": "none", "eps": NO_EPS}
    # From pixels of the map, so that no cluster is empty to begin with.
    start = means = x[:, :bases]
    for steps in range(1, 6):
        assume_no_tie(-(torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist") ** 2))
        found = em_attention(x, means, iterations=1, **options)
        # scikit-learn moves a cluster that lost all its pixels elsewhere; EM leaves it, see below.
        assume(found.mass.min() > 0)
        means = found.bases
        oracle = cluster.KMeans(bases, init=start[0].numpy(), n_init=1, max_iter=steps, tol=0, algorithm="lloyd")
        oracle.fit(x[0].numpy())
        np.testing.assert_allclose(means[0], oracle.cluster_centers_, rtol=0, atol=1e-9)
        np.testing.assert_allclose(em_attention(x, start, iterations=steps, **options).bases, means)
    assume_no_tie(-(torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist") ** 2))
    last = em_attention(x, means, iterations=0, **options)
    assert last.responsibilities[0].argmax(1).tolist() == oracle.labels_.tolist()
    assert set(last.responsibilities.unique().tolist()) <= {0.0, 1.0}
    assert (x - last.reconstruction).square().sum().item() == pytest.approx(oracle.inertia_, rel=1e-9, abs=1e-12)


def test_an_empty_cluster_stays_where_k_means_would_move_it():
    cluster = pytest.importorskip("sklearn.cluster")
    x = torch.tensor([[[0.0], [1.0], [2.0], [10.0]]], dtype=torch.float64)
    start = torch.tensor([[[1.0], [10.0], [100.0]]], dtype=torch.float64)
    found = em_attention(x, start, iterations=1, kernel="rbf", lam=SHARP, norm="none", eps=NO_EPS)
    assert found.bases.flatten().tolist() == [1.0, 10.0, 100.0]
    oracle = cluster.KMeans(3, init=start[0].numpy(), n_init=1, max_iter=1, tol=0).fit(x[0].numpy())
    assert oracle.cluster_centers_.max() == 10


def test_a_pixel_between_two_bases_is_shared_where_k_means_takes_the_first():
    x = torch.tensor([[[0.0], [1.0], [2.0]]], dtype=torch.float64)
    found = em_attention(x, x[:, ::2], iterations=1, kernel="rbf", lam=SHARP, norm="none", eps=NO_EPS)
    assert found.responsibilities[0].tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    torch.testing.assert_close(found.bases.flatten(), torch.tensor([1 / 3, 5 / 3], dtype=torch.float64))


def test_the_sharp_kernel_of_eq_12_is_not_k_means_without_a_norm():
    """§4.2 names eq. 12; its largest product is the longer basis's, however far that is."""
    x = torch.tensor([[[1.0], [10.0]]], dtype=torch.float64)
    options = {"iterations": 1, "lam": SHARP, "norm": "none", "eps": NO_EPS}
    assert em_attention(x, x, **options).responsibilities[0].tolist() == [[0, 1], [0, 1]]
    assert em_attention(x, x, kernel="rbf", **options).responsibilities[0].tolist() == [[1, 0], [0, 1]]


# --- spherical K-means -----------------------------------------------------------------------------------------------


def spherical_step(x, centres):
    """Each pixel to the centre of the least angle, each centre to the direction of its pixels' sum."""
    cosines = (x @ centres.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(centres, axis=1)
    labels = cosines.argmax(1)
    sums = np.stack([x[labels == k].sum(0) for k in range(len(centres))])
    return labels, sums / np.linalg.norm(sums, axis=1)[:, None]


@pytest.mark.parametrize("kernel", ["exponential_inner_product", "rbf"])
@settings(max_examples=25, deadline=None)
@given(**clusterings)
def test_with_the_l2_norm_it_is_spherical_k_means(kernel, seed, pixels, bases, channels):
    x = F.normalize(draw(seed, (1, pixels, channels + 1))[0], dim=-1)
    means = x[:, :bases]
    for _ in range(5):
        assume_no_tie(x @ means.mT)
        found = em_attention(x, means, iterations=1, kernel=kernel, lam=SHARP, norm="l2", eps=NO_EPS)
        assume(found.mass.min() > 0)
        labels, centres = spherical_step(x[0].numpy(), means[0].numpy())
        assert found.responsibilities[0].argmax(1).tolist() == labels.tolist()
        np.testing.assert_allclose(found.bases[0], centres, rtol=0, atol=1e-9)
        means = found.bases


@settings(max_examples=15, deadline=None)
@given(**clusterings)
def test_a_spherical_step_is_a_k_means_step_back_on_the_sphere(seed, pixels, bases, channels):
    """On the sphere the nearest centre is that of the least angle, so scikit-learn is an oracle here too."""
    cluster = pytest.importorskip("sklearn.cluster")
    x = F.normalize(draw(seed, (1, pixels, channels + 1))[0], dim=-1)
    means = x[:, :bases]
    for _ in range(3):
        assume_no_tie(x @ means.mT)
        found = em_attention(x, means, iterations=1, lam=SHARP, eps=NO_EPS)
        assume(found.mass.min() > 0)
        oracle = cluster.KMeans(bases, init=means[0].numpy(), n_init=1, max_iter=1, tol=0).fit(x[0].numpy())
        centres = oracle.cluster_centers_
        np.testing.assert_allclose(found.bases[0], centres / np.linalg.norm(centres, axis=1)[:, None], atol=1e-9)
        means = found.bases


@settings(max_examples=15, deadline=None)
@given(**clusterings)
def test_longer_pixels_weigh_more_in_the_spherical_mean(seed, pixels, bases, channels):
    """Eq. 13 sums the pixels as they are: spherical K-means weighted by their lengths."""
    x, lengths = draw(seed, (1, pixels, channels + 1), (1, pixels, 1))
    x, lengths = F.normalize(x, dim=-1), lengths.exp()
    means = x[:, :bases]
    assume_no_tie((lengths * x) @ means.mT)
    found = em_attention(lengths * x, means, iterations=1, lam=SHARP, eps=NO_EPS)
    assume(found.mass.min() > 0)
    labels, centres = spherical_step((lengths * x)[0].numpy(), means[0].numpy())
    assert found.responsibilities[0].argmax(1).tolist() == labels.tolist()
    np.testing.assert_allclose(found.bases[0], centres, rtol=0, atol=1e-9)
    unweighted = em_attention(x, means, iterations=1, lam=SHARP, eps=NO_EPS)
    torch.testing.assert_close(unweighted.responsibilities, found.responsibilities)
    several = found.mass[0] > 1
    assert not several.any() or not torch.allclose(unweighted.bases[0, several], found.bases[0, several])
