"""Networks compiled for training: the same losses, weights under their own names, and no error without a compiler."""

import logging
import shutil

import pytest
import torch

import segcontext
from segcontext.speed import Compiled
from segcontext.speed import training as module


@pytest.fixture
def model():
    options = {"backbone": "test_resnet", "pretrained": False, "reduce_channels": 8, "auxiliary": True}
    return segcontext.emanet(3, **options, aggregation_options={"num_bases": 4}).train()


@pytest.fixture
def traced(monkeypatch):
    """Compiles without generating code."""
    torch._dynamo.reset()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile_(network, backend="aot_eager", dynamic=False))
    monkeypatch.setattr(module, "compiler_missing", lambda device: None)
    yield
    torch._dynamo.reset()


def step(call, model, images):
    torch.manual_seed(1)
    output = call(images, auxiliary=True)
    loss = output.logits.square().mean() + output.auxiliary.square().mean()
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_losses_and_gradients_are_the_network_s(model, traced, caplog):
    images = torch.rand(2, 3, 33, 41)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    loss, gradients = step(model, model, images)
    model.load_state_dict(state)
    compiled = Compiled(model)
    found, others = step(compiled, model, images)
    assert found == pytest.approx(loss, rel=1e-5)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-5)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert segcontext.update_bases(model) >= 0


def test_without_a_compiler_it_trains_uncompiled(model, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compiled, images = Compiled(model), torch.rand(2, 3, 33, 41)
    for _ in range(2):
        step(compiled, model, images)
    assert len(caplog.records) == 1
    assert "trains uncompiled: there is no C++ compiler" in caplog.text


def test_a_compiler_that_fails_is_not_asked_again(model, monkeypatch, caplog):
    asked = []

    def fail(images, **options):
        asked.append(options)
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(torch, "compile", lambda network, **options: fail)
    monkeypatch.setattr(module, "compiler_missing", lambda device: None)
    compiled, images = Compiled(model), torch.rand(2, 3, 33, 41)
    for _ in range(2):
        step(compiled, model, images)
    assert asked == [{"auxiliary": True}]
    assert "the compiler failed (RuntimeError: no such instruction)" in caplog.text
