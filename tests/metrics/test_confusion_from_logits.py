"""Counts straight from logits against labels that are counted."""

import pytest
import torch
from torch.nn import functional as F

from segcontext.errors import KernelError, LabelError, RecipeError, ShapeError
from segcontext.metrics import confusion_from_logits, confusion_matrix
from segcontext.ops import implementations, use_implementation


@pytest.mark.parametrize("form", ["auto", "native", "reference"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_same_as_counting_labels(form, align_corners, caplog):
    logits, target = torch.randn(2, 5, 7, 9), torch.randint(0, 5, (2, 50, 61), dtype=torch.uint8)
    target[0, :9] = 255
    resized = F.interpolate(logits, (64, 80), mode="bilinear", align_corners=align_corners)[..., :50, :61]
    with use_implementation(form):
        found = confusion_from_logits(logits, target, size=(64, 80), align_corners=align_corners)
    assert torch.equal(found, confusion_matrix(resized.argmax(1), target, 5))
    assert not caplog.records


def test_the_form_that_is_named_runs(watched):
    places = [("segcontext.ops.resized_argmax", "_native"), ("segcontext.metrics.confusion", "count_natively")]
    called = watched(*places)
    logits, target = torch.randn(1, 5, 7, 9), torch.randint(0, 5, (1, 64, 80))
    with use_implementation("reference"):
        found = confusion_from_logits(logits, target, implementation="native")
    assert called == ["_native", "count_natively"]
    with use_implementation("native"):
        wanted = confusion_from_logits(logits, target, implementation="reference")
    assert called == ["_native", "count_natively"]
    assert torch.equal(found, wanted)


def test_a_form_that_cannot_run(monkeypatch, caplog):
    monkeypatch.setattr(implementations, "_TOLD", set())
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 9, 9))
    found = confusion_from_logits(logits, target, implementation="triton")
    assert torch.equal(found, confusion_from_logits(logits, target))
    assert "confusion_from_logits runs in its reference form and not as triton: no CUDA device" in caplog.text
    with use_implementation("reference", strict=True), pytest.raises(KernelError, match="cannot run as triton"):
        confusion_from_logits(logits, target, implementation="triton")
    with pytest.raises(RecipeError, match="must be one of"):
        confusion_from_logits(logits, target, implementation="cuda")


def test_what_does_not_fit():
    logits = torch.randn(1, 3, 4, 4)
    with pytest.raises(ShapeError, match="Expected logits"):
        confusion_from_logits(logits, torch.zeros(8, 8, dtype=torch.int64))
    with pytest.raises(ShapeError, match="does not lie within"):
        confusion_from_logits(logits, torch.zeros(1, 8, 8, dtype=torch.int64), size=(7, 9))
    with pytest.raises(LabelError, match="holds 3"):
        confusion_from_logits(logits, torch.full((1, 8, 8), 3))
