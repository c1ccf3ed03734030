"""The classes file by itself; `test_folder.py` has what a folder makes of it."""

import pytest

from segcontext.data.class_entries import VOID_NAMES, ClassEntry, as_colour, read_classes
from segcontext.errors import DataError, DatasetNotFound


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "0 sky 1 2 3\n4 grey wall\n9 Void  # not labelled\n"),
        ("classes.json", '[{"name": "sky", "value": 0, "colour": [1, 2, 3]}, {"name": "grey wall", "value": 4}, '
         '{"name": "Void", "value": 9}]'),
        ("classes.yaml", "- {name: sky, value: 0, color: [1, 2, 3]}\n- {name: grey wall, value: 4}\n"
         "- {name: Void, value: 9}\n"),
    ],
)  # fmt: skip
def test_the_three_forms_say_the_same(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    found = read_classes(tmp_path)
    assert found == [ClassEntry("sky", 0, (1, 2, 3)), ClassEntry("grey wall", 4, None), ClassEntry("Void", 9, None)]
    assert [entry.is_void for entry in found] == [False, False, True]


def test_every_word_for_void_is_one_in_any_case():
    assert all(ClassEntry(name.title(), 0, None).is_void for name in VOID_NAMES)
    assert not ClassEntry("avoid", 0, None).is_void


def test_a_folder_without_the_file_is_told_what_it_holds(tmp_path):
    (tmp_path / "labels.txt").write_text("sky\n")
    with pytest.raises(DatasetNotFound, match=r"expected classes\.txt.*holds: labels\.txt"):
        read_classes(tmp_path)


def test_a_list_that_contradicts_itself_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("1 sky\n1 wall\n")
    with pytest.raises(DataError, match="the value '1' twice"):
        read_classes(tmp_path)


def test_a_colour_has_three_numbers():
    assert as_colour(["1", 2, 3.0]) == (1, 2, 3)
    with pytest.raises(ValueError, match="unpack"):
        as_colour([1, 2])
