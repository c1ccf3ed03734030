"""Where kernels cannot run."""

import importlib
import logging

import pytest
import torch

from segcontext.gpu import availability, obstacle


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    availability._missing.cache_clear()
    yield
    availability._missing.cache_clear()


@pytest.fixture
def interpreting(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def test_the_cpu_has_none():
    assert obstacle(torch.zeros(1)) == "no CUDA device"


def test_the_interpreter_takes_the_cpu(interpreting):
    pytest.importorskip("triton")
    assert obstacle(torch.zeros(1), None) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32])
def test_dtypes_that_it_does_not_take(interpreting, dtype):
    assert obstacle(torch.zeros(1), torch.zeros(1, dtype=dtype)) == f"{str(dtype)[6:]} values"


def test_devices_are_one(interpreting):
    assert obstacle(torch.zeros(1), torch.zeros(1, device="meta")) == "tensors on several devices"


def test_the_switch(interpreting, monkeypatch):
    monkeypatch.setenv("SEGCONTEXT_TRITON", "0")
    assert "SEGCONTEXT_TRITON=0" in obstacle(torch.zeros(1))


@pytest.mark.parametrize("error", [ImportError("no triton"), SystemError("another Python")])
def test_a_triton_that_fails_is_told_once(interpreting, monkeypatch, caplog, error):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with caplog.at_level(logging.WARNING):
        assert str(error) in obstacle(torch.zeros(1))
        assert str(error) in obstacle(torch.zeros(1))
    assert len(caplog.records) == 1
