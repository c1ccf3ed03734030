"""What EM attention becomes in special cases (EMANet §3.3, §5.4), and what it always is.

Which statement is tested where. This folder holds what runs across modules, or is stronger than one module's own tests:

* EM never lowers the likelihood: test_em.py here; whole runs with the Gaussian kernel: ../ops/test_em_attention.py.
* K-means and spherical K-means: test_k_means.py; A² and Non-local as special cases, rank: here; one small case of each
  is in ../ops/test_em_attention.py and ../ops/test_double_attention.py.
* Responsibilities and other attention weights sum to one: ../ops/test_em_attention.py (any size, kernel, magnitude),
  ../ops/test_double_attention.py, ../aggregation/test_{ema,a2,non_local,psa}.py, ../distribution/test_affinity.py.
* Permuting pixels or bases: of the function in ../ops/test_em_attention.py, of the modules here.
* LDv1 and LDv2, and what is left when a part is none: test_local_distribution.py and test_reductions.py.
* Gradients: finite differences of each function in ../ops; modules, networks and detached references in
  test_gradients.py.
* Precision: functions and modules against float64 in test_precision.py; against float32 in ../test_contract.py.
* torch.compile, torch.export, channels-last: test_compiled.py; one static export, and channels-last in evaluation, for
  each part in ../test_contract.py.

True with a proviso, which has a test of its own: A² as §5.4 reads it is not A² as its paper defines it; x̃ has rank ≤ K,
but the ReLU after it may raise that. test_em.py, test_k_means.py and test_local_distribution.py say the same of theirs.
"""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segcontext.aggregation import A2, ASPP, CGNL, EMA, PSA, PSP, NonLocal
from segcontext.ops.double_attention import double_attention
from segcontext.ops.em_attention import em_attention
from segcontext.ops.non_local_attention import non_local_attention

# Small enough for the published denominators to be eq. 13's own.
NO_EPS = 1e-300

KERNELS = ("exponential_inner_product", "inner_product", "euclidean", "rbf")
NORMS = ("l2", "layer_norm", "none")


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


# --- A² --------------------------------------------------------------------------------------------------------------


def double_attention_of_section_5_4(x, weights):
    """Eq. 16 as §5.4 reads it: one set of weights gives both maps, both softmaxes run over K, columns sum to one."""
    logits = torch.einsum("bnc,kc->bkn", x, weights)
    shared = logits.exp() / logits.exp().sum(1, keepdim=True)
    columns = shared / shared.sum(2, keepdim=True)
    descriptors = torch.einsum("bnc,bkn->bkc", x, columns)
    return torch.einsum("bkn,bkc->bnc", shared, descriptors)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), pixels=st.integers(1, 12), bases=st.integers(1, 5), channels=st.integers(1, 6))
def test_one_iteration_on_learned_bases_is_double_attention_as_section_5_4_reads_it(seed, pixels, bases, channels):
    """Values, and the gradients that would train pixels and weights."""
    x, weights, sign = draw(seed, (2, pixels, channels), (bases, channels), (2, pixels, channels))
    results = []
    for function in (
        lambda x, mu: em_attention(x, mu, iterations=1, norm="none", gradient="all", eps=NO_EPS).reconstruction,
        double_attention_of_section_5_4,
    ):
        given_tensors = [each.clone().requires_grad_() for each in (x, weights)]
        out = function(*given_tensors)
        results.append((out, *torch.autograd.grad((out * sign).sum(), given_tensors)))
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-10)


def test_so_is_the_unit():
    torch.manual_seed(0)
    unit = EMA(6, num_bases=4, iterations=1, upkeep="learned", norm="none").double().eval()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    drawn = double_attention_of_section_5_4(unit.conv1(x).flatten(2).mT, unit.bases)
    wanted = (x + unit.conv2(drawn.mT.reshape(x.shape).relu())).relu()
    # The published 1e-6 beside the mass remains.
    torch.testing.assert_close(unit(x).features, wanted, rtol=1e-5, atol=1e-6)


def test_the_form_of_the_a2_paper_gathers_otherwise():
    """Its gather softmax runs over the pixels; with a single map EM takes the plain mean, and A² a weighted one."""
    x, weights = draw(0, (1, 9, 4), (1, 4))
    ours = em_attention(x, weights, iterations=1, norm="none", eps=NO_EPS).reconstruction
    torch.testing.assert_close(ours, x.mean(1, keepdim=True).expand_as(x))
    logits = weights @ x.mT
    theirs = double_attention(x.mT, logits, logits).output.mT
    torch.testing.assert_close(theirs, (logits.softmax(2) @ x).expand_as(x))
    assert (theirs - ours).norm() > 0.1 * ours.norm()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), pixels=st.integers(2, 12), bases=st.integers(1, 5))
def test_the_two_forms_differ_by_what_each_pixel_divides_by(seed, pixels, bases):
    """Softmax over K divides pixel n by S_n = Σ_k exp(l_kn); softmax over pixels keeps S_n, so it needs l - log S."""
    x, weights = draw(seed, (1, pixels, 4), (bases, 4))
    ours = em_attention(x, weights, iterations=1, norm="none", eps=NO_EPS).reconstruction.mT
    logits = weights @ x.mT
    shifted = logits - logits.logsumexp(1, keepdim=True)
    torch.testing.assert_close(double_attention(x.mT, shifted, logits).output, ours, rtol=1e-9, atol=1e-10)
    assume(logits.logsumexp(1).std() > 0.1)
    assert not torch.allclose(double_attention(x.mT, logits, logits).output, ours, rtol=1e-3, atol=1e-4)


# --- Non-local -------------------------------------------------------------------------------------------------------


def eq_9(x, kernel, lam):
    """§3.3, eq. 9 for any kernel: each pixel the mean of all pixels, weighted by the kernel, pair by pair."""
    formula = {
        "exponential_inner_product": lambda a, b: np.exp(lam * (a @ b)),
        "inner_product": lambda a, b: max(a @ b, 0) + 1e-6,
        "euclidean": lambda a, b: np.exp(-lam * np.sqrt(((a - b) ** 2).sum())),
        "rbf": lambda a, b: np.exp(-lam * ((a - b) ** 2).sum()),
    }[kernel]
    weights = np.array([[formula(a, b) for b in x] for a in x])
    return weights @ x / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), pixels=st.integers(1, 12), channels=st.integers(1, 5), lam=st.floats(0.1, 2))
def test_pixels_as_bases_and_no_m_step_are_the_non_local_operation(kernel, seed, pixels, channels, lam):
    (x,) = draw(seed, (2, pixels, channels))
    found = em_attention(x, x, iterations=0, kernel=kernel, lam=lam).reconstruction
    for ours, image in zip(found, x, strict=True):
        # The Euclidean kernel has a cusp where a pixel meets itself, which costs half of the digits.
        np.testing.assert_allclose(ours, eq_9(image.numpy(), kernel, lam), rtol=1e-5, atol=1e-5)
    if kernel == "exponential_inner_product":
        fused = non_local_attention(x.mT, x.mT, x.mT, scale=lam).mT
        torch.testing.assert_close(found, fused, rtol=1e-9, atol=1e-10)


def test_so_is_the_block_and_an_m_step_ends_it():
    torch.manual_seed(0)
    block = NonLocal(4, key_channels=4, value_channels=4, zero_init=False).double().eval()
    with torch.no_grad():
        for each in (block.query, block.key, block.value):
            each.weight.copy_(torch.eye(4)[..., None, None])
        block.query.bias.zero_()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    pixels = x.flatten(2).mT
    drawn = em_attention(pixels, pixels, iterations=0).reconstruction
    torch.testing.assert_close(block(x).features, x + block.project(drawn.mT.reshape(x.shape)))
    moved = em_attention(pixels, pixels, iterations=1, norm="none").reconstruction
    assert (moved - drawn).norm() > 0.1 * drawn.norm()


# --- rank ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kernel=st.sampled_from(KERNELS),
    norm=st.sampled_from(NORMS),
    iterations=st.integers(0, 4),
    bases=st.integers(1, 5),
)
def test_the_reconstruction_has_at_most_the_rank_of_the_bases(seed, kernel, norm, iterations, bases):
    """§4: x̃ = Z μ lies in the span of K vectors."""
    x, means = draw(seed, (2, 30, 8), (bases, 8))
    found = em_attention(x, means, iterations=iterations, kernel=kernel, norm=norm).reconstruction
    values = torch.linalg.svdvals(found)
    assert (values[:, bases:] <= 1e-12 * values[:, :1]).all()
    assert torch.linalg.matrix_rank(x).tolist() == [8, 8]


def test_the_unit_adds_a_map_of_higher_rank_than_its_bases():
    """The ReLU after x̃ is not linear: what conv2 receives may have any rank."""
    torch.manual_seed(0)
    unit, x = EMA(8, num_bases=2).double().eval(), torch.randn(1, 8, 9, 9, dtype=torch.float64)
    pixels = unit.conv1(x).flatten(2).mT
    drawn = em_attention(pixels, unit.bases).reconstruction
    assert torch.linalg.matrix_rank(drawn).item() == 2
    assert torch.linalg.matrix_rank(drawn.relu()).item() > 2


# --- permutations ----------------------------------------------------------------------------------------------------


BLIND = {
    "EMA": lambda: EMA(8, num_bases=3),
    "A2": lambda: A2(8),
    "NonLocal": lambda: NonLocal(8, zero_init=False),
    "CGNL": lambda: CGNL(8, groups=2),
}
SEEING = {
    "PSP": lambda: PSP(8, out_channels=8, bins=(1, 2)),
    "ASPP": lambda: ASPP(8, out_channels=8, rates=(1, 2)),
    "PSA": lambda: PSA(8, channels=4, mask_size=5),
}


@pytest.mark.parametrize("name", [*BLIND, *SEEING])
@pytest.mark.parametrize("training", [False, True])
def test_permuting_the_pixels_permutes_the_output_of_what_does_not_know_where_they_lie(name, training):
    torch.manual_seed(0)
    module = {**BLIND, **SEEING}[name]().double().train(training)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    order = torch.randperm(30)
    moved = module(x.flatten(2)[..., order].reshape(x.shape)).features
    wanted = module(x).features.flatten(2)[..., order].reshape(moved.shape)
    assert torch.allclose(moved, wanted, rtol=1e-7, atol=1e-9) == (name in BLIND)


@pytest.mark.parametrize("upkeep", ["moving_average", "learned", "fixed"])
def test_permuting_the_bases_changes_nothing(upkeep):
    """Neither the map, nor what the bases become, other than their order."""
    torch.manual_seed(0)
    unit, twin = (EMA(8, num_bases=5, upkeep=upkeep).double().train() for _ in range(2))
    twin.load_state_dict(unit.state_dict())
    order = torch.randperm(5)
    with torch.no_grad():
        twin.bases.copy_(unit.bases[order])
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    out, other = unit(x, evidence=True), twin(x, evidence=True)
    torch.testing.assert_close(other.features, out.features)
    torch.testing.assert_close(other.evidence.maps, out.evidence.maps[:, :, order])
    unit.update_bases()
    twin.update_bases()
    torch.testing.assert_close(twin.bases, unit.bases[order], rtol=1e-6, atol=1e-6)
