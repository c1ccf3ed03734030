"""The operations in Triton's form, asked for by its name, against their references."""

import pytest
import torch

from segcontext import ops


def relative(found, wanted):
    return ((found.cpu().double() - wanted.cpu().double()).norm() / wanted.double().norm().clamp_min(1e-12)).item()


@pytest.fixture
def both(device):
    def run(operation, *tensors, **options):
        tensors = [each.to(device) for each in tensors]
        with ops.use_implementation("triton"):
            found = operation(*tensors, **options)
        with ops.use_implementation("reference"):
            return found, operation(*tensors, **options)

    return run


def test_local_attention(both, caplog):
    query, key, value = torch.randn(1, 8, 5, 7), torch.randn(1, 8, 5, 7), torch.randn(1, 16, 5, 7)
    assert relative(*both(ops.local_attention, query, key, value, kernel_size=3, dilation=2, scale=0.3)) < 3e-6
    assert not caplog.records


def test_gated_by_mask(both, caplog):
    x, logits = torch.randn(1, 4, 9, 11), torch.randn(1, 4, 2, 3)
    for times in (1.0, 2.0):
        assert relative(*both(ops.gated_by_mask, x, logits, times=times, align_corners=False)) < 3e-6
    assert not caplog.records


@pytest.mark.parametrize("iterations", [0, 3])
def test_em_attention(both, device, caplog, iterations):
    x, bases = torch.randn(2, 50, 16), torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    projection = (torch.randn(16, 16, device=device) / 4, torch.randn(16, device=device))
    found, wanted = both(ops.em_attention, x, bases, iterations=iterations, projection=projection)
    for name in ("reconstruction", "responsibilities", "bases", "mass"):
        assert getattr(found, name).dtype == torch.float32
        assert relative(getattr(found, name), getattr(wanted, name)) < 1e-5
    assert not caplog.records


def test_what_it_cannot_runs_in_the_reference(both, caplog):
    x, bases = torch.randn(1, 20, 16), torch.randn(4, 16)
    found, wanted = both(ops.em_attention, x, bases, kernel="rbf")
    assert torch.equal(found.reconstruction, wanted.reconstruction)
    assert "only the exponential inner product" in caplog.text


def test_resized_argmax(both):
    found, wanted = both(ops.resized_argmax, torch.randn(1, 5, 9, 7), size=(40, 100), align_corners=True)
    assert torch.equal(found.cpu(), wanted.cpu())
