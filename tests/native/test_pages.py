import pytest
import torch

from segcontext.native import pages


@pytest.mark.parametrize("side", [1, 100, 1500])
def test_like_the_tensor_that_it_is_handed(side):
    x = torch.zeros(1, 2, side, side).contiguous(memory_format=torch.channels_last)
    out = pages.empty_like(x)
    assert (out.shape, out.stride(), out.dtype) == (x.shape, x.stride(), x.dtype)
    out.fill_(3)
    assert (out == 3).all()


def test_without_the_means_to_ask_for_large_pages(monkeypatch):
    monkeypatch.setattr(pages, "_advise", lambda: None)
    assert pages.empty_like(torch.zeros(2000, 1000)).shape == (2000, 1000)
