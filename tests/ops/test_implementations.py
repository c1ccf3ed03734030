"""The choice between forms of an operation."""

import logging

import pytest

from segcontext.errors import RecipeError
from segcontext.ops import implementations
from segcontext.ops.implementations import choose, use_implementation


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(implementations, "_TOLD", set())


def test_the_first_that_can():
    assert choose("op", None, {"triton": "no GPU", "native": None}) == "native"
    # Not before it has run on a GPU.
    assert choose("op", None, {"triton": None, "native": None}) == "native"
    assert choose("op", "auto", {"triton": "no GPU", "native": "float64"}) == "reference"


def test_the_one_asked_for():
    assert choose("op", "reference", {"native": None}) == "reference"
    assert choose("op", "native", {"triton": None, "native": None}) == "native"


def test_what_cannot_run_is_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert choose("op", "triton", {"triton": "no GPU", "native": None}) == "reference"
            assert choose("op", "native", {}) == "reference"
    assert [record.getMessage() for record in caplog.records] == [
        "op runs in its reference form and not as triton: no GPU.",
        "op runs in its reference form and not as native: there is no such form of it.",
    ]


def test_within_a_block():
    with use_implementation("reference"):
        assert choose("op", None, {"native": None}) == "reference"
        with use_implementation("native"):
            assert choose("op", None, {"triton": None, "native": None}) == "native"
        assert choose("op", None, {"native": None}) == "reference"
        assert choose("op", "native", {"native": None}) == "native"
    assert choose("op", None, {"native": None}) == "native"


def test_an_unknown_form():
    with pytest.raises(RecipeError, match="native"), use_implementation("nativ"):
        pass
    with pytest.raises(RecipeError, match="must be one of"):
        choose("op", "cuda", {})
