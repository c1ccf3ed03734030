"""Calibration against loops over pixels and against torchmetrics; confidence and entropy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.errors import LabelError, RecipeError, ShapeError
from segcontext.metrics import CalibrationCounts, calibration_counts, confidence, entropy, reliability


def random_answers(seed, *, batch=2, classes=4, height=9, width=7, void=0.1):
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, height, width, generator=draw)
    target = torch.randint(0, classes, (batch, height, width), generator=draw)
    target = torch.where(torch.rand(target.shape, generator=draw) < 0.5, logits.argmax(1), target)
    target[torch.rand(target.shape, generator=draw) < void] = 255
    return logits.softmax(1), target


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), bins=st.integers(1, 20), void=st.sampled_from([0.0, 0.3]))
def test_it_equals_the_definition(seed, bins, void):
    probabilities, target = random_answers(seed, void=void)
    sums = np.zeros((bins, 3))
    for image, labels in zip(probabilities.double().numpy(), target.numpy(), strict=True):
        for row, column in zip(*np.nonzero(labels != 255), strict=True):
            shares = image[:, row, column]
            place = max(math.ceil(shares.max() * bins) - 1, 0)
            sums[place] += 1, shares.argmax() == labels[row, column], shares.max()
    found = reliability(calibration_counts(probabilities, target, bins=bins))
    pixels, right, sure = sums.T
    assert found.pixels.tolist() == pixels.tolist()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.bin_accuracy.numpy(), right / pixels, rtol=1e-14)
        np.testing.assert_allclose(found.bin_confidence.numpy(), sure / pixels, rtol=1e-14)
    assert found.ece == pytest.approx(np.abs(right - sure).sum() / pixels.sum(), rel=1e-12)
    assert found.accuracy == pytest.approx(right.sum() / pixels.sum(), rel=1e-14)
    assert found.confidence == pytest.approx(sure.sum() / pixels.sum(), rel=1e-14)
    assert found.edges.tolist() == pytest.approx([edge / bins for edge in range(bins + 1)])


@pytest.mark.parametrize("bins", [5, 15])
def test_agrees_with_torchmetrics(bins):
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, target = random_answers(4, batch=3, classes=6, height=30, width=30)
    expected = multiclass_calibration_error(probabilities, target, 6, n_bins=bins, ignore_index=255)
    assert reliability(calibration_counts(probabilities, target, bins=bins)).ece == pytest.approx(
        expected.item(), abs=1e-5
    )


def test_a_bin_holds_its_upper_edge():
    shares = torch.tensor([0.5, 0.625, 0.75, 0.875, 1.0])
    probabilities = torch.stack([shares, 1 - shares])[:, None]
    counts = calibration_counts(probabilities, torch.zeros(1, 5, dtype=torch.int64), bins=4)
    assert counts[:, 0].tolist() == [0, 1, 2, 2]
    certain = torch.tensor([[[1.0000002]], [[0.0]]])
    assert reliability(calibration_counts(certain, torch.zeros(1, 1, dtype=torch.int64))).ece == 0


def test_one_that_is_as_right_as_it_is_sure_is_calibrated():
    probabilities = torch.tensor([0.75, 0.25]).view(2, 1, 1).expand(2, 1, 8)
    target = torch.tensor([[0] * 6 + [1] * 2])
    assert reliability(calibration_counts(probabilities, target)).ece == 0
    assert reliability(calibration_counts(probabilities, torch.zeros_like(target))).ece == 0.25


def test_nothing_but_void_is_nan():
    found = reliability(calibration_counts(torch.ones(1, 1, 2, 2), torch.full((1, 2, 2), 255)))
    assert all(math.isnan(value) for value in (found.ece, found.accuracy, found.confidence))
    assert found.bin_accuracy.isnan().all()
    assert found.bin_confidence.isnan().all()


def test_the_metric_is_the_same_to_the_last_bit_in_any_order():
    probabilities, target = random_answers(9, batch=12)
    expected = calibration_counts(probabilities, target)
    assert expected.dtype == torch.int64
    metric = CalibrationCounts()
    for part in torch.randperm(12, generator=torch.Generator().manual_seed(0)).split(5):
        metric.update(probabilities[part], target[part])
    assert torch.equal(metric.compute(), expected)
    single = sum(calibration_counts(image, labels) for image, labels in zip(probabilities, target, strict=True))
    assert torch.equal(single, expected)


@pytest.mark.parametrize(
    ("probabilities", "target", "bins", "error", "words"),
    [
        (torch.ones(1, 2, 3, 3), torch.zeros(1, 3, 4).long(), 15, ShapeError, r"\(1, 3, 4\)"),
        (torch.ones(3, 3), torch.zeros(3, 3).long(), 15, ShapeError, "B, classes, H, W"),
        (torch.ones(2, 3, 3).long(), torch.zeros(3, 3).long(), 15, ShapeError, "floats"),
        (torch.full((2, 3, 3), 4.0), torch.zeros(3, 3).long(), 15, ShapeError, "reach from 4 to 4.*softmax"),
        (torch.full((2, 3, 3), math.nan), torch.zeros(3, 3).long(), 15, ShapeError, "between 0 and 1"),
        (torch.ones(2, 3, 3), torch.zeros(3, 3), 15, ShapeError, "integers"),
        (torch.ones(2, 3, 3), torch.full((3, 3), 2), 15, LabelError, "0..1"),
        (torch.ones(2, 3, 3), torch.zeros(3, 3).long(), 0, RecipeError, "bins from 1 up, not 0"),
    ],
)
def test_wrong_input_is_refused(probabilities, target, bins, error, words):
    with pytest.raises(error, match=words):
        calibration_counts(probabilities, target, bins=bins)


def test_confidence_and_entropy_of_each_pixel():
    probabilities, _ = random_answers(2, batch=1, classes=5)
    found, spread = confidence(probabilities), entropy(probabilities)
    assert found.shape == spread.shape == (1, 9, 7)
    for row, column in np.ndindex(9, 7):
        shares = probabilities[0, :, row, column].double()
        assert found[0, row, column].item() == pytest.approx(shares.max().item())
        assert spread[0, row, column].item() == pytest.approx(-(shares * shares.log()).sum().item(), rel=1e-5)
    torch.testing.assert_close(entropy(probabilities, normalised=True), spread / math.log(5))


def test_the_ends_of_confidence_and_entropy():
    even, sure = torch.full((4, 2, 2), 0.25), torch.zeros(4, 2, 2)
    sure[1] = 1
    assert confidence(even).unique().tolist() == [0.25]
    assert confidence(sure).unique().tolist() == [1]
    torch.testing.assert_close(entropy(even, normalised=True), torch.ones(2, 2))
    assert entropy(sure).abs().max() == 0
    assert entropy(torch.ones(1, 2, 2), normalised=True).abs().max() == 0
    with pytest.raises(ShapeError, match="classes, H, W"):
        entropy(torch.ones(2, 2))
    with pytest.raises(ShapeError, match="softmax"):
        confidence(torch.full((2, 2, 2), -3.0))
