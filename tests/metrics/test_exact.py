"""Means of shares: exact, whatever the order; and the examples of the metrics' docstrings."""

import doctest
import importlib
import math
import pkgutil
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import segcontext.metrics
from segcontext.metrics.exact import mean, split, tally

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(shares=SHARES)
def test_the_mean_is_that_of_the_shares_rounded_to_53_bits(shares):
    exact = sum(Fraction(round(Fraction(share) * 2**53), 2**53) for share in shares) / len(shares)
    assert mean(tally(torch.tensor(shares, dtype=torch.float64))).item() == float(exact)


@given(shares=SHARES, cut=st.integers(0, 40), seed=st.integers(0, 99))
def test_neither_order_nor_parts_matter(shares, cut, seed):
    values = torch.tensor(shares, dtype=torch.float64)
    mixed = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))]
    assert torch.equal(tally(mixed[:cut]) + tally(mixed[cut:]), tally(values))


def test_parts_are_whole_numbers_of_their_sizes():
    assert split(torch.tensor([0.0, 1.0, 0.5, 2.0**-53, 1 - 2.0**-53], dtype=torch.float64)).tolist() == [
        [0, 0],
        [2**26, 0],
        [2**25, 0],
        [0, 1],
        [2**26 - 1, 2**27 - 1],
    ]


def test_nan_does_not_count_and_nothing_has_no_mean():
    table = torch.tensor([[0.25, math.nan], [0.75, math.nan], [math.nan, math.nan]])
    found = mean(tally(table))
    assert found[0] == 0.5
    assert found[1].isnan()
    assert tally(table)[:, 2].tolist() == [2, 0]


def test_large_sums_are_exact():
    # As many as a data set of a thousand large images has pixels.
    one = tally(torch.tensor([1 / 3], dtype=torch.float64))
    assert mean(one * 2**31) == mean(one)


def modules():
    return [f"segcontext.metrics.{found.name}" for found in pkgutil.iter_modules(segcontext.metrics.__path__)]


@pytest.mark.parametrize("name", modules())
def test_examples_run(name):
    # Some modules have the name of their function, which hides them from an import statement.
    found = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    assert found.failed == 0


def test_every_public_name_is_there():
    assert len(segcontext.metrics.__all__) == len(set(segcontext.metrics.__all__))
    assert [name for name in segcontext.metrics.__all__ if not hasattr(segcontext.metrics, name)] == []
