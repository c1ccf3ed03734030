"""Depthwise 3×3 convolutions of stride 2 against PyTorch's in float64: values and gradients."""

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from segcontext import native
from segcontext.ops.halved import halved, halved_beside, is_faster, obstacle_to_halved

pytestmark = pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")

LAYOUTS = {
    "planes": lambda x: x.contiguous(),
    "pixels": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: torch.stack([x, x.flip(1)], 4).flatten(3)[..., ::2],
    "some channels of pixels": lambda x: torch.cat([x, x], 1).contiguous(memory_format=torch.channels_last)[:, 3:][
        :, : x.shape[1]
    ],
}
SIZES = [(1, 1), (2, 3), (3, 3), (8, 16), (97, 65)]


def maps(size, *, batch=2, channels=5, dtype=torch.float32, layout="planes"):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, channels, *size), (channels, 1, 3, 3), (channels,))
    x, *weights = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return LAYOUTS[layout](x), *weights


def exact(x, kernel, shift, padding):
    return F.conv2d(x, kernel, shift, stride=2, padding=padding, groups=len(kernel))


def read_twice(*given, padding=1):
    out, x = halved_beside(*given, padding=padding)
    return out.sum((2, 3), keepdim=True) * x


def with_gradients(function, given, **options):
    tensors = [each.detach().requires_grad_() for each in given]
    out = function(*tensors, **options)
    sign = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out.dtype)
    return [out, *torch.autograd.grad((out * sign).sum(), tensors)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with the features"])
def test_values_and_gradients(dtype, layout, padding, beside):
    def plain(x, *weights):
        out = exact(x, *weights, padding)
        return out.sum((2, 3), keepdim=True) * x if beside else out

    for size in SIZES:
        for channels in (5, 16, 24):
            if padding == 1 or min(size) >= 3:
                given = maps(size, channels=channels, dtype=dtype, layout=layout)
                found = with_gradients(read_twice if beside else halved, given, padding=padding)
                wanted = with_gradients(plain, [each.double() for each in given])
                for each, right in zip(found, wanted, strict=True):
                    error = (each.double() - right).norm() / right.norm()
                    assert each.dtype == dtype
                    # Where the features are read twice, rounded sums are multiplied.
                    assert error < (1e-6 if dtype == torch.float32 else 1e-2 if beside else 4e-3)


def test_more_channels_than_are_taken_at_a_time():
    given = maps((5, 6), batch=1, channels=1040, layout="pixels")
    found = with_gradients(halved, given)
    wanted = with_gradients(lambda *each: exact(*each, 1), given)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["planes", "pixels"])
@pytest.mark.parametrize("function", [halved, read_twice])
def test_threads_do_not_change_a_bit(dtype, layout, function):
    cases = [
        (maps(size, channels=channels, dtype=dtype, layout=layout), padding)
        for size, channels, padding in (((20, 21), 16, 1), ((97, 65), 5, 0), ((2, 3), 24, 1))
    ]
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(
                [each for given, padding in cases for each in with_gradients(function, given, padding=padding)]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(left, right) for left, right in zip(results[0], other, strict=True))


def test_gradients_of_gradients():
    given, found = [each.requires_grad_() for each in maps((5, 6))], []
    for function in (halved_beside, lambda x, *weights: (exact(x, *weights, 1), x)):
        out, x = function(*given)
        (slope,) = torch.autograd.grad(out.square().sum() + x.pow(3).sum(), given[0], create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), given))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("layout", ["planes", "pixels"])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_many_gradients_at_a_time(layout, create_graph):
    given = [each.requires_grad_() for each in maps((5, 6), channels=4, layout=layout)]
    found = []
    for function in (halved_beside, lambda x, *weights: (exact(x, *weights, 1), x.clone())):
        out, x = function(*given)
        total = out.sum((2, 3), keepdim=True) * x
        slopes = torch.randn(3, *total.shape, generator=torch.Generator().manual_seed(1))

        def turn_back(slope, total=total):
            return torch.autograd.grad(total, given, slope, retain_graph=True, create_graph=create_graph)

        found.append(torch.func.vmap(turn_back)(slopes))
        found.append(torch.autograd.grad(total, given, slopes, is_grads_batched=True, create_graph=create_graph))
    for each in found[:-1]:
        for left, right in zip(each, found[-1], strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("used", ["the result", "the features", "both, expanded"])
def test_whatever_comes_back(used):
    """The features' gradient alone, none of it, and one that lies in a single place."""
    x, kernel, shift = (each.requires_grad_() for each in maps((6, 7)))
    out, features = halved_beside(x, kernel, shift)
    total = {
        "the result": out,
        "the features": features,
        "both, expanded": torch.cat([out.flatten(), features.flatten()]),
    }
    total[used].sum().backward()
    wanted = x.detach().requires_grad_()
    of_result = exact(wanted, kernel.detach(), shift.detach(), 1).sum()
    (of_result * (used != "the features") + wanted.sum() * (used != "the result")).backward()
    torch.testing.assert_close(x.grad, wanted.grad)
    assert (kernel.grad is None) == (used == "the features")


def test_autocast_rounds_as_it_does_for_pytorchs():
    given = maps((9, 10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, features = halved_beside(*given)
        assert torch.equal(out, halved(*given))
        wanted = exact(*given, 1)
    assert (out.dtype, features.dtype) == (wanted.dtype, torch.float32)
    torch.testing.assert_close(out.float(), wanted.float(), rtol=2**-7, atol=1e-3)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_checks_of_pytorch_for_own_operations():
    for layout in ("planes", "pixels"):
        given = [each.requires_grad_() for each in maps((5, 6), layout=layout)]
        for padding in (0, 1):
            torch.library.opcheck(torch.ops.segcontext.halved, (*given, padding))


def test_what_stands_in_its_way():
    class Watch(TorchFunctionMode):
        pass

    x = torch.zeros(1, 2, 3, 3)
    assert obstacle_to_halved(x) is None
    assert obstacle_to_halved(x.double()) is not None
    assert obstacle_to_halved(x.to("meta")) is not None
    with Watch():
        assert obstacle_to_halved(x) == "somebody looks at the single steps"
    with torch.device("cpu"):
        assert obstacle_to_halved(x) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert obstacle_to_halved(x) is None
    with torch.autocast("cpu", dtype=torch.float16):
        assert obstacle_to_halved(x) is not None


def test_values_of_another_dtype_are_not_misread():
    for function in (halved, halved_beside):
        with pytest.raises(TypeError, match=r"float32 or bfloat16, not torch\.float16"):
            function(*maps((5, 6), dtype=torch.float16))


def test_small_maps_are_pytorchs_unless_bfloat16_learns():
    x = torch.empty(1, 512, 8, 8)
    assert not is_faster(x)
    assert is_faster(x.bfloat16())
    assert is_faster(torch.empty(1, 512, 128, 128))
    with torch.no_grad():
        assert not is_faster(x.bfloat16())
        assert is_faster(torch.empty(1, 512, 128, 128).contiguous(memory_format=torch.channels_last))
