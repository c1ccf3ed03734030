import pytest
import torch

from segcontext.native.memory import roomy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 3, 5), (1 << 20,)])
def test_it_is_a_tensor_like_any_other(dtype, shape):
    room = roomy(shape, dtype)
    assert room.shape == shape
    assert room.dtype == dtype
    assert room.is_contiguous()
    assert room.data_ptr() % 64 == 0 or not room.numel()
    assert torch.equal(room.fill_(1.5) + 1, torch.full(shape, 2.5, dtype=dtype))
