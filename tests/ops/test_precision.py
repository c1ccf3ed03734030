import pytest
import torch

from segcontext.ops.precision import widen


@pytest.mark.parametrize(
    ("given", "wide"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_widens_to_single_precision_at_least(given, wide):
    x = torch.tensor([0.5, -2.0], dtype=given)
    assert widen(x).dtype == wide
    assert widen(x).tolist() == [0.5, -2.0]


def test_a_wide_tensor_is_not_copied():
    x = torch.zeros(2)
    assert widen(x) is x
