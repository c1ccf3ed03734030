"""The compiled form of local attention against the reference in float64: values and gradients."""

import logging

import pytest
import torch

from segcontext import native
from segcontext.ops import implementations
from segcontext.ops.implementations import use_implementation
from segcontext.ops.local_attention import local_attention
from segcontext.ops.local_attention_reference import local_attention_reference

needs_loops = pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")

LAYOUTS = {
    "planes": lambda x: x.contiguous(),
    "pixels": lambda x: x.contiguous(memory_format=torch.channels_last),
    "turned": lambda x: x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    "every second": lambda x: torch.stack([x, x.flip(1)], 4).flatten(3)[..., ::2],
    "part of more": lambda x: torch.cat([x, x.flip(3)], 1).contiguous(memory_format=torch.channels_last)[
        :, : x.shape[1]
    ],
}


def maps(size, *, batch=1, depth=8, channels=8, dtype=torch.float32, layout="planes"):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, each, *size) for each in (depth, depth, channels)]
    return [LAYOUTS[layout](torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def with_gradients(given, wanted=(True, True, True), **options):
    tensors = [each.detach().requires_grad_(want) for each, want in zip(given, wanted, strict=True)]
    out = local_attention(*tensors, **options)
    sign = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out.dtype)
    return [out, *torch.autograd.grad((out * sign).sum(), [each for each in tensors if each.requires_grad])]


def assert_close(given, *, wanted=(True, True, True), **options):
    """float32 to five digits of the largest; bfloat16 rounds each result once, to half of 2⁻⁷."""
    found = with_gradients(given, wanted, implementation="native", **options)
    exact = with_gradients([each.double() for each in given], wanted, **options)
    for each, right in zip(found, exact, strict=True):
        assert each.dtype == given[0].dtype
        error, largest = (each.double() - right).abs(), right.abs().max()
        bound = 2**-8 * right.abs() if each.dtype == torch.bfloat16 else 0
        assert (error <= bound + 1e-5 * largest + 1e-5).all()


@needs_loops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_layouts(dtype, layout, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for depth, channels in ((8, 16), (5, 3)):
            given = maps((13, 10), batch=2, depth=depth, channels=channels, dtype=dtype, layout=layout)
            assert_close(given, kernel_size=3, dilation=2, scale=0.3)
    finally:
        torch.set_num_threads(before)


@needs_loops
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (7, 5), (17, 33), (40, 12)])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (5, 1), (5, 3), (5, 6), (7, 2)])
def test_sizes(size, kernel_size, dilation):
    assert_close(maps(size, layout="pixels"), kernel_size=kernel_size, dilation=dilation, scale=0.5)


@needs_loops
@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)])
@pytest.mark.parametrize("layout", ["planes", "pixels"])
def test_some_gradients(wanted, layout):
    wanted = [bool(each) for each in wanted]
    assert_close(maps((9, 8), depth=8, channels=16, layout=layout), wanted=wanted, kernel_size=3, dilation=2)


@needs_loops
def test_maps_that_do_not_lie_alike():
    query, key, value = maps((11, 9), depth=16, channels=8)
    given = [query, LAYOUTS["pixels"](key), LAYOUTS["every second"](value)]
    assert_close(given, kernel_size=3, dilation=2)
    out = local_attention(query, key, LAYOUTS["pixels"](value), implementation="native")
    assert out.is_contiguous(memory_format=torch.channels_last)


@needs_loops
def test_a_gradient_that_is_one_number_everywhere():
    given = maps((9, 8), layout="pixels")
    tensors = [each.double().requires_grad_() for each in given]
    local_attention(*tensors, kernel_size=3, dilation=1).sum().backward()
    found = [each.requires_grad_() for each in given]
    local_attention(*found, kernel_size=3, dilation=1, implementation="native").sum().backward()
    for each, right in zip(found, tensors, strict=True):
        torch.testing.assert_close(each.grad.double(), right.grad, rtol=1e-4, atol=1e-5)


@needs_loops
@pytest.mark.parametrize("scale", [1.0, -1.0, 3.0])
def test_large_logits(scale):
    assert_close(maps((6, 9)), kernel_size=3, dilation=1, scale=scale)
    for each in with_gradients(maps((6, 9)), scale=1e6 * scale, implementation="native"):
        assert each.isfinite().all()


@needs_loops
def test_what_is_no_number_stays_none():
    query, key, value = maps((9, 9), layout="pixels")
    value[0, 0, 4, 4] = torch.nan
    out = local_attention(query, key, value, kernel_size=3, dilation=2, implementation="native")
    seen = out[0, 0].isnan().nonzero().tolist()
    assert seen == [[y, x] for y in (2, 4, 6) for x in (2, 4, 6)]
    query[0, 0, 0, 0] = torch.nan
    out = local_attention(query, key, value, kernel_size=3, dilation=2, implementation="native")
    assert out[0, :, 0, 0].isnan().all()


@needs_loops
def test_threads_do_not_change_a_bit():
    given, results = maps((21, 20), batch=2, depth=16, channels=16, layout="planes"), []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(with_gradients(given, kernel_size=3, dilation=2, implementation="native"))
    torch.set_num_threads(before)
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            assert torch.equal(left, right)


@needs_loops
def test_gradients_of_gradients_are_the_references():
    given = [each.requires_grad_() for each in maps((4, 5), depth=2, channels=2)]
    found = []
    for implementation in ("native", "reference"):
        out = local_attention(*given, kernel_size=3, dilation=1, implementation=implementation)
        (slope,) = torch.autograd.grad(out.square().sum(), given[0], create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), given))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@needs_loops
def test_compiled_it_stays_one_operation():
    torch._dynamo.reset()
    given = maps((6, 7))
    compiled = torch.compile(local_attention, backend="aot_eager", fullgraph=True)
    tensors = [each.detach().requires_grad_() for each in given]
    out = compiled(*tensors, kernel_size=3, dilation=2)
    assert torch.equal(out, local_attention(*given, kernel_size=3, dilation=2, implementation="native"))
    found = torch.autograd.grad(out.square().sum(), tensors)
    out = local_attention(*tensors, kernel_size=3, dilation=2, implementation="native")
    for left, right in zip(found, torch.autograd.grad(out.square().sum(), tensors), strict=True):
        assert torch.equal(left, right)
    torch._dynamo.reset()


@needs_loops
def test_exported_programs_hold_the_reference():
    class Attend(torch.nn.Module):
        def forward(self, query, key, value):
            return local_attention(query, key, value, kernel_size=3, dilation=1)

    program = torch.export.export(Attend(), tuple(maps((5, 6))))
    assert not any("segcontext" in str(node.target) for node in program.graph.nodes)


@needs_loops
def test_it_keeps_one_number_per_pixel_beside_the_maps():
    given = [each.requires_grad_() for each in maps((12, 10), depth=16, channels=32, layout="pixels")]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        local_attention(*given, kernel_size=5, dilation=1, implementation="native")
    assert sum(kept) == 12 * 10 * (16 + 16 + 32 + 1)


@needs_loops
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_checks_of_pytorch_for_own_operations():
    given = [each.requires_grad_() for each in maps((5, 6), layout="pixels")]
    torch.library.opcheck(torch.ops.segcontext.local_attention, (*given, 3, 2, 0.5))


def test_without_loops_the_reference_runs_and_that_is_told_once(monkeypatch, caplog):
    monkeypatch.setenv("SEGCONTEXT_NATIVE", "0")
    monkeypatch.setattr(implementations, "_TOLD", set())
    given = maps((5, 6))
    wanted = local_attention_reference(*given, kernel_size=5, dilation=3, scale=1.0)
    with caplog.at_level(logging.WARNING), use_implementation("native"):
        for _ in range(2):
            assert torch.equal(local_attention(*given), wanted)
    assert len(caplog.records) == 1
    assert "SEGCONTEXT_NATIVE=0" in caplog.text


@pytest.mark.parametrize("implementation", ["auto", "native"])
def test_what_loops_do_not_take_the_reference_does(implementation):
    query, key, value = maps((5, 6))
    for given in ((query.double(), key.double(), value.double()), (query, key, value.bfloat16()), (query.half(),) * 3):
        found = local_attention(*given, implementation=implementation)
        assert torch.equal(found, local_attention(*given, implementation="reference"))
    assert local_attention(query[:0], key[:0], value[:0]).shape == (0, 8, 5, 6)
