import pytest
import torch

from segcontext.ops.precision import linear_dtype, widen


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


def test_a_linear_layer_has_autocasts_dtype():
    x = torch.zeros(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            layer = torch.nn.Linear(2, 2).to(dtype)
            assert linear_dtype(x.to(dtype)) == layer(x.to(dtype)).dtype
    assert linear_dtype(x) == torch.float32
