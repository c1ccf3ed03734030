"""Mistakes in the values of masks are named, and the lines that mend them ruin nothing."""

import numpy as np
import pytest
from PIL import Image
from tests.doctor.trees import labels, picture


def holding(values, seed):
    """A mask with all of these values, in stripes whose widths differ from seed to seed."""
    edges = np.sort(np.random.default_rng(seed).choice(np.arange(1, 64), len(values) - 1, replace=False))
    row = np.asarray(values)[np.searchsorted(edges, np.arange(64), side="right")]
    return Image.fromarray(np.tile(row, (48, 1)).astype(np.uint8 if max(values) < 256 else np.uint16))


@pytest.fixture
def masks(tree):
    """Writes one pair for each set of values."""

    def call(classes, *sets):
        tree.classes(classes)
        for number, values in enumerate(sets):
            split = "val" if number == len(sets) - 1 else "train"
            tree.add(f"{split}/{number}", number, mask=holding(values, number))
        return tree

    return call


def errors(diagnosis):
    return [finding.code for finding in diagnosis.findings if finding.severity == "error"]


def mended(tree, look):
    """Applies the lines for the classes file and asserts that they leave no error."""
    diagnosis, _ = look(tree)
    assert errors(diagnosis)
    text = diagnosis.mend()["classes.txt"]
    (tree.root / "classes.txt").write_text(text)
    assert errors(look(tree)[0]) == []
    return text


# One mistake, with the code that names it and the lines that mend it

ONE_CLASS, TWO, THREE = "crack", "background\ncrack", "background\na\nb"
MENDS = {
    "one class, 0 and 255": (ONE_CLASS, [(0, 255)], "binary-0-255", "0 background\n255 crack\n"),
    "one class, 0 and 1": (ONE_CLASS, [(0, 1)], "single-class", "0 background\n1 crack\n"),
    "one class and void": ("0 void 9 9 9\n1 crack", [(0, 1)], "single-class", "0 background 9 9 9\n1 crack\n"),
    "one class, the background": ("background", [(0, 1)], "single-class", "0 background\n1 thing\n"),
    "one class, 0, 1 and void": (ONE_CLASS, [(0, 1, 255)], "single-class", "0 background\n1 crack\n"),
    "two classes, 0 and 255": (TWO, [(0, 255)], "binary-0-255", "0 background\n255 crack\n"),
    "and a slip": (TWO, [(0, 255)] * 6 + [(0, 7, 255)], "binary-0-255", "0 background\n7 void\n255 crack\n"),
    "three classes, 0 and 255": (THREE, [(0, 255)], "binary-0-255", "0 background\n255 a\n2 b\n"),
    "the reverse": ("0 background 1 1 1\n255 thing", [(0, 1)], "binary-0-255", "0 background 1 1 1\n1 thing\n"),
    "both void": ("0 void\n1 a\n2 b", [(0, 255)], "binary-0-255", "0 a\n255 b\n"),
    "a slip beside void and colours": (
        "0 void\n1 road 128 64 128\n2 car 0 0 142",
        [(0, 1, 2)] * 4 + [(0, 1, 77)],
        "outside-classes",
        "0 void\n1 road 128 64 128\n2 car 0 0 142\n77 ignore\n",
    ),
    "0 where the file starts at 1": ("1 a\n2 b\n3 c 1 1 1", [(0, 1, 2)], "off-by-one", "0 a\n1 b\n2 c 1 1 1\n"),
    "1 where the file starts at 0": ("a\nb\n7 void", [(1, 2)], "off-by-one", "1 a\n2 b\n7 void\n"),
    "a class too few": (TWO, [(0, 1, 2)], "off-by-one", "0 background\n1 crack\n2 class_2\n"),
    "one of the values is another": ("a\nb\nc", [(0, 1, 7)], "other-values", "0 a\n1 b\n7 c\n"),
    "void and its colour go along": ("a\nb\nvoid 5 5 5", [(1, 2, 3)], "off-by-one", "1 a\n2 b\n3 void 5 5 5\n"),
}


@pytest.mark.parametrize("case", MENDS)
def test_the_mistake_is_named_and_its_lines_leave_no_error(case, masks, look):
    classes, sets, code, lines = MENDS[case]
    tree = masks(classes, *sets * (4 // len(sets) or 1))
    assert errors(look(tree)[0]) == [code]
    assert mended(tree, look) == lines


def test_masks_of_0_and_255_among_indices_are_an_error_without_lines(masks, look):
    tree = masks("background\ncrack", *[(0, 1)] * 3, *[(0, 255)] * 3)
    diagnosis, found = look(tree)
    assert errors(diagnosis) == ["binary-0-255"]
    assert found["binary-0-255"].count == 3
    assert "store 1 in its place" in found["binary-0-255"].cure
    assert "classes.txt" not in diagnosis.mend()


def test_void_beside_objects_is_void(masks, look):
    tree = masks("background\ncrack", *[(0, 1, 255)] * 3, *[(0, 255)] * 3, (0, 1))
    assert look(tree)[0].healthy
    assert not {"binary-0-255", "void-or-class"} & look(tree)[1].keys()


def test_whoever_says_that_255_is_void_is_not_asked(masks, look):
    tree = masks("background\ncrack\nthing\n255 void", *[(0, 1)] * 3, *[(0, 255)] * 3)
    assert not {"binary-0-255", "void-or-class"} & look(tree)[1].keys()


def test_masks_of_0_and_1_among_those_of_0_and_255_are_an_error(masks, look):
    diagnosis, found = look(masks("0 background\n255 crack", *[(0, 255)] * 3, *[(0, 1)] * 2))
    assert errors(diagnosis) == ["binary-0-255"]
    assert found["binary-0-255"].count == 2
    assert "classes.txt" not in diagnosis.mend()


def test_void_may_be_the_last_class(masks, look):
    diagnosis, found = look(masks("background\na\nb", *[(0, 1, 255)] * 4))
    assert found["void-or-class"].severity == "warning"
    assert "is 255 'b'" in found["void-or-class"].cure
    assert "`0 background`, `1 a`, `255 b`" in found["void-or-class"].cure
    assert "classes.txt" not in diagnosis.mend()


def test_labels_from_1_without_the_last_class_are_a_question(masks, look):
    diagnosis, found = look(masks("a\nb\nc", *[(1, 2)] * 4))
    assert diagnosis.healthy
    assert "start at 1" in found["off-by-one"].cure
    assert "classes.txt" not in diagnosis.mend()


def test_some_masks_that_are_one_too_high_are_named(masks, look):
    diagnosis, found = look(masks("a\nb\nc\nvoid", *[(0, 1, 2, 3)] * 5, (1, 2, 4), (1, 3, 4)))
    assert errors(diagnosis) == ["off-by-one"]
    assert found["off-by-one"].title == "The labels of 2 masks are one too high: they hold 4 and no 0."
    assert "subtract 1" in found["off-by-one"].cure
    assert [example.mask for example in found["off-by-one"].examples] == ["masks/train/5.png", "masks/val/6.png"]
    assert "classes.txt" not in diagnosis.mend()


def test_a_mask_that_is_one_too_low_is_named(masks, look):
    found = look(masks("1 a\n2 b\n3 c", *[(1, 2, 3)] * 5, (0, 1, 2)))[1]
    assert "one too low" in found["off-by-one"].title
    assert "add 1" in found["off-by-one"].cure


def test_where_shifted_masks_are_not_clear_it_is_asked(masks, look):
    found = look(masks("a\nb\nc", *[(0, 1, 2)] * 3, *[(1, 2)] * 2, (2, 3)))[1]
    assert found["off-by-one"].title.endswith("are its labels one too high?")
    assert "if so" in found["off-by-one"].cure


def test_other_wrong_values_do_not_hide_shifted_masks(masks, look):
    found = look(masks("a\nb\nc", *[(0, 1, 2)] * 5, (1, 2, 3), (0, 3, 4, 5, 6)))[1]
    assert found["off-by-one"].count == 1
    assert found["outside-classes"].count == 1
    assert "6" in found["outside-classes"].title


@pytest.mark.parametrize(
    ("others", "off", "words"),
    [
        (
            [(0, 1, 2)] * 6,
            [(1, 2, 3)],
            "'d' is in one mask alone, which does not show 'a': are its labels one too high?",
        ),
        (
            [(0, 1, 2)] * 6,
            [(1, 2, 3)] * 2,
            "'d' is in 2 masks alone, none of which shows 'a': are their labels one too",
        ),
        # The first class is there too, few masks show it, or the mask has too few classes to tell.
        ([(0, 1, 2)] * 6, [(0, 2, 3)], None),
        ([(0, 1, 2)] * 3 + [(1, 2)] * 3, [(1, 2, 3)], None),
        ([(0, 1, 2)] * 6, [(2, 3)], None),
        ([(0, 1, 2)] * 3, [(1, 2, 3)], None),
        ([(0, 1, 2)] * 6 + [(0, 3)], [(1, 2, 3)], None),
    ],
)
def test_masks_that_alone_show_the_last_class_may_be_one_too_high(masks, look, others, off, words):
    diagnosis, found = look(masks("a\nb\nc\nd", *others, *off))
    assert diagnosis.healthy
    if words is None:
        assert "off-by-one" not in found
    else:
        assert words in found["off-by-one"].title
        assert found["off-by-one"].severity == "warning"
        assert "classes.txt" not in diagnosis.mend()


def test_labels_times_257_are_named(masks, look):
    tree = masks("a\nb\nc", *[(0, 1, 2)] * 4, (0, 257, 514, 65535))
    diagnosis, found = look(tree)
    assert errors(diagnosis) == ["scaled-labels"]
    assert "Divide every value of these masks by 257" in found["scaled-labels"].cure
    assert found["scaled-labels"].count == 1
    assert "instances" not in str(diagnosis.values())


def test_many_labels_times_257_are_no_picture(masks, look):
    tree = masks("\n".join(f"c{index}" for index in range(40)), *[tuple(257 * index for index in range(40))] * 2)
    assert errors(look(tree)[0]) == ["scaled-labels"]


def test_more_values_than_are_called_void_have_no_lines(masks, look):
    diagnosis, found = look(masks("a\nb\nc", *[(0, 1, 2)] * 4, (0, 77, 78, 79, 80)))
    assert found["outside-classes"].mend == []
    assert "below" not in found["outside-classes"].cure
    assert "classes.txt" not in diagnosis.mend()


def test_a_value_that_may_be_a_class_is_not_called_void(masks, look):
    diagnosis, found = look(masks("a\nb\nc", *[(0, 1)] * 4, (0, 1, 77)))
    assert "is 77 it" in found["outside-classes"].cure
    assert "classes.txt" not in diagnosis.mend()


def test_values_without_names_are_listed_only_if_they_tell_something_apart(masks, look):
    tree = masks("a", *[(0, 255)] * 2, *[(0, 1)] * 2)
    (tree.root / "classes.txt").unlink()
    diagnosis, found = look(tree)
    assert "alike" in found["unnamed-values"].cure
    assert "classes.txt" not in diagnosis.mend()


def test_masks_of_strange_values_are_not_called_void_masks(masks, look):
    assert errors(look(masks("a\nb", (7,), (7, 9, 11), (7, 9, 11)))[0]) == ["outside-classes"]


def test_classes_keep_their_colours_when_masks_store_colours(tree, look):
    tree.classes("0 void 0 0 0\n1 road\n2 car 0 0 142\n3 sky\n4 bus")
    table = np.array([(0, 0, 0), (0, 0, 142), (9, 9, 9)], np.uint8)
    for number in range(3):
        found = np.asarray(labels(number))
        tree.save(picture(number), f"images/{'val' if number == 2 else 'train'}/{number}.png")
        tree.save(Image.fromarray(table[found]), f"masks/{'val' if number == 2 else 'train'}/{number}.png")
    lines = look(tree)[0].mend()["classes.txt"].splitlines()
    assert [line.partition("  #")[0] for line in lines] == [
        "void 0 0 0",
        "road 9 9 9",
        "car 0 0 142",
        "# sky r g b: no colour is left for it",
        "# bus r g b: no colour is left for it",
    ]
