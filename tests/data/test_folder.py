import json
import pickle

import numpy as np
import pytest
from PIL import Image

from segcontext.data import Folder, open_dataset
from segcontext.errors import DataError, DatasetNotFound, LabelError, RecipeError, SampleError
from segcontext.pictures import default_palette


def add(root, name, values=(0, 1), folder="", palette=None):
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        path = root / kind / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray(np.array([values], np.uint8))
        if kind == "masks" and palette:
            pixels.putpalette([*palette, *[0] * (768 - len(palette))])
            pixels.save(path)
        else:
            pixels.convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "classes.txt").write_text("wall\ntraffic light\n")
    return tmp_path


def names(data):
    return [item.name for item in data.items]


def test_everything_is_one_split_without_lists_and_folders(root):
    for name in ("b", "a"):
        add(root, name)
    data = open_dataset(root, "all")
    assert isinstance(data, Folder)
    assert data.classes == ("wall", "traffic light")
    assert names(data) == ["a", "b"]
    assert data[0].mask.tolist() == [[0, 1]]


def test_hash_parts_the_names_for_good(root):
    for index in range(60):
        add(root, f"{index:02d}")
    train, val = set(names(Folder(root, "train"))), set(names(Folder(root, "val")))
    assert train | val == set(names(Folder(root, "all")))
    assert not train & val
    assert 4 <= len(val) <= 20
    add(root, "another")
    assert set(names(Folder(root, "val"))) - {"another"} == val
    # Written down, so that another hash function, which would mix the splits of existing runs, is noticed.
    assert sorted(val)[:3] == ["06", "07", "08"]


def test_sub_folders_are_splits(root):
    add(root, "a", folder="train/town")
    add(root, "b", folder="extra")
    assert names(Folder(root, "train")) == ["town/a"]
    assert names(Folder(root, "extra")) == ["b"]
    with pytest.raises(RecipeError, match=r"no split 'val'; it has extra, train"):
        Folder(root, "val")


def test_sub_folders_of_other_names_are_no_splits(root):
    add(root, "a", folder="town")
    add(root, "b", folder="village")
    assert names(Folder(root, "all")) == ["town/a", "village/b"]


@pytest.mark.parametrize("place", ["train.txt", "splits/train.txt"])
def test_list_files_choose_and_order(root, place):
    for name in ("a", "b", "c.5"):
        add(root, name)
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text("# chosen by hand\nc.5\n\nimages/a.png  # with its suffix\n")
    assert names(Folder(root, "train")) == ["c.5", "a"]
    with pytest.raises(RecipeError, match=r"no split 'val'; it has train"):
        Folder(root, "val")


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        ("a\nz.png", SampleError, r"train\.txt, line 2: no image 'z\.png'"),
        ("a\na.png", DataError, r"train\.txt, line 2: 'a\.png' is listed twice"),
        ("# nothing", DatasetNotFound, "'train' of folder .* is empty"),
    ],
)
def test_wrong_list_file_is_named(root, lines, error, message):
    add(root, "a")
    (root / "train.txt").write_text(lines)
    with pytest.raises(error, match=message):
        Folder(root, "train")


def test_unlisted_image_needs_no_mask(root):
    add(root, "a")
    add(root, "b")
    (root / "masks" / "b.png").unlink()
    (root / "train.txt").write_text("a")
    assert len(Folder(root, "train")) == 1


def test_image_without_mask_is_refused_unless_labels_are_not_wanted(root):
    add(root, "a")
    (root / "masks" / "a.png").unlink()
    with pytest.raises(SampleError, match=r"1 of 1 images .* have no mask: images/a\.png"):
        Folder(root, "all")
    (root / "masks").rmdir()
    with pytest.raises(DatasetNotFound, match=r"No folder .*masks"):
        Folder(root, "all")
    assert Folder(root, "all", labels=False)[0].mask is None


CLASS_FILES = [
    ("classes.txt", "wall\ntraffic light\n", {0: 0, 1: 1, 255: 255}),
    ("classes.txt", "\ufeffwall # grey\n\n  traffic light \n255 void\n", {0: 0, 1: 1, 255: 255}),
    ("classes.txt", "void\nwall\ntraffic light\n", {0: 255, 1: 0, 2: 1, 255: 255}),
    ("classes.txt", "7 wall\n3 traffic light\n0 Ignore", {7: 0, 3: 1, 0: 255, 255: 255}),
    ("classes.txt", "0 wall\n255 traffic light", {0: 0, 255: 1}),
    ("classes.json", json.dumps(["wall", "traffic light"]), {0: 0, 1: 1, 255: 255}),
    ("classes.json", json.dumps({"5": "wall", "6": "traffic light"}), {5: 0, 6: 1, 255: 255}),
    ("classes.yaml", "0: wall\n1: traffic light\n9: void", {0: 0, 1: 1, 9: 255, 255: 255}),
    ("classes.yml", "- wall\n- {name: traffic light, value: 4}", None),
    ("classes.yml", "- {name: wall, value: 2}\n- {name: traffic light, value: 4}", {2: 0, 4: 1, 255: 255}),
]


@pytest.mark.parametrize(("file", "text", "expected"), CLASS_FILES)
def test_classes_files(tmp_path, file, text, expected):
    add(tmp_path, "a")
    (tmp_path / file).write_text(text, encoding="utf-8")
    if expected is None:
        with pytest.raises(DataError, match="'wall' has no value, others have"):
            Folder(tmp_path, "all")
        return
    data = Folder(tmp_path, "all")
    assert data.classes == ("wall", "traffic light")
    assert data.label_map() == expected


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.txt", "\n", r"classes\.txt names 0 classes"),
        ("classes.txt", "void\n", r"classes\.txt names 0 classes"),
        ("classes.txt", "wall\nwall", "name 'wall' twice"),
        ("classes.txt", "1 wall\n1 door", "value '1' twice"),
        ("classes.txt", "1 wall\n256 door", "the number 256"),
        ("classes.txt", "wall 0 0 300", "the number 300"),
        ("classes.txt", "\n".join(f"class{i}" for i in range(256)), "names 256 classes"),
        ("classes.json", "[1, 2]", "class name 1 is not text"),
        ("classes.json", "[", "not a list of classes"),
        ("classes.json", '[{"title": "wall"}]', "not a list of classes"),
        ("classes.json", '[{"name": "wall", "colour": [1, 2]}]', "not a list of classes"),
        ("classes.json", "5", "not a list of classes"),
        ("classes.yaml", "wall: [1, 2, 3]", "not a list of classes"),
        ("classes.yaml", "- yes\n- no", "put it into quotes"),
        ("classes.yaml", "{", "not a list of classes"),
    ],
)
def test_wrong_classes_file_is_named(tmp_path, file, text, message):
    add(tmp_path, "a")
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Folder(tmp_path, "all")
    assert str(tmp_path / file) in str(caught.value)


def test_no_classes_file_is_refused(tmp_path):
    add(tmp_path, "a")
    with pytest.raises(DatasetNotFound, match=r"No classes file in .* holds: images/, masks/"):
        Folder(tmp_path, "all")


def test_palette_of_the_classes_file_comes_first(root):
    add(root, "a", palette=[1, 2, 3, 4, 5, 6])
    (root / "classes.txt").write_text("wall 10 20 30\ntraffic light 40 50 60\n")
    assert Folder(root, "all").palette == ((10, 20, 30), (40, 50, 60))


def test_palette_of_the_masks_comes_second(root):
    add(root, "a", palette=[9, 9, 9, 1, 2, 3, 4, 5, 6])
    (root / "classes.txt").write_text("1 wall\n2 traffic light\n0 void 7 7 7\n")
    data = Folder(root, "all")
    assert data.palette == ((1, 2, 3), (4, 5, 6))
    assert data[0].mask.tolist() == [[255, 0]]


def test_palette_is_made_up_otherwise(root):
    add(root, "a")
    assert Folder(root, "all").palette == default_palette(2)
    (root / "masks" / "a.png").write_text("broken")
    assert Folder(root, "all").palette == default_palette(2)
    assert Folder(root, "all", labels=False).palette == default_palette(2)


def test_colours_of_the_classes_file_decode_masks(root):
    add(root, "a")
    Image.fromarray(np.array([[(40, 50, 60), (0, 0, 0)]], np.uint8)).save(root / "masks" / "a.png")
    (root / "classes.txt").write_text("wall 10 20 30\ntraffic light 40 50 60\nvoid 0 0 0")
    assert Folder(root, "all")[0].mask.tolist() == [[1, 255]]
    (root / "classes.txt").write_text("wall 10 20 30\ntraffic light 40 50 60")
    with pytest.raises(LabelError, match=r"1 pixels of colours that are no class, such as \(0, 0, 0\)"):
        Folder(root, "all")[0]
    (root / "classes.txt").write_text("wall\ntraffic light 40 50 60")
    with pytest.raises(SampleError, match="classes file"):
        Folder(root, "all")[0]


NUMBERED = "wall 10 20 30\ntraffic light 40 50 60\nvoid 0 0 0"


@pytest.mark.parametrize(
    ("values", "palette", "message"),
    [
        (
            (0, 1),
            [40, 50, 60, 10, 20, 30],
            r"a\.png: .*index 0, .*'wall', the colour \(40, 50, 60\) of 'traffic light'",
        ),
        ((1, 1), [40, 50, 60, 10, 20, 30], r"index 1, .*'traffic light', the colour \(10, 20, 30\) of 'wall'"),
        ((0, 2), [10, 20, 30, 1, 1, 1, 40, 50, 60], r"index 2, .*'void', the colour .* of 'traffic light', .* is 1"),
        ((0, 5), [10, 20, 30, *[9] * 12, 40, 50, 60], r"index 5, .*no class, the colour .*convert MASKS --classes"),
    ],
)
def test_a_palette_that_contradicts_the_classes_is_refused(root, values, palette, message):
    add(root, "a", values, palette=palette)
    (root / "classes.txt").write_text(NUMBERED)
    with pytest.raises(LabelError, match=message):
        Folder(root, "all")[0]


@pytest.mark.parametrize(
    ("values", "palette"),
    [
        # That of the classes, others, and one whose wrong entry no pixel has; zeros fill it up and are not void's.
        ((0, 1, 255), [10, 20, 30, 40, 50, 60]),
        ((0, 1, 255), [1, 2, 3, 4, 5, 6]),
        ((0, 1, 255), [1, 2, 3]),
        ((1, 2, 255), [40, 50, 60, 4, 5, 6]),
    ],
)
def test_palettes_that_say_nothing_or_the_same_leave_indices(root, values, palette):
    add(root, "a", values, palette=palette)
    (root / "classes.txt").write_text(NUMBERED)
    assert Folder(root, "all")[0].mask.tolist() == [[value if value < 2 else 255 for value in values]]


def test_binary_mask_read_as_void_is_warned_of_once(root, caplog):
    add(root, "a", values=(0, 255))
    data = Folder(root, "all")
    assert data[0].mask.tolist() == [[0, 255]]
    data.read_mask(0)
    assert caplog.text.count("write '0 wall' and '255 traffic light' in the classes file") == 1
    caplog.clear()
    (root / "classes.txt").write_text("0 wall\n255 traffic light")
    assert Folder(root, "all")[0].mask.tolist() == [[0, 1]]
    assert not caplog.records


def test_pickled_copy_reads_the_same(root):
    add(root, "a", folder="train")
    copy = pickle.loads(pickle.dumps(Folder(root, "train")))
    assert copy.classes == ("wall", "traffic light")
    assert copy[0].mask.tolist() == [[0, 1]]


def test_missing_images_folder_says_what_lies_there(root):
    with pytest.raises(DatasetNotFound, match=r"expected images/, masks/ and classes\.txt.* holds: classes\.txt"):
        Folder(root)
