"""Several views' answers fused into labels, against adding them up at image size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segcontext.errors import KernelError
from segcontext.inference import Protocol
from segcontext.inference.fusing import fused_labels
from segcontext.inference.views import Answer
from segcontext.ops.implementations import use_implementation
from segcontext.types import Output


def answers(seed, size, scales, flips, *, classes=5, stride=8, batch=1, padding=0, align_corners=True, strength=3.0):
    draw = torch.Generator().manual_seed(seed)
    common = torch.randn(batch, classes, 5, 7, generator=draw)
    views = []
    for scale in scales:
        height, width = (max(1, round(side * scale)) for side in size)
        whole = (height + padding, width + padding)
        features = tuple(-(-side // stride) for side in whole)
        for flipped in flips:
            logits = common + 0.3 * torch.randn(batch, classes, 5, 7, generator=draw)
            logits = strength * F.interpolate(logits, size=features, mode="bilinear")
            logits = logits.flip(-1).contiguous() if flipped else logits
            views.append(Answer(Output(logits, whole, align_corners), (height, width), flipped))
    return views


def plain_sum(views, size, protocol):
    """The same in float64, one view after the other."""
    total = 0
    for view in views:
        logits = view.output.features_logits.double()
        mode = {"mode": "bilinear", "align_corners": view.output.align_corners}
        answer = F.interpolate(logits, size=view.output.size, **mode)[..., : view.size[0], : view.size[1]]
        answer = F.interpolate(answer, size=size, mode="bilinear", align_corners=False)
        answer = answer.softmax(1) if protocol.average == "probabilities" else answer
        total = total + (answer.flip(-1) if view.flipped else answer)
    return total


def shortfall(labels, total):
    """By how much the classes that were named are below the largest."""
    return (total.amax(1) - total.gather(1, labels.long()[:, None])[:, 0]).max().item()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(60, 120), st.integers(60, 150)),
    scales=st.lists(st.sampled_from([0.5, 0.75, 1.0, 1.3, 2.0]), min_size=1, max_size=3),
    flips=st.sampled_from([(False,), (False, True)]),
    classes=st.integers(1, 25),
    stride=st.sampled_from([2, 4, 8]),
    batch=st.integers(1, 2),
    padding=st.integers(0, 7),
    align_corners=st.booleans(),
    average=st.sampled_from(["probabilities", "logits"]),
    strength=st.sampled_from([0.1, 3.0, 30.0, 300.0]),
)
def test_the_classes_named_have_the_largest_sums(
    seed, size, scales, flips, classes, stride, batch, padding, align_corners, average, strength
):
    options = {"stride": stride, "batch": batch, "padding": padding, "align_corners": align_corners}
    views = answers(seed, size, scales, flips, classes=classes, strength=strength, **options)
    protocol = Protocol(scales=tuple(scales), flip=len(flips) > 1, average=average)
    alone = len(views) == 1
    total = plain_sum(views, size, Protocol(average="logits") if alone else protocol)
    softmax = average == "probabilities" and not alone
    # Logits of 300 are off by their last digit, and a probability by as much as they are.
    tolerance = 2e-6 * len(views) * (max(1.0, 3 * strength))
    for form in ("native", "reference"):
        with use_implementation(form):
            labels = fused_labels(views, size, protocol)
        assert (labels.dtype, labels.shape) == (torch.uint8, (batch, *size))
        assert shortfall(labels, total) <= (tolerance if softmax else 3 * tolerance)


def test_a_class_that_leads_in_places_only_does_not_hide_another():
    views = answers(0, (60, 60), (0.75, 0.5), (False,), classes=4, strength=30.0, align_corners=False, stride=2)
    protocol = Protocol(scales=(0.75, 0.5))
    with use_implementation("native"):
        labels = fused_labels(views, (60, 60), protocol)
    assert shortfall(labels, plain_sum(views, (60, 60), protocol)) < 1e-4


@pytest.mark.parametrize(
    ("scales", "doing"),
    [((0.5, 1.0), ("segcontext.inference.fusing", "_fuse")), ((1.0,), ("segcontext.ops.resized_argmax", "_native"))],
)
def test_the_form_that_is_named_runs(watched, scales, doing):
    views, protocol = answers(1, (90, 130), scales, (False,)), Protocol(scales=scales)
    called = watched(doing)
    with use_implementation("reference", strict=True):
        fused_labels(views, (90, 130), protocol, implementation="native")
        assert called == [doing[1]]
        with pytest.raises(KernelError, match="cannot run as triton: no CUDA device"):
            fused_labels(views, (90, 130), protocol, implementation="triton")
    with use_implementation("native"):
        found = [fused_labels(views, (90, 130), protocol, implementation=form) for form in ("reference", "triton")]
    assert called == [doing[1]]
    assert torch.equal(*found)


def test_half_precision_and_channels_last():
    views = answers(3, (90, 130), (0.5, 1.0), (False, True), align_corners=False)
    protocol = Protocol(scales=(0.5, 1.0), flip=True)
    for change in (torch.Tensor.bfloat16, lambda logits: logits.to(memory_format=torch.channels_last)):
        changed = [
            view._replace(output=view.output._replace(features_logits=change(view.output.features_logits)))
            for view in views
        ]
        with use_implementation("native"):
            labels = fused_labels(changed, (90, 130), protocol)
        assert shortfall(labels, plain_sum(changed, (90, 130), protocol)) < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_added_up_plainly(value, caplog):
    views = answers(4, (90, 130), (0.5, 1.0), (False,))
    views[1].output.features_logits[0, 2, 3, 4] = value
    protocol = Protocol(scales=(0.5, 1.0))
    found = []
    for form in ("auto", "reference"):
        with use_implementation(form):
            found.append(fused_labels(views, (90, 130), protocol))
    assert torch.equal(*found)


def test_features_too_small_for_the_compiled_form():
    views = answers(5, (9, 11), (0.5, 1.0), (False, True))
    protocol = Protocol(scales=(0.5, 1.0), flip=True)
    assert shortfall(fused_labels(views, (9, 11), protocol), plain_sum(views, (9, 11), protocol)) < 1e-5


@pytest.mark.parametrize("size", [(16, 512), (40, 300), (512, 16)])
@pytest.mark.parametrize("scales", [(0.5, 2.0), (0.25, 4.0)])
def test_views_of_very_different_sizes(size, scales):
    """A view with fewer rows of features than another has weights for."""
    views = answers(0, size, scales, (False, True))
    protocol = Protocol(scales=scales, flip=True)
    with use_implementation("native"):
        labels = fused_labels(views, size, protocol)
    assert labels.max() < 5
    assert shortfall(labels, plain_sum(views, size, protocol)) < 1e-5
