"""Faster copies of networks: the same answers, and the network itself untouched."""

import copy
import logging
import shutil

import pytest
import torch
from torch import nn

import segcontext
from segcontext import Predictor
from segcontext.errors import RecipeError, ShapeError
from segcontext.inference import Protocol, predict_labels, predict_probabilities
from segcontext.speed import FastNetwork, fast_network
from segcontext.speed import network as module
from segcontext.types import Output

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="Inductor needs a C++ compiler"
)


@pytest.fixture
def model():
    options = {"backbone": "test_resnet", "pretrained": False, "reduce_channels": 16, "auxiliary": True}
    model = segcontext.emanet(5, **options, aggregation_options={"num_bases": 4})
    model.classes, model.palette = tuple("abcde"), tuple((value,) * 3 for value in range(5))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return model.eval()


@pytest.fixture
def traced(monkeypatch):
    """Compiles without generating code; lists the calls of the compiler."""
    torch._dynamo.reset()
    calls, compile_ = [], torch.compile

    def tracing(network, **options):
        calls.append(options)
        return compile_(network, backend="aot_eager", dynamic=False)

    monkeypatch.setattr(torch, "compile", tracing)
    monkeypatch.setattr(module, "compiler_missing", lambda device: None)
    yield calls
    torch._dynamo.reset()


def error(found, wanted):
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def logits(network, images):
    with torch.no_grad():
        return network(images).logits


@pytest.mark.parametrize("size", [(33, 41), (1, 1), (2, 70), (64, 64)])
def test_the_answers_are_the_network_s(model, size):
    images = torch.rand(2, 3, *size)
    wanted = logits(model, images)
    assert error(logits(fast_network(model, speed="folded", precision="32"), images), wanted) < 1e-4
    assert error(logits(fast_network(model, speed="folded", precision="bf16"), images), wanted) < 0.05
    bytes_ = (255 * images).byte()
    fast = fast_network(model, speed="folded", precision="32")
    assert error(logits(fast, bytes_), logits(model, bytes_)) < 1e-4


def test_the_network_stays_as_it_is(model):
    model.backbone.train()
    model.aggregation.conv1.weight.grad = torch.ones_like(model.aggregation.conv1.weight)
    before = copy.deepcopy(model.state_dict())
    modes = [part.training for part in model.modules()]
    fast = fast_network(model)
    logits(fast, torch.rand(1, 3, 33, 41))
    assert [part.training for part in model.modules()] == modes
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.is_contiguous() for weight in model.parameters())
    assert any(weight.requires_grad for weight in model.parameters())
    assert not any(weight.requires_grad or weight.grad is not None for weight in fast.network.parameters())
    shared = {weight.data_ptr() for weight in model.parameters()} & {w.data_ptr() for w in fast.network.parameters()}
    assert not shared


def test_a_copy_knows_what_the_network_knows(model):
    fast = fast_network(model, speed="folded")
    assert (fast.num_classes, fast.classes, fast.palette) == (5, model.classes, model.palette)
    assert fast.backbone.output_stride == model.backbone.output_stride
    with pytest.raises(AttributeError, match="nonsense"):
        _ = fast.nonsense
    assert Protocol.of(fast) == Protocol.of(model)


def test_precision_follows_the_processor(model, monkeypatch):
    for able, expected in ((True, "bf16"), (False, "32")):
        monkeypatch.setattr(module, "has_bf16", lambda device, able=able: able)
        assert fast_network(model, speed="folded").precision == expected
        assert fast_network(model, speed="folded", precision="bf16").precision == "bf16"


def test_logits_are_float32_after_bfloat16_features(model):
    """Rounded logits of two classes are often the same."""
    output = fast_network(model, speed="folded", precision="bf16")(torch.rand(1, 3, 33, 41))
    assert output.features_logits.dtype == torch.float32
    assert not torch.equal(output.features_logits, output.features_logits.bfloat16().float())


def test_evidence_and_auxiliary_logits_run_uncompiled(model, traced):
    fast, images = fast_network(model, precision="32"), torch.rand(1, 3, 33, 41)
    for _ in range(3):
        output = fast(images, evidence=True, auxiliary=True)
    assert not fast.sizes
    with torch.no_grad():
        wanted = model(images, evidence=True, auxiliary=True)
    assert error(output.auxiliary, wanted.auxiliary) < 1e-4
    torch.testing.assert_close(output.aggregation, wanted.aggregation, rtol=1e-3, atol=1e-4)


def test_sizes_that_come_again_are_compiled(model, traced):
    told = []
    fast = fast_network(model, precision="32", tell=told.append)
    for size, compiled in (((33, 41), 0), ((33, 41), 1), ((41, 33), 1), ((33, 41), 1), ((41, 33), 2)):
        images = torch.rand(1, 3, *size)
        assert error(logits(fast, images), logits(model, images)) < 1e-4
        assert len(fast.sizes) == compiled
    assert len(traced) == 1
    assert told[0] == "Compiling the network for images of 33×41 …"
    assert told[1].startswith("Compiled for images of 33×41 in ")
    assert len(told) == 4


def test_many_sizes_do_not_compile_without_end(model, traced, monkeypatch, caplog):
    monkeypatch.setattr(module, "SIZES", 1)
    fast = fast_network(model, precision="32")
    for width in (40, 41, 42):
        for _ in range(4):
            fast(torch.rand(1, 3, 33, width))
    assert list(fast.sizes) == [(1, 3, 33, 40, torch.float32)]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [warning[-34:] for warning in warnings] == [
        "so images of 33×41 run uncompiled.",
        "so images of 33×42 run uncompiled.",
    ]


def test_without_a_compiler_it_runs_uncompiled(model, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    fast, images = fast_network(model, precision="32"), torch.rand(1, 3, 33, 41)
    assert len(caplog.records) == 1
    assert "there is no C++ compiler" in caplog.text
    for _ in range(3):
        assert error(logits(fast, images), logits(model, images)) < 1e-4
    assert not fast.sizes
    assert len(caplog.records) == 1


def test_a_compiler_that_fails_is_not_asked_again(model, monkeypatch, caplog):
    asked = []

    def broken(network, **options):
        def fail(images):
            asked.append(images.shape)
            raise RuntimeError("no such instruction\nand two hundred lines more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(module, "compiler_missing", lambda device: None)
    fast, images = fast_network(model, precision="32"), torch.rand(1, 3, 33, 41)
    for _ in range(4):
        assert error(logits(fast, images), logits(model, images)) < 1e-4
    assert len(asked) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "The network runs uncompiled: the compiler failed (RuntimeError: no such instruction)."
    ]


def test_windows_that_share_bases_find_the_same(model, traced):
    protocol = Protocol("sliding", 32, context="image", thumbnail=40)
    fast, images = fast_network(model, precision="32"), torch.rand(1, 3, 50, 70)
    found, wanted = (predict_probabilities(each, images, protocol) for each in (fast, model))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert not fast.sizes


def test_it_answers_in_inference_mode_and_out_of_it(model, traced):
    fast, images = fast_network(model, precision="32"), torch.rand(1, 3, 33, 41)
    wanted = predict_labels(model, images)
    for _ in range(2):
        with torch.inference_mode():
            assert (predict_labels(fast, images.clone()) == wanted).float().mean() > 0.99
        assert (predict_labels(fast, images) == wanted).float().mean() > 0.99
    assert len(fast.sizes) == 1


def test_the_predictor_asks_the_copy(model):
    picture = torch.rand(3, 33, 41)
    fast = Predictor(model, speed="folded", precision="32")
    wanted = Predictor(model)(picture)
    assert fast.model is model
    assert abs(fast(picture).probabilities - wanted.probabilities).max() < 1e-4
    assert (fast.label_map(picture).labels == wanted.labels).mean() > 0.99
    assert fast.label_map(picture).classes == model.classes
    assert Predictor(model, speed="folded", precision="bf16").precision == "bf16"


def test_unknown_speeds_are_refused(model):
    with pytest.raises(RecipeError, match="Did you mean 'compiled'"):
        Predictor(model, speed="compile")
    with pytest.raises(RecipeError, match="'plain' is the network itself"):
        fast_network(model, speed="plain")
    with pytest.raises(RecipeError, match="'f8'"):
        fast_network(model, precision="f8")


class OneSize(nn.Module):
    """No Segmenter, and for images of one size alone."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, images):
        if images.shape[-2:] != (8, 8):
            raise ShapeError("8×8 only")
        return Output(self.layers(images), (8, 8), True)


def test_networks_that_take_one_size_alone_keep_their_norms():
    model, images = OneSize().eval(), torch.rand(1, 3, 8, 8)
    fast = fast_network(model, speed="folded", precision="32")
    assert isinstance(fast.network.layers[1], nn.BatchNorm2d)
    assert error(logits(fast, images), logits(model, images)) < 1e-4
    with pytest.raises(ShapeError, match="8×8 only"):
        fast(torch.rand(1, 3, 9, 8))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_generated_kernels_give_the_same(model, precision):
    torch._dynamo.reset()
    fast, images = fast_network(model, precision=precision), torch.rand(1, 3, 33, 41)
    for _ in range(3):
        assert error(logits(fast, images), logits(model, images)) < (1e-4 if precision == "32" else 0.05)
    assert isinstance(fast, FastNetwork)
    assert len(fast.sizes) == 1
