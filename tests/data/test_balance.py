import math

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from segcontext.data.balance import Frequencies, class_frequencies, class_weights
from segcontext.data.dataset import Dataset, Item
from segcontext.errors import DataError, LabelError, RecipeError, SampleError

MASKS = ([[0, 0, 0, 1]], [[0, 0, 2, 255]], [[255, 255, 255, 255]])


class Written(Dataset):
    name = "written"
    classes = ("a", "b", "c", "absent")
    palette = ((0, 0, 0),) * 4
    splits = ("train", "bare", "broken")

    def list_items(self):
        return [Item("", None, str(index)) for index in range(len(MASKS))]

    def __getitem__(self, index):
        raise AssertionError("counting must not read images")

    def read_mask(self, index):
        if self.split == "bare":
            return None
        if self.split == "broken" and index == 1:
            raise LabelError("mask 1 is wrong")
        return tv_tensors.Mask(torch.tensor(MASKS[index], dtype=torch.uint8))


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_counts_by_hand(workers):
    calls = []
    counted = class_frequencies(Written("."), workers=workers, progress=lambda done, all_: calls.append((done, all_)))
    assert counted.pixels.tolist() == [5, 1, 1, 0]
    assert counted.surroundings.tolist() == [7, 4, 3, 0]
    assert counted.pixels.dtype == torch.int64
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_errors_of_masks_come_through():
    with pytest.raises(LabelError, match="mask 1 is wrong"):
        class_frequencies(Written(".", "broken"))
    with pytest.raises(SampleError, match="'0' has no labels"):
        class_frequencies(Written(".", "bare"))


FREQUENCIES = Frequencies(torch.tensor([60, 30, 10, 0]), torch.tensor([100, 60, 50, 0]))
SHARES = np.array([0.6, 0.3, 0.1])


@pytest.mark.parametrize(
    ("method", "formula"),
    [
        ("median_frequency", [0.5 / 0.6, 0.5 / 0.5, 0.5 / 0.2]),
        ("inverse_log", [1 / math.log(1.02 + p) for p in SHARES]),
        ("inverse_sqrt", [p**-0.5 for p in SHARES]),
    ],
)
def test_weights_follow_the_formula_with_mean_one(method, formula):
    weights = class_weights(FREQUENCIES, method=method)
    expected = np.array(formula) / (SHARES * np.array(formula)).sum()
    assert weights.dtype == torch.float32
    assert np.allclose(weights[:3].numpy(), expected, rtol=1e-6)
    assert weights[3] == 1


def test_one_class_keeps_its_weight():
    one = Frequencies(torch.tensor([7]), torch.tensor([7]))
    for method in ("median_frequency", "inverse_log", "inverse_sqrt"):
        assert class_weights(one, method=method).tolist() == pytest.approx([1.0])


def test_wrong_requests_are_refused():
    with pytest.raises(RecipeError, match="Did you mean 'median_frequency'"):
        class_weights(FREQUENCIES, method="median")
    with pytest.raises(DataError, match="No pixel is labelled"):
        class_weights(Frequencies(torch.zeros(2), torch.zeros(2)))
