"""Machines that cannot compile loops."""

import importlib
import logging

import pytest

from segcontext.native import availability, is_available, unavailable


@pytest.fixture(autouse=True)
def forgetful():
    availability._missing.cache_clear()
    yield
    availability._missing.cache_clear()


def test_numba_is_here():
    assert is_available()


def test_the_switch(monkeypatch):
    monkeypatch.setenv("SEGCONTEXT_NATIVE", "0")
    assert "SEGCONTEXT_NATIVE=0" in unavailable()


@pytest.mark.parametrize("error", [ImportError("no numba"), SystemError("another numpy")])
def test_a_numba_that_fails_is_told_once(monkeypatch, caplog, error):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with caplog.at_level(logging.WARNING):
        assert str(error) in unavailable()
        assert not is_available()
    assert len(caplog.records) == 1
