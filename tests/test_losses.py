import subprocess
import sys
from datetime import timedelta

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segcontext.losses import OHEM, cross_entropy, valid_weight

CLASSES, VOID = 4, 255


def crops(batch=3, *, size=(5, 7), void=0.2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, CLASSES, *size, generator=generator, dtype=torch.float64)
    target = torch.randint(0, CLASSES, (batch, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.to(dtype), target


WEIGHTS = [None, torch.tensor([0.5, 2.0, 1.0, 0.1])]
weighted = pytest.mark.parametrize("weights", WEIGHTS, ids=["plain", "weighted"])


def slow(logits, target, weights, *, kept=None):
    """Σ w·(-log p) and Σ w, pixel by pixel."""
    total = weight = 0.0
    for place in (target != VOID if kept is None else kept).nonzero().tolist():
        image, y, x = place
        label = int(target[image, y, x])
        share = 1.0 if weights is None else float(weights[label])
        probability = logits[image, :, y, x].exp() / logits[image, :, y, x].exp().sum()
        total -= share * float(probability[label].log())
        weight += share
    return total, weight


@weighted
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_matches_the_sum_over_pixels_and_pytorchs_mean(weights, dtype):
    logits, target = crops()
    found = cross_entropy(logits, target.to(dtype), class_weights=weights)
    assert (float(found.total), float(found.weight)) == pytest.approx(slow(logits, target, weights), rel=1e-6)
    wanted = F.cross_entropy(logits, target, weight=None if weights is None else weights.double(), ignore_index=VOID)
    torch.testing.assert_close(found.total / found.weight, wanted, rtol=1e-7, atol=0)
    assert found.weight.dtype == torch.float64
    torch.testing.assert_close(valid_weight(target.to(dtype), class_weights=weights), found.weight)


@weighted
def test_gradients_follow_the_total(weights):
    logits, target = crops(1, size=(2, 3))
    assert torch.autograd.gradcheck(
        lambda x: cross_entropy(x, target, class_weights=weights).total, logits.requires_grad_()
    )


@weighted
@pytest.mark.parametrize("loss", ["cross_entropy", "ohem"])
def test_nothing_but_void_gives_zero_with_gradients_of_zero(weights, loss):
    logits, target = crops()
    target[:] = VOID
    logits.requires_grad_()
    if loss == "ohem":
        found = OHEM(class_weights=weights)(logits, target)
    else:
        found = cross_entropy(logits, target, class_weights=weights)
    found.total.backward()
    assert found.total.item() == found.weight.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@weighted
@settings(max_examples=10, deadline=None)
@given(parts=st.lists(st.integers(1, 3), min_size=1, max_size=4), void=st.sampled_from([0.0, 0.5, 0.95]))
def test_splitting_a_batch_changes_nothing(weights, parts, void):
    logits, target = crops(sum(parts), void=void)
    whole = cross_entropy(logits, target, class_weights=weights)
    split = [
        cross_entropy(*each, class_weights=weights)
        for each in zip(logits.split(parts), target.split(parts), strict=True)
    ]
    torch.testing.assert_close(sum(each.total for each in split), whole.total)
    torch.testing.assert_close(sum(each.weight for each in split), whole.weight)


def test_half_precision_logits_are_summed_wide():
    logits, target = crops(size=(40, 50), dtype=torch.bfloat16)
    found = cross_entropy(logits, target)
    assert found.total.dtype == torch.float32
    wanted, _ = slow(logits[:1, :, :4, :4].double(), target[:1, :4, :4], None)
    small = cross_entropy(logits[:1, :, :4, :4], target[:1, :4, :4]).total
    assert float(small) == pytest.approx(wanted, rel=1e-5)


def test_another_void_can_be_named():
    logits, target = crops()
    found = cross_entropy(logits, target.where(target != VOID, 200), ignore_index=200)
    torch.testing.assert_close(found.total, cross_entropy(logits, target).total)


def hard(logits, target, *, threshold, min_kept):
    """The published selection: sort the probabilities of the true classes, keep what lies up to the limit."""
    index = target.where(target != VOID, 0)
    probability = logits.softmax(1).gather(1, index[:, None])[:, 0]
    ranked = sorted(probability[target != VOID].tolist())
    limit = threshold
    if min_kept and ranked:
        limit = max(threshold, ranked[min(min_kept, len(ranked)) - 1])
    return (target != VOID) & (probability <= limit)


@weighted
@pytest.mark.parametrize(
    ("threshold", "min_kept"), [(0.7, 0), (0.1, 0), (0.1, 20), (0.7, 1), (1e-9, 3), (0.5, 10_000), (1.0, 0)]
)
def test_ohem_matches_a_slow_reference(weights, threshold, min_kept):
    logits, target = crops()
    found = OHEM(threshold=threshold, min_kept=min_kept, class_weights=weights)(logits, target)
    kept = hard(logits, target, threshold=threshold, min_kept=min_kept)
    assert kept.sum() >= min(min_kept, int((target != VOID).sum()))
    assert (float(found.total), float(found.weight)) == pytest.approx(slow(logits, target, weights, kept=kept))


def test_ohem_learns_from_the_kept_pixels_alone():
    logits, target = crops()
    logits.requires_grad_()
    OHEM(threshold=0.2, min_kept=5)(logits, target).total.backward()
    kept = hard(logits.detach(), target, threshold=0.2, min_kept=5)
    assert 5 <= kept.sum() < (target != VOID).sum()
    assert torch.equal(logits.grad.abs().sum(1) > 0, kept)


def test_ohem_keeps_nothing_where_nothing_is_hard():
    logits = torch.zeros(1, 2, 3, 3)
    logits[:, 1] = 50
    found = OHEM(threshold=0.7, min_kept=0)(logits.requires_grad_(), torch.ones(1, 3, 3, dtype=torch.int64))
    found.total.backward()
    assert found.total.item() == found.weight.item() == 0
    assert not logits.grad.any()


def test_the_global_scope_is_the_process_where_there_is_one():
    logits, target = crops()
    both = [OHEM(threshold=0.2, min_kept=30, scope=scope)(logits, target) for scope in ("process", "global")]
    assert both[0] == both[1]


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.1}, {"min_kept": -1}, {"scope": "node"}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="OHEM wants a threshold"):
        OHEM(**options)


# Two images for one rank and one for the other; the last case leaves the second rank nothing but void.
CASES = [(0.3, 0), (0.01, 12), (0.01, 60), (0.01, 10_000), (0.2, 7)]


def shares(case):
    logits, target = crops()
    if case == len(CASES) - 1:
        target[2:] = VOID
    return logits, target


def take_part(rank, store, folder):
    torch.distributed.init_process_group(
        "gloo", f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        found = []
        for case, (threshold, min_kept) in enumerate(CASES):
            mine = slice(0, 2) if rank == 0 else slice(2, 3)
            logits, target = (each[mine] for each in shares(case))
            for scope in ("global", "process"):
                loss = OHEM(threshold=threshold, min_kept=min_kept, scope=scope)
                found.append(torch.stack([each.double() for each in loss(logits, target)]))
        torch.save(torch.stack(found), f"{folder}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_mine_as_one_where_the_scope_is_global(tmp_path):
    arguments = (str(tmp_path / "store"), str(tmp_path))
    # This process is the first rank, so that only one more has to start.
    with subprocess.Popen([sys.executable, __file__, *arguments]) as second:
        take_part(0, *arguments)
    assert second.returncode == 0
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case, (threshold, min_kept) in enumerate(CASES):
        logits, target = shares(case)
        options = {"threshold": threshold, "min_kept": min_kept}
        together = slow(logits, target, None, kept=hard(logits, target, **options))
        assert (ranks[0] + ranks[1])[2 * case].tolist() == pytest.approx(together)
        for rank, mine in enumerate((slice(0, 2), slice(2, 3))):
            part = (logits[mine], target[mine])
            wanted = slow(*part, None, kept=hard(*part, **options))
            assert ranks[rank][2 * case + 1].tolist() == pytest.approx(wanted)


if __name__ == "__main__":
    # The second rank of the two-process test.
    torch.set_num_threads(1)
    take_part(1, *sys.argv[1:])
