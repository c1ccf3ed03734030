"""Gates by a smaller map's sigmoid, against the equations in float64: values and gradients."""

import logging

import pytest
import torch
from torch.nn import functional as F

from segcontext import native
from segcontext.ops import implementations
from segcontext.ops.gated_by_mask import gated_by_mask
from segcontext.ops.implementations import use_implementation

needs_loops = pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")

LAYOUTS = {
    "planes": lambda x: x.contiguous(),
    "pixels": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: torch.stack([x, x.flip(1)], 4).flatten(3)[..., ::2],
}
SIZES = [((1, 1), (1, 1)), ((9, 11), (2, 3)), ((16, 33), (2, 5)), ((5, 7), (1, 1)), ((6, 7), (6, 7)), ((2, 2), (3, 3))]


def maps(size, small, *, batch=2, channels=5, dtype=torch.float32, layout="planes"):
    generator = torch.Generator().manual_seed(0)
    x, logits = (torch.randn(batch, channels, *each, generator=generator).to(dtype) for each in (size, small))
    return LAYOUTS[layout](x), logits


def by_the_equations(x, logits, *, times=1.0, align_corners=True):
    mask = F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=align_corners).sigmoid()
    return mask * x + times * x


def with_gradients(function, given, **options):
    tensors = [each.detach().requires_grad_() for each in given]
    out = function(*tensors, **options)
    sign = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out.dtype)
    return [out, *torch.autograd.grad((out * sign).sum(), tensors)]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size", "small"), SIZES)
@pytest.mark.parametrize("times", [1.0, 2.0])
def test_reference(size, small, align_corners, times):
    given = [each.double() for each in maps(size, small)]
    options = {"times": times, "align_corners": align_corners}
    found, wanted = (with_gradients(each, given, **options) for each in (gated_by_mask, by_the_equations))
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right)


@needs_loops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_native(dtype, layout, align_corners, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for (size, small), channels in ((pair, channels) for pair in SIZES for channels in (5, 16)):
            given = maps(size, small, channels=channels, dtype=dtype, layout=layout)
            options = {"times": 2.0, "align_corners": align_corners}
            found = with_gradients(gated_by_mask, given, implementation="native", **options)
            exact = with_gradients(by_the_equations, [each.double() for each in given], **options)
            for each, right in zip(found, exact, strict=True):
                bound = 2**-8 * right.abs() if dtype == torch.bfloat16 else 0
                assert each.dtype == dtype
                assert ((each.double() - right).abs() <= bound + 1e-5 * right.abs().max() + 1e-6).all()
    finally:
        torch.set_num_threads(before)


@needs_loops
def test_large_logits_and_what_is_no_number():
    x, logits = torch.ones(1, 4, 1, 3), torch.tensor([-1e4, 0.0, 1e4]).expand(1, 4, 1, 3)
    found = gated_by_mask(x, logits, implementation="native")
    torch.testing.assert_close(found, torch.tensor([1.0, 1.5, 2.0]).expand(1, 4, 1, 3))
    x[0, 0, 0, 0] = torch.nan
    assert gated_by_mask(x, logits, implementation="native").isnan().nonzero().tolist() == [[0, 0, 0, 0]]


@needs_loops
@pytest.mark.parametrize("layout", ["planes", "pixels"])
def test_threads_do_not_change_a_bit(layout):
    given, results = maps((20, 21), (3, 4), channels=16, layout=layout), []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(with_gradients(gated_by_mask, given, implementation="native"))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(left, right) for left, right in zip(results[0], other, strict=True))


@needs_loops
def test_only_the_two_maps_are_kept():
    x, logits = (each.requires_grad_() for each in maps((8, 12), (2, 3)))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.numel()) or each, lambda each: each):
        gated_by_mask(x, logits, implementation="native")
    assert sum(kept) == x.numel() + logits.numel()


@needs_loops
def test_gradients_of_gradients_are_the_references():
    given = [each.requires_grad_() for each in maps((4, 5), (2, 2))]
    found = []
    for implementation in ("native", "reference"):
        out = gated_by_mask(*given, implementation=implementation)
        (slope,) = torch.autograd.grad(out.square().sum(), given[0], create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), given))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@needs_loops
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_checks_of_pytorch_for_own_operations():
    for layout in ("planes", "pixels"):
        given = [each.requires_grad_() for each in maps((5, 6), (2, 3), layout=layout)]
        torch.library.opcheck(torch.ops.segcontext.gated_by_mask, (*given, 1.0, True))


def test_without_loops_the_reference_runs_and_that_is_told_once(monkeypatch, caplog):
    monkeypatch.setenv("SEGCONTEXT_NATIVE", "0")
    monkeypatch.setattr(implementations, "_TOLD", set())
    given = maps((5, 6), (2, 3))
    with caplog.at_level(logging.WARNING), use_implementation("native"):
        for _ in range(2):
            torch.testing.assert_close(gated_by_mask(*given), by_the_equations(*given))
    assert len(caplog.records) == 1


def test_maps_that_do_not_fit_are_refused():
    for shapes in (((1, 3, 4, 4), (1, 2, 2, 2)), ((2, 3, 4, 4), (1, 3, 2, 2)), ((3, 4, 4), (3, 2, 2))):
        with pytest.raises(ValueError, match="expected features"):
            gated_by_mask(*(torch.zeros(shape) for shape in shapes))
