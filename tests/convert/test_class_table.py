"""Lists of classes are read, written, read back, and get a background."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segcontext.convert import ClassTable, FolderTarget, read_class_table
from segcontext.convert.class_table import is_void
from segcontext.data import Folder
from segcontext.errors import DataError, OutputExists

ODD = ["3 wheeler", "3 4 wheels", "5", "1 2", "car 1 2 3", "r g b", "name r g b", "a,", "7;", "_", "red house"]
words = st.one_of(st.sampled_from(ODD), st.text())
names = st.lists(words, min_size=1, max_size=4).map(" ".join)


def own(folder, text):
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / "a.png").touch()
    (folder / "classes.txt").write_text(text, encoding="utf-8", newline="")
    return Folder(folder, "all")


@settings(max_examples=300, deadline=None)
@given(st.lists(names, min_size=1, max_size=5, unique=True))
def test_what_is_written_is_read_back(tmp_path_factory, given_names):
    assume(not all(map(is_void, given_names)))
    table, folder = ClassTable.of(given_names), tmp_path_factory.mktemp("own")
    try:
        text = table.text()
    except DataError:
        assert any(name != name.strip() or "#" in name or len(name.splitlines()) != 1 for name in table.names)
        return
    data = own(folder, text)
    assert (data.classes, data.palette) == (table.names, table.palette)
    assert data.label_map() == {**{value: value for value in range(len(table.names))}, 255: 255}
    found = read_class_table(folder / "classes.txt")
    assert (found.names, found.palette) == (table.names, table.palette)


@pytest.mark.parametrize("name", ODD)
def test_numbers_and_signs_in_names_are_no_values_and_colours(tmp_path, name):
    table = ClassTable.of(["sky", name, "3 lane 4"])
    data = own(tmp_path, table.text())
    assert data.classes == read_class_table(tmp_path / "classes.txt").names == table.names
    assert data.palette == table.palette


@pytest.mark.parametrize("name", ["c# thing", " car", "", "one\ntwo", "one\u2028two"])
def test_names_that_cannot_be_written_are_refused_before_anything_is(tmp_path, name):
    table = ClassTable.of(["sky", name])
    with pytest.raises(DataError, match=r"cannot stand in classes\.txt"):
        FolderTarget(folder=tmp_path / "out").check(table, ["a"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("sky 1 2 3\ncar 4 5 6\n", True),
        ("# mine\n0 sky\n1 car 4 5 6\n\n255 void 0 0 0\n", True),
        ("car 4 5 6\nsky 1 2 3\n", False),
        ("sky 1 2 3\ncar 4 5 7\n", False),
        ("1 sky 1 2 3\n2 car 4 5 6\n", False),
        ("sky 1 2 3\n", False),
        ("1 sky\ncar\n", False),
    ],
)
def test_a_classes_file_that_says_the_same_in_other_words_is_kept(tmp_path, text, same):
    (tmp_path / "list.txt").write_text("sky 1 2 3\ncar 4 5 6\nvoid 0 0 0\n")
    (tmp_path / "classes.txt").write_text(text)
    table = read_class_table(tmp_path / "list.txt")
    target = FolderTarget(folder=tmp_path)
    if not same:
        with pytest.raises(OutputExists, match="names other classes"):
            target.check(table, ["a"])
        return
    target.check(table, ["a"])
    target.finish(table)
    assert (tmp_path / "classes.txt").read_text() == text
    FolderTarget(folder=tmp_path, overwrite=True).finish(table)
    assert (tmp_path / "classes.txt").read_text() == "0 sky 1 2 3\n1 car 4 5 6\n"


def test_a_background_comes_first_and_the_rest_stays(tmp_path):
    (tmp_path / "list.txt").write_text("person 1 2 3\ncar 4 5 6\nvoid 0 0 0\nignore\nperson 7 8 9\n")
    table = read_class_table(tmp_path / "list.txt").with_background("ground")
    assert table.names == ("ground", "person", "car")
    assert table.palette[1:] == ((1, 2, 3), (4, 5, 6))
    assert table.palette[0] not in {(1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 0, 0)}
    assert table.meanings == {"ground": 0, "person": 1, "car": 2, "void": 255, "ignore": 255}
    assert table.colours == {(1, 2, 3): 1, (4, 5, 6): 2, (0, 0, 0): 255, (7, 8, 9): 1}


def test_a_background_needs_room():
    table = ClassTable.of([f"c{number}" for number in range(255)])
    with pytest.raises(DataError, match="256 classes"):
        table.with_background("ground")
    smaller = ClassTable.of(table.names[:-1]).with_background("ground")
    assert len(set(smaller.palette)) == 255
