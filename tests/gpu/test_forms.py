"""The operations in Triton's form, asked for by its name, against their references."""

from functools import partial
from importlib import import_module
from unittest.mock import Mock

import pytest
import torch

from segcontext import metrics, ops
from segcontext.errors import KernelError, LabelError
from segcontext.gpu import trust
from segcontext.inference import Protocol
from segcontext.inference.fusing import fused_labels
from segcontext.inference.views import Answer
from segcontext.types import Output


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


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("scales", [(0.5, 1.0), (0.75,)])
def test_the_fusion_of_views(both, caplog, average, scales):
    views = []
    for scale in scales:
        size = (int(20 * scale), int(36 * scale))
        logits = 3 * torch.randn(1, 5, size[0] // 8 + 1, size[1] // 8 + 1)
        whole = (size[0] + 3, size[1] + 1)
        views += [(logits.flip(-1) if flip else logits, whole, size, flip) for flip in (False, True)[: len(scales)]]

    def fuse(*logits, protocol):
        answers = [Answer(Output(each, view[1], True), *view[2:]) for each, view in zip(logits, views, strict=True)]
        return fused_labels(answers, (20, 36), protocol)

    found, wanted = both(fuse, *(view[0] for view in views), protocol=Protocol(scales=scales, average=average))
    assert found.dtype == wanted.dtype == torch.uint8
    assert torch.equal(found, wanted)
    assert not caplog.records


def test_the_confusion_matrix_of_logits(both, caplog):
    logits, target = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 17, 29), dtype=torch.uint8)
    target[:, :3] = 255
    options = {"size": (24, 33), "align_corners": False}
    found, wanted = both(metrics.confusion_from_logits, logits, target, **options)
    assert torch.equal(found, wanted)
    assert wanted.sum() == (target != 255).sum()
    assert not caplog.records
    for strict in (False, True):
        with ops.use_implementation("triton", strict=strict), pytest.raises(LabelError, match="holds 4"):
            metrics.confusion_from_logits(logits, target.clamp_max(4), **options)


def test_kernels_that_are_named_run(device, watched):
    called = watched(
        *(("segcontext.metrics.confusion_from_logits", "confusion"), ("segcontext.inference.fusing", "_fuse_on_gpu")),
        *(("segcontext.ops.resized_argmax", "by_triton"), ("segcontext.metrics.boundary_matches", "on_gpu")),
    )
    logits, labels = torch.randn(1, 3, 2, 3, device=device), torch.zeros(1, 9, 9, dtype=torch.uint8, device=device)
    views = [Answer(Output(logits, (9, 9), True), (9, 9))] * 2
    with ops.use_implementation("reference"):
        metrics.confusion_from_logits(logits, labels, implementation="triton")
        fused_labels(views, (9, 9), Protocol(), implementation="triton")
        fused_labels(views[:1], (9, 9), Protocol(), implementation="triton")
        metrics.boundary_matches(labels[0].int(), labels[0].int(), 2, [1], implementation="triton")
    assert called == ["confusion", "_fuse_on_gpu", "by_triton", "on_gpu"]
    with pytest.raises(LabelError, match="holds 3"):
        metrics.confusion_from_logits(logits, labels + 3, implementation="triton")
    assert called[4:] == ["confusion", "by_triton"]


def test_kernels_that_are_named_and_fail(device, monkeypatch):
    logits, labels = torch.randn(1, 3, 2, 3, device=device), torch.zeros(1, 9, 9, dtype=torch.int32, device=device)
    views = [Answer(Output(logits, (9, 9), True), (9, 9))] * 2
    for place, call in (
        ("metrics.confusion_from_logits.confusion", partial(metrics.confusion_from_logits, logits, labels)),
        ("inference.fusing._fuse_on_gpu", partial(fused_labels, views, (9, 9), Protocol())),
        ("metrics.boundary_matches.on_gpu", partial(metrics.boundary_matches, labels[0], labels[0], 2, [1])),
    ):
        module, name = place.rsplit(".", 1)
        monkeypatch.setattr(import_module(f"segcontext.{module}"), name, Mock(side_effect=RuntimeError("no memory")))
        with pytest.raises(KernelError, match="asked for by name, failed: RuntimeError: no memory"):
            call(implementation="triton")


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_boundary_tallies(both, caplog, protocol):
    target = torch.randint(0, 3, (2, 3, 4)).repeat_interleave(7, 1).repeat_interleave(6, 2)
    target[0, :2] = 255
    options = {"num_classes": 5, "slacks": [1, 3**0.5, 0.1], "protocol": protocol}
    found, wanted = both(metrics.boundary_tally, target.clamp_max(2).roll(2, 1), target, **options)
    assert torch.equal(found, wanted)
    assert not caplog.records


def test_boundaries_on_arrays_take_the_reference(caplog):
    labels = torch.eye(6, dtype=torch.int64).numpy()
    with ops.use_implementation("triton"):
        assert metrics.boundary_f_score(labels, labels, 2, [1]).tolist() == [[1, 1]]
    assert "no maps on a GPU" in caplog.text


@pytest.fixture
def unasked(monkeypatch):
    monkeypatch.setenv("SEGCONTEXT_TRITON", "1")
    trust.forget()
    yield
    trust.forget()


def slopes(operation, *tensors, **options):
    tensors = [each.detach().requires_grad_() for each in tensors]
    found = operation(*tensors, **options)
    found = found.reconstruction if isinstance(found, tuple) else found
    return found.detach(), *torch.autograd.grad(found.square().sum(), tensors)


def test_unasked_with_gradients(unasked, device, caplog):
    for operation, shapes, options in (
        (ops.local_attention, ((1, 4, 3, 5),) * 3, {"kernel_size": 3, "dilation": 1}),
        (ops.gated_by_mask, ((1, 4, 5, 7), (1, 4, 2, 2)), {}),
        (ops.em_attention, ((1, 9, 16), (4, 16)), {"gradient": "all", "iterations": 2}),
    ):
        tensors = [torch.randn(shape, device=device) for shape in shapes]
        found = slopes(operation, *tensors, **options)
        compiled = slopes(torch.compile(operation, backend="aot_eager", fullgraph=True), *tensors, **options)
        wanted = slopes(operation, *tensors, **options, implementation="reference")
        for mine, again, theirs in zip(found, compiled, wanted, strict=True):
            assert relative(mine, theirs) < 1e-5
            assert relative(again, theirs) < 1e-5
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_second_derivatives_unasked(unasked, device):
    x, logits = (torch.randn(1, 2, 3, side, device=device, requires_grad=True) for side in (4, 1))
    (slope,) = torch.autograd.grad(ops.gated_by_mask(x, logits).square().sum(), x, create_graph=True)
    (wanted,) = torch.autograd.grad(
        ops.gated_by_mask(x, logits, implementation="reference").square().sum(), x, create_graph=True
    )
    (found,), (wanted,) = (torch.autograd.grad(each.sum(), logits) for each in (slope, wanted))
    assert relative(found, wanted) < 1e-5


def test_derivatives_by_maps_of_one_another_unasked(unasked, device):
    x = torch.randn(1, 2, 3, 4, device=device, requires_grad=True)
    for operation in (
        lambda **how: ops.local_attention(x, x, x.sin(), kernel_size=3, dilation=1, **how),
        lambda **how: ops.gated_by_mask(x, x[..., :2, :2], **how),
    ):
        found = []
        for how in ({}, {"implementation": "reference"}):
            (slope,) = torch.autograd.grad(operation(**how).square().sum(), x, create_graph=True)
            found.append((slope, *torch.autograd.grad(slope.square().sum(), x)))
        assert all(relative(*both) < 1e-5 for both in zip(*found, strict=True))
