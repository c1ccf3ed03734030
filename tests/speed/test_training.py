"""Networks compiled for training: the same losses, weights under their own names, and no error without a compiler."""

import copy
import logging
import shutil

import pytest
import torch

import segcontext
from segcontext.speed import Compiled
from segcontext.speed import training as module
from segcontext.speed.rehearsal import rehearse


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


class FailingBackward:
    """A compiler that makes the forward kernels, and fails at those of the backward pass."""

    def __init__(self):
        self.asked = 0

    def __call__(self, graph, inputs):
        from torch._dynamo.backends.common import aot_autograd

        return aot_autograd(fw_compiler=lambda forward, _: forward, bw_compiler=self.fail)(graph, inputs)

    def fail(self, backward, inputs):
        self.asked += 1
        raise RuntimeError("no registers left")


@pytest.fixture
def failing(monkeypatch):
    torch._dynamo.reset()
    backend, compile_ = FailingBackward(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile_(network, backend=backend, dynamic=False))
    monkeypatch.setattr(module, "compiler_missing", lambda device: None)
    yield backend
    torch._dynamo.reset()


def test_a_compiler_that_fails_at_the_backward_pass_costs_nothing(model, failing, caplog):
    """What comes out is, bit for bit, what comes out uncompiled: statistics, bases, random numbers and gradients."""
    plain, images = copy.deepcopy(model), torch.rand(2, 3, 33, 41)
    compiled = Compiled(model)
    for _ in range(2):
        loss, gradients = step(plain, plain, images)
        found, others = step(compiled, model, images)
        assert found == loss
        assert others.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert torch.equal(others[name], gradient), name
        segcontext.update_bases(plain)
        segcontext.update_bases(model)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert failing.asked == 1
    (said,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert said == "The network trains uncompiled: the compiler failed (RuntimeError: no registers left)."


def test_a_rehearsal_leaves_no_trace():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network[0].seen = None

    def call(images):
        network[0].seen = images.sum()
        return (network(images), "a word", None)

    random = torch.get_rng_state()
    rehearse(call, network, torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), random)
    assert network[0].seen is None
    assert all(weight.grad is None for weight in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


class Busy(torch.nn.Module):
    """Does to its buffers all that a module can."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))
        for name, value in (("empty", None), ("written", torch.zeros(2)), ("replaced", torch.ones(2))):
            self.register_buffer(name, value)
        self.register_buffer("removed", torch.ones(1), persistent=False)

    def forward(self, images):
        self.empty = images.sum()
        self.written += 1
        self.register_buffer("replaced", torch.rand(3), persistent=False)
        self.register_buffer("new", images.mean(), persistent=False)
        del self.removed
        return self.weight * images


def test_a_rehearsal_leaves_the_buffers_that_were_there():
    network = torch.nn.Sequential(Busy(), torch.nn.Identity())
    before = dict(network[0]._buffers)
    values = {name: each.clone() for name, each in before.items() if each is not None}
    state = list(network.state_dict())
    rehearse(network, network, torch.ones(1, 3, 2, 2))
    assert list(network[0]._buffers) == list(before)
    assert all(network[0]._buffers[name] is each for name, each in before.items())
    assert all(torch.equal(before[name], value) for name, value in values.items())
    assert list(network.state_dict()) == state


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:")
def test_a_rehearsal_runs_scripted_parts():
    network = torch.nn.Sequential(torch.jit.script(torch.nn.BatchNorm2d(3)), torch.nn.Conv2d(3, 2, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rehearse(network, network, torch.rand(2, 3, 4, 4))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
