"""The search for near hashes and for images that look alike, against all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.doctor.trees import picture, recompressed

from segcontext.doctor.copies import find_copies
from segcontext.doctor.fingerprint import Fingerprint, fingerprint
from segcontext.doctor.near import near_pairs
from segcontext.doctor.objects import BINS, object_sizes


def found(hashes, distance):
    return [
        pair
        for first, second in near_pairs(np.array(hashes, np.uint64), distance)
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    ]


def every_pair(hashes, distance):
    count = len(hashes)
    pairs = ((i, j) for i in range(count) for j in range(i + 1, count))
    return [(i, j) for i, j in pairs if (hashes[i] ^ hashes[j]).bit_count() <= distance]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 63), max_size=12)), max_size=12),
    st.sampled_from([0, 1, 3, 8, 15]),
)
def test_near_pairs_are_those_of_all_pairs_and_each_comes_once(seeds, changes, distance):
    hashes = list(seeds)
    for place, bits in changes:
        if place < len(seeds):
            hashes.append(seeds[place] ^ sum(1 << bit for bit in bits))
    assert sorted(found(hashes, distance)) == every_pair(hashes, distance)


@pytest.mark.parametrize("counting", ["numpy 2", "numpy 1"])
def test_many_equal_hashes_come_in_blocks(monkeypatch, counting):
    if counting == "numpy 1":
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    monkeypatch.setattr("segcontext.doctor.near._BLOCK", 50)
    hashes = [7] * 30 + [2**63, 2**63 + 7, 2**64 - 1]
    assert sorted(found(hashes, 2)) == every_pair(hashes, 2)


def slow_copies(prints, roles):
    """Links and best matches by comparing every image with every other."""
    order = {"train": 0, "val": 1, "test": 2}

    def difference(a, b):
        return np.abs(np.subtract(list(a.thumbnail), list(b.thumbnail))).mean()

    alike = {
        (i, j): difference(a, b)
        for i, a in enumerate(prints)
        for j, b in enumerate(prints)
        if i != j and min(a.contrast, b.contrast) >= 4 and (a.bits ^ b.bits).bit_count() <= 8 and difference(a, b) <= 8
    }
    best = {}
    for (i, j), value in alike.items():
        earlier = roles[i] is not None and roles[j] is not None and order[roles[j]] < order[roles[i]]
        if earlier and value < best.get(i, np.inf):
            best[i] = value
    return set(alike), best


def test_copies_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    prints, roles = [], []
    for seed in range(12):
        for _ in range(rng.integers(1, 6)):
            print_ = fingerprint(recompressed(picture(seed), int(rng.integers(20, 95))))
            prints.append(print_._replace(contrast=1.0) if rng.random() < 0.1 else print_)
            roles.append(rng.choice(["train", "val", "test", "none"]).replace("none", "") or None)
    copies = find_copies(prints, roles)
    pairs, best = slow_copies(prints, roles)
    assert pairs
    assert all(copies.groups[i] == copies.groups[j] for i, j in pairs)
    linked = {(i, j) for i in range(len(prints)) for j in range(len(prints)) if copies.groups[i] == copies.groups[j]}
    # Groups join what a chain of pairs joins, and nothing else.
    reached = {(i, i) for i in range(len(prints))} | pairs
    for _ in range(5):
        reached |= {(i, last) for i, j in reached for first, last in pairs if j == first}
    assert linked == reached
    assert {match.image: match.difference for match in copies.across} == pytest.approx(
        {image: round(value, 2) for image, value in best.items()}, abs=0.02
    )
    assert [match.difference for match in copies.across] == sorted(match.difference for match in copies.across)
    assert copies.blank == tuple(place for place, each in enumerate(prints) if each.contrast < 4)


def test_equal_hashes_alone_are_no_copies():
    dark, light = (Fingerprint(5, bytes([tone]) * 192, 40.0) for tone in (10, 200))
    copies = find_copies([dark, light], ["train", "val"])
    assert copies.groups[0] != copies.groups[1]
    assert copies.across == ()


def test_no_images_have_no_copies():
    assert find_copies([], []).across == ()
    assert find_copies([Fingerprint(0, bytes(192), 0.0)], [None]).blank == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_fingerprints_survive_resizing_and_compression(seed):
    original, other = picture(seed, width=200, height=150), picture(seed + 50, width=200, height=150)
    copy = recompressed(original.resize((133, 97)), 40)
    bits = [fingerprint(image).bits for image in (original, copy, other)]
    assert (bits[0] ^ bits[1]).bit_count() <= 6
    assert (bits[0] ^ bits[2]).bit_count() > 16


def test_a_single_tone_has_no_contrast():
    assert fingerprint(Image.new("RGB", (30, 20), (200, 10, 10))).contrast == 0


def slow_objects(labels, classes):
    """Regions by filling them from each pixel that no region has yet."""
    counts = np.zeros((classes, BINS), int)
    seen = np.zeros(labels.shape, bool)
    for start in np.ndindex(*labels.shape):
        value = labels[start]
        if seen[start] or value >= classes:
            continue
        todo, size = [start], 0
        seen[start] = True
        while todo:
            row, column = todo.pop()
            size += 1
            for place in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                inside = 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1]
                if inside and not seen[place] and labels[place] == value:
                    seen[place] = True
                    todo.append(place)
        counts[value, size.bit_length() - 1] += 1
    return counts


@pytest.mark.parametrize(("classes", "values"), [(3, (0, 1, 2)), (2, (0, 1, 255)), (5, (3, 4, 255)), (1, (255,))])
def test_object_sizes_are_those_of_filled_regions(classes, values):
    rng = np.random.default_rng(classes)
    labels = rng.choice(np.array(values, np.uint8), (23, 31), p=None)
    labels[4:14, 5:20] = values[0]
    np.testing.assert_array_equal(object_sizes(labels, classes), slow_objects(labels, classes))


def test_without_classes_there_are_no_objects():
    assert object_sizes(np.zeros((3, 3), np.uint8), 0).shape == (0, BINS)
