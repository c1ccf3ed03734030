"""Compiled loops count what the plain forms count."""

import os
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.data import open_dataset
from segcontext.errors import KernelError, LabelError
from segcontext.metrics import (
    PAPER_SLACKS,
    boundary_matches,
    boundary_tally,
    confusion_matrix,
    size_counts,
)
from segcontext.metrics.maps import as_maps, present
from segcontext.ops.implementations import use_implementation

FORMS = ("native", "reference")


def both(call):
    found = []
    for form in FORMS:
        with use_implementation(form):
            found.append(call())
    return found


def labels(seed, shape, classes, coarse):
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, classes, (-(-shape[0] // coarse), -(-shape[1] // coarse)))
    target = cells.repeat(coarse, 0).repeat(coarse, 1)[: shape[0], : shape[1]]
    prediction = np.roll(target, draw.integers(-3, 4, 2), (0, 1))
    prediction = np.where(draw.random(shape) < 0.02, draw.integers(0, classes, shape), prediction)
    return prediction, np.where(draw.random(shape) < 0.05, 255 if classes <= 255 else -1, target)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 60),
    width=st.integers(1, 300),
    classes=st.sampled_from([1, 2, 5, 19, 65, 171, 300]),
    coarse=st.integers(1, 200),
    slacks=st.lists(st.floats(1, 400), min_size=1, max_size=5),
)
def test_boundaries_of_any_number_of_classes(seed, height, width, classes, coarse, slacks):
    prediction, target = labels(seed, (height, width), classes, coarse)
    maps = [found[0] for found in as_maps(prediction, target, classes, -1 if classes > 255 else 255)]
    native, plain = both(lambda: boundary_matches(*maps, classes, slacks))
    for mine, theirs in zip(native, plain, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    classes=st.sampled_from([2, 255, 256]),
    slacks=st.lists(st.one_of(st.floats(1, 12), st.floats(50, 80), st.floats(1, 400)), min_size=1, max_size=5),
)
def test_boundaries_far_from_each_other(seed, shape, classes, slacks):
    draw = np.random.default_rng(seed)
    maps = np.zeros((2, *shape), np.int32)
    # The last class is the one that might be taken for void.
    for map_ in maps:
        top, left = draw.integers(0, shape)
        map_[top : top + draw.integers(1, 9), left : left + draw.integers(1, 70)] = classes - 1
        map_[: draw.integers(0, 3)] = -1
    native, plain = both(lambda: boundary_matches(*maps, classes, slacks))
    for mine, theirs in zip(native, plain, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_form_that_is_named_counts_boundaries(watched):
    called = watched(("segcontext.metrics.boundary_matches", "count_matches"))
    maps = [found[0] for found in as_maps(*labels(0, (30, 40), 3, 9), 3, 255)]
    with use_implementation("reference", strict=True):
        native = boundary_matches(*maps, 3, [2], implementation="native")
        assert called == ["count_matches"]
        with pytest.raises(KernelError, match="boundary_matches cannot run as triton: labels that are no maps"):
            boundary_matches(*maps, 3, [2], implementation="triton")
    with use_implementation("native"):
        found = [boundary_matches(*maps, 3, [2], implementation=form) for form in ("reference", "triton")]
    assert called == ["count_matches"]
    for each in found:
        assert all((mine == theirs).all() for mine, theirs in zip(native, each, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_boundaries_on_several_threads(threads):
    prediction, target = labels(threads, (200, 333), 7, 40)
    maps = [found[0] for found in as_maps(prediction, target, 7, 255)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        native, plain = both(lambda: boundary_matches(*maps, 7, [1, 2.5, 9, 100]))
    finally:
        torch.set_num_threads(before)
    assert all((mine == theirs).all() for mine, theirs in zip(native, plain, strict=True))


@pytest.mark.parametrize("square", [2, 3, 5, 8, 13, 10**4])
def test_a_slack_that_is_a_root_reaches_exactly_so_far(square):
    shape = (130, 130)
    prediction, target = labels(square, shape, 3, 30)
    maps = [found[0] for found in as_maps(prediction, target, 3, 255)]
    root = float(np.sqrt(square))
    slacks = [root, np.nextafter(root, 0), np.nextafter(root, 1e9)]
    native, plain = both(lambda: boundary_matches(*maps, 3, slacks))
    assert all((mine == theirs).all() for mine, theirs in zip(native, plain, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    classes=st.sampled_from([1, 2, 19, 200, 300]),
    coarse=st.integers(1, 40),
    types=st.sampled_from(["uint8", "int64", "mixed", "tensors", "fortran"]),
)
def test_confusions_and_maps(seed, shape, classes, coarse, types):
    prediction, target = labels(seed, shape, classes, coarse)
    void = 255 if classes <= 255 else -1
    # What is predicted under void is not read.
    prediction = np.where(target == void, 255, prediction)
    if types in ("uint8", "mixed") and classes <= 255:
        target = target.astype(np.uint8)
        prediction = prediction.astype(np.uint8 if types == "uint8" else np.int16)
    if types == "tensors":
        prediction, target = torch.from_numpy(prediction)[:, ::2], torch.from_numpy(target)[:, ::2]
    if types == "fortran":
        prediction = np.asfortranarray(prediction)
    native, plain = both(lambda: confusion_matrix(prediction, target, classes, ignore_index=void))
    assert torch.equal(native, plain)
    assert native.dtype == torch.int64
    native, plain = both(lambda: as_maps(prediction, target, classes, void))
    for mine, theirs in zip(native, plain, strict=True):
        assert mine.dtype == np.int32
        np.testing.assert_array_equal(mine, theirs)
    native, plain = both(lambda: present(as_maps(prediction, target, classes, void)[0], classes))
    np.testing.assert_array_equal(native, plain)


@pytest.mark.parametrize("place", [0, 7, 8, 500_003])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("side", ["The prediction", "The target"])
def test_what_is_no_class_is_refused_wherever_it_is(place, dtype, side):
    prediction, target = np.zeros((2, 500_004), dtype)
    (prediction if side == "The prediction" else target)[place] = 7
    with pytest.raises(LabelError, match=f"{side} may hold 0..2.* holds 7"):
        confusion_matrix(prediction, target, 3)
    with pytest.raises(LabelError, match=f"{side} may hold 0..2.* holds 7"):
        as_maps(prediction[None], target[None], 3, 255)


@pytest.mark.skipif("SEGCONTEXT_CAMVID" not in os.environ, reason="names the CamVid folder")
def test_real_labels():
    dataset = open_dataset(os.environ["SEGCONTEXT_CAMVID"], "val")
    # Each frame's labels stand for a prediction of the next one's, twice their size to reach the paper's slacks.
    masks = [np.asarray(dataset[index].mask).repeat(2, 0).repeat(2, 1) for index in (0, 1, 40, 41)]
    for truth, other in ((masks[0], masks[1]), (masks[2], masks[3])):
        pair = (np.where(other == 255, 0, other), truth)
        calls = [
            partial(boundary_tally, *pair, 11, PAPER_SLACKS, protocol="paper"),
            partial(boundary_tally, *pair, 11, PAPER_SLACKS, protocol="strict"),
            partial(size_counts, *pair, 11),
            partial(confusion_matrix, *pair, 11),
        ]
        for call in calls:
            native, plain = both(call)
            assert torch.equal(native, plain)


@pytest.mark.parametrize("form", FORMS)
def test_arrays_that_may_only_be_read(form):
    """As Pillow hands them out."""
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
    frozen = labels.copy()
    frozen.flags.writeable = False
    with use_implementation(form):
        assert confusion_matrix(frozen, frozen, 3).diagonal().sum() == 64
        assert torch.equal(
            boundary_tally(frozen, labels[::-1], 3, (1,)), boundary_tally(labels, labels[::-1].copy(), 3, (1,))
        )
