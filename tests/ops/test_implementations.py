"""The choice between forms of an operation."""

import logging

import pytest
import torch

from segcontext import ops
from segcontext.errors import KernelError, RecipeError
from segcontext.ops import implementations
from segcontext.ops.implementations import choose, use_implementation


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(implementations, "_TOLD", set())


def test_the_first_that_can():
    assert choose("op", None, {"triton": "no GPU", "native": None}) == "native"
    # Not before it has run on a GPU.
    assert choose("op", None, {"triton": None, "native": None}) == "native"
    assert choose("op", "auto", {"triton": "no GPU", "native": "float64"}) == "reference"


def test_the_one_asked_for():
    assert choose("op", "reference", {"native": None}) == "reference"
    assert choose("op", "native", {"triton": None, "native": None}) == "native"


def test_what_cannot_run_is_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert choose("op", "triton", {"triton": "no GPU", "native": None}) == "reference"
            assert choose("op", "native", {}) == "reference"
    assert [record.getMessage() for record in caplog.records] == [
        "op runs in its reference form and not as triton: no GPU.",
        "op runs in its reference form and not as native: there is no such form of it.",
    ]


def test_within_a_block():
    with use_implementation("reference"):
        assert choose("op", None, {"native": None}) == "reference"
        with use_implementation("native"):
            assert choose("op", None, {"triton": None, "native": None}) == "native"
        assert choose("op", None, {"native": None}) == "reference"
        assert choose("op", "native", {"native": None}) == "native"
    assert choose("op", None, {"native": None}) == "native"


def test_strictly():
    with use_implementation("triton", strict=True):
        assert choose("op", None, {"triton": None}) == "triton"
        with pytest.raises(KernelError, match="op cannot run as triton: no GPU"):
            choose("op", None, {"triton": "no GPU"})
        with use_implementation("triton"):
            assert choose("op", None, {"triton": "no GPU"}) == "reference"


def test_an_unknown_form():
    with pytest.raises(RecipeError, match="native"), use_implementation("nativ"):
        pass
    with pytest.raises(RecipeError, match="must be one of"):
        choose("op", "cuda", {})


def test_nothing_in_nothing_out():
    """Batches of no images, in every form that takes them."""
    assert ops.local_attention(*torch.rand(3, 0, 8, 4, 4)).shape == (0, 8, 4, 4)
    assert ops.gated_by_mask(torch.rand(0, 8, 4, 4), torch.rand(0, 8, 2, 2)).shape == (0, 8, 4, 4)
    for dtype in (torch.float32, torch.bfloat16):
        x, maps = torch.rand(0, 30, 8, dtype=dtype), torch.rand(0, 4, 30, dtype=dtype)
        with torch.no_grad():
            assert ops.em_attention(x, torch.rand(4, 8)).reconstruction.shape == (0, 30, 8)
            assert ops.double_attention(x.mT, maps, maps).output.shape == (0, 8, 30)


# PyTorch scripts its formulas at the first derivative of this kind.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("local_attention", lambda x: ops.local_attention(x, x, x, kernel_size=3, dilation=1)),
        ("gated_by_mask", lambda x: ops.gated_by_mask(x, x[..., :2, :2])),
        ("em_attention", lambda x: ops.em_attention(x.flatten(2).mT, x.new_ones(2, 8), gradient="all").reconstruction),
    ],
)
def test_forward_derivatives_and_vmap_take_the_reference(name, call):
    x, step = torch.rand(1, 8, 5, 5), torch.rand(1, 8, 5, 5)
    _, found = torch.func.jvp(call, (x,), (step,))
    exact = (call(x.double() + 1e-6 * step) - call(x.double() - 1e-6 * step)) / 2e-6
    assert torch.allclose(found.double(), exact, atol=1e-4)
    several = torch.rand(3, 1, 8, 5, 5)
    with torch.no_grad():
        assert torch.allclose(torch.func.vmap(call)(several), torch.stack([call(each) for each in several]), atol=1e-5)
