"""Plans of walks, which are kept: the next maps of the same layout have to get theirs, and only they."""

import itertools

import numpy as np
import pytest
import torch

from segcontext.native.row_plans import Geometry, mixes, products

GEOMETRY = Geometry(images=2, height=7, columns=20, size=3, dilation=2, gathers=False)
MAPS = {
    "rows side by side": lambda: torch.empty(2, 40, 7, 20),
    "part of a wider map": lambda: torch.empty(2, 40, 7, 32)[..., 5:25],
    "channels of another map": lambda: torch.empty(2, 80, 7, 20)[:, ::2],
    "bfloat16": lambda: torch.empty(2, 40, 7, 20, dtype=torch.bfloat16),
    "one image twice": lambda: torch.empty(1, 40, 7, 20).expand(2, -1, -1, -1),
}


def rows_of(units, start, step):
    """Where each row of the map begins, by image and row, as the units say it."""
    found = {}
    for unit in units:
        image, phase = divmod(int(unit[0]), GEOMETRY.height)
        for row in range(unit[1]):
            found[image, phase + row * GEOMETRY.dilation] = unit[start] + row * unit[step]
    return found


@pytest.mark.parametrize("order", list(itertools.permutations(MAPS, 2)), ids=" then ".join)
def test_addresses_are_those_of_the_maps_at_hand(order):
    for name in (*order, order[0]):
        left, right = MAPS[name](), MAPS[name]()
        units = products(GEOMETRY, 2, (left, right))
        for tensor, start in ((left, 4), (right, 7)):
            rows = rows_of(units, start, start + 1)
            assert rows == {
                (image, row): tensor[image, 0, row].data_ptr() for image in range(2) for row in range(GEOMETRY.height)
            }
            assert (units[:, start + 2] == tensor.stride(1) * tensor.element_size()).all()
        assert (units[:, 10] == 40).all()


def test_maps_elsewhere_have_plans_of_their_own():
    table = np.empty((14, 9, GEOMETRY.plane), np.float32)
    first, second, out = (torch.empty(2, 40, 7, 20) for _ in range(3))
    plans = [mixes(GEOMETRY, each, out, table) for each in (first, second, first)]
    assert np.array_equal(plans[0], plans[2])
    assert (plans[1][:, 4] - plans[0][:, 4] == second.data_ptr() - first.data_ptr()).all()
    assert np.array_equal(np.delete(plans[0], 4, 1), np.delete(plans[1], 4, 1))
    # Whoever changes a plan changes no other one.
    plans[0][:] = 0
    assert np.array_equal(mixes(GEOMETRY, first, out, table), plans[2])


def test_threads_and_margins_make_a_difference():
    x = torch.empty(1, 8, 5, 100)
    geometry = Geometry(1, 5, 100, 3, 1, False)
    assert len(products(geometry, 8, (x, x))) > len(products(geometry, 1, (x, x)))
    assert geometry._replace(gathers=True).plane > geometry.plane
