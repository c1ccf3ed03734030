"""Labels straight from the features' logits, against upsampling them all."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segcontext.errors import ShapeError
from segcontext.ops import label_dtype, resized_argmax
from segcontext.ops.bilinear import places
from segcontext.ops.resized_argmax import argmax_in_parts


def smooth(seed, shape, grain):
    draw = torch.Generator().manual_seed(seed)
    batch, classes, height, width = shape
    coarse = torch.randn(batch, classes, -(-height // grain), -(-width // grain), generator=draw)
    logits = F.interpolate(coarse, size=(height, width), mode="bilinear")
    return logits + 0.05 * torch.randn(shape, generator=draw)


def assert_labels(found, logits, size, align_corners):
    """The labels are those of the upsampled logits, but where two classes are nearer to each other than rounding."""
    exact = F.interpolate(logits.double().contiguous(), size=size, mode="bilinear", align_corners=align_corners)
    exact = exact[..., : found.shape[1], : found.shape[2]]
    chosen = exact.gather(1, found.long()[:, None])[:, 0]
    assert (exact.amax(1) - chosen).max() <= 1e-6 * logits.abs().max()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 2),
    classes=st.integers(1, 30),
    features=st.tuples(st.integers(1, 30), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 90), st.integers(40, 150)),
    grain=st.integers(1, 9),
    align_corners=st.booleans(),
    layout=st.sampled_from(["contiguous", "channels_last", "sliced", "bfloat16", "half"]),
)
def test_both_forms_name_the_same_classes(seed, batch, classes, features, size, grain, align_corners, layout):
    logits = smooth(seed, (batch, classes, *features), grain)
    if layout == "channels_last":
        logits = logits.to(memory_format=torch.channels_last)
    if layout == "sliced":
        logits = F.pad(logits, (1, 2, 0, 1))[..., :-1, 1:-2]
    if layout in ("bfloat16", "half"):
        logits = logits.to(getattr(torch, layout))
    crop = (max(1, size[0] - seed % 9), max(1, size[1] - seed % 7))
    labels = {
        form: resized_argmax(logits, size, align_corners=align_corners, crop=crop, implementation=form)
        for form in ("native", "reference")
    }
    for found in labels.values():
        assert (found.dtype, found.shape) == (torch.uint8, (batch, *crop))
        assert_labels(found, logits.float(), size, align_corners)


@pytest.mark.parametrize("classes", [2, 11, 19, 171, 1000])
@pytest.mark.parametrize("align_corners", [False, True])
def test_many_classes(classes, align_corners):
    logits = smooth(classes, (1, classes, 23, 31), 6)
    found = resized_argmax(logits, (181, 245), align_corners=align_corners, implementation="native")
    assert found.dtype == label_dtype(classes)
    assert_labels(found, logits, (181, 245), align_corners)
    wanted = resized_argmax(logits, (181, 245), align_corners=align_corners, implementation="reference")
    assert (found != wanted).float().mean() < 1e-4


def test_ties_go_to_the_first_class():
    logits = torch.zeros(1, 5, 20, 20)
    logits[:, 3:] = 1
    assert (resized_argmax(logits, (100, 100), align_corners=False, implementation="native") == 3).all()


def test_random_logits_where_every_cell_is_contested():
    logits = torch.randn(1, 40, 30, 30, generator=torch.Generator().manual_seed(0))
    found = resized_argmax(logits, (240, 240), align_corners=False, implementation="native")
    assert_labels(found, logits, (240, 240), False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_left_to_the_reference(value):
    logits = smooth(1, (1, 4, 20, 20), 4)
    logits[0, 2, 5, 6] = value
    forms = [
        resized_argmax(logits, (90, 91), align_corners=True, implementation=form) for form in ("auto", "reference")
    ]
    assert torch.equal(*forms)


def test_what_is_no_number_is_largest_in_whichever_part_it_is():
    logits = torch.randn(1, 12, 1, 4)
    logits[0, 10, 0, 0] = logits[0, 1, 0, 1] = logits[0, 6, 0, 1] = logits[0, 5, 0, 2] = float("nan")
    logits[0, 11, 0, 2] = float("inf")
    # So many pixels that four classes are made at a time.
    found = argmax_in_parts(logits, lambda part: part, 2**23)
    assert torch.equal(found, logits.argmax(1))


def test_float64_and_small_sizes_run_as_the_reference():
    logits = smooth(2, (1, 4, 9, 9), 3).double()
    assert torch.equal(
        resized_argmax(logits, (90, 91), align_corners=False),
        F.interpolate(logits, size=(90, 91), mode="bilinear").argmax(1).byte(),
    )
    small = logits.float()
    wanted = F.interpolate(small, size=(30, 40), mode="bilinear").argmax(1)
    assert torch.equal(resized_argmax(small, (30, 40), align_corners=False), wanted.byte())


class Labels(torch.nn.Module):
    def forward(self, logits):
        return resized_argmax(logits, (90, 91), align_corners=False)


def test_exported_programs_hold_the_reference():
    first, other = (smooth(seed, (1, 4, 9, 9), 3) for seed in (3, 4))
    program = torch.export.export(Labels(), (first,)).module()
    assert torch.equal(program(other), resized_argmax(other, (90, 91), align_corners=False, implementation="reference"))


@pytest.mark.parametrize(("values", "pixels"), [(1, 5), (7, 1), (9, 9), (16, 128), (23, 180), (50, 33)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_places_are_those_of_pytorch(values, pixels, align_corners):
    found = places(values, pixels, align_corners)
    line = torch.arange(values, dtype=torch.float64)
    after = np.minimum(found.first + 1, values - 1)
    mine = found.before * found.first.astype(np.float64) + found.behind * after
    size = (1, pixels)
    theirs = F.interpolate(line[None, None, None], size=size, mode="bilinear", align_corners=align_corners)
    np.testing.assert_allclose(mine, theirs[0, 0, 0].numpy(), atol=1e-5 * values)
    assert (np.diff(found.first) >= 0).all()


@pytest.mark.parametrize(
    ("logits", "crop", "words"),
    [
        (torch.zeros(3, 4, 5), None, r"\(B, classes, h, w\)"),
        (torch.zeros(1, 3, 4, 5).int(), None, "floats"),
        (torch.zeros(1, 3, 0, 5), None, "none of them 0"),
        (torch.zeros(1, 3, 4, 5), (201, 10), "201×10"),
        (torch.zeros(1, 3, 4, 5), (0, 10), "0×10"),
    ],
)
def test_wrong_input_is_refused(logits, crop, words):
    with pytest.raises(ShapeError, match=words):
        resized_argmax(logits, (200, 200), align_corners=False, crop=crop)
