import pickle
from pathlib import Path

import numpy as np
import pytest

from segcontext.data import DATASETS, COCOStuff, Dataset, PascalContext60, open_dataset
from segcontext.data.releases import join, locate, pick, read_names, steps
from segcontext.data.voc_colours import voc_colours
from segcontext.errors import DataError, DatasetNotFound, LabelError, RecipeError, SampleError

KINDS = {kind.name: kind for kind in DATASETS}
PUBLISHED = [kind for kind in DATASETS if kind.name not in ("folder", "scenes")]


def test_each_tree_is_recognised_as_what_it_is_and_as_nothing_else(releases, tree):
    root, name = releases[tree]
    assert [kind.name for kind in DATASETS if kind.recognises(root)] == [name]
    assert type(open_dataset(root, "train")) is KINDS[name]


def test_each_tree_reads_in_every_split_that_it_has(releases, tree):
    root, name = releases[tree]
    for split in KINDS[name].splits if name != "folder" else ("train",):
        if (tree, split) == ("ade20k", "test"):
            continue
        data = KINDS[name](root, split)
        names = [item.name for item in data.items]
        assert len(set(names)) == len(names)
        assert all(isinstance(part, str) for item in data.items for part in item if part is not None)
        for index in range(len(data)):
            sample = data[index]
            assert (sample.mask is None) == (split == "test" and name != "camvid")


def test_a_pickled_copy_reads_the_same(releases, tree):
    root, name = releases[tree]
    data = open_dataset(root, "train", dataset=name)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.items == data.items
    assert copy.classes == data.classes
    assert copy[0].mask.equal(data[0].mask)


def test_the_first_mask_of_each_tree_shows_every_class_and_void(releases, tree):
    root, name = releases[tree]
    data = open_dataset(root, "train", dataset=name)
    assert data[0].mask.unique().tolist() == [*range(len(data.classes)), 255]


def test_a_small_tree_is_told_from_the_release(releases, tree, caplog):
    root, name = releases[tree]
    data = open_dataset(root, "train", dataset=name)
    if name == "folder":
        assert "the release" not in caplog.text
    else:
        assert f"split 'train' has {len(data)} images, the release " in caplog.text


@pytest.mark.parametrize("kind", PUBLISHED, ids=lambda kind: kind.name)
def test_class_names_are_clean_and_each_has_a_colour(kind):
    assert len(set(kind.classes)) == len(kind.classes) == len(kind.palette)
    assert all(name == name.strip() != "" for name in kind.classes)
    assert all(0 <= channel <= 255 for colour in kind.palette for channel in colour)


@pytest.mark.parametrize("kind", PUBLISHED, ids=lambda kind: kind.name)
def test_a_wrong_folder_says_what_was_looked_for_what_was_found_and_what_to_do(kind, tmp_path):
    (tmp_path / "holiday").mkdir()
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DatasetNotFound) as caught:
            kind(root, "train")
        message = str(caught.value)
        assert str(root) in message
        assert f"{tmp_path} holds: holiday/" in message
        assert "Point to" in message


def test_unknown_layout_is_answered_with_all_that_are_known(tmp_path):
    with pytest.raises(DatasetNotFound) as caught:
        open_dataset(tmp_path, "train")
    message = str(caught.value)
    assert len(message.splitlines()) < 16
    shown = [kind for kind in DATASETS if kind.layout]
    assert [kind.name for kind in shown] == [
        *("camvid", "cityscapes", "ade20k", "voc", "pascal_context_59", "coco_stuff", "folder")
    ]
    assert all(f"  {kind.name:<18}{kind.layout}" in message for kind in shown)


def test_several_data_sets_in_one_folder_are_not_guessed(build):
    root = build("voc_sbd")
    build("context_png")
    with pytest.raises(RecipeError, match=r"Several data sets lie in .*: voc, pascal_context_59\. Say which with"):
        open_dataset(root, "train")
    assert len(open_dataset(root, "train", dataset="voc")) == 2
    assert len(open_dataset(root, "train", dataset="pascal_context_60")) == 1
    assert len(open_dataset(root / "VOCdevkit" / "VOC2012", "train")) == 2


def test_variants_are_chosen_by_name_alone(releases):
    root, _ = releases["context_mat"]
    assert not PascalContext60.recognises(root)
    assert open_dataset(root, "train", dataset="pascal_context_60").classes[0] == "background"
    root, _ = releases["coco_plain"]
    assert len(open_dataset(root, "train", dataset="coco_voc").classes) == 21
    with pytest.raises(RecipeError, match=r"No data set 'pascal_context'.*Did you mean 'pascal_context_"):
        open_dataset(root, "train", dataset="pascal_context")


def test_listing_opens_no_image(releases, monkeypatch):
    for module in ("files.decode", "masks.matlab_labels"):
        monkeypatch.setattr(f"segcontext.data.{module}", lambda *_: pytest.fail("an image was opened"))
    for root, name in releases.values():
        if name != "folder":
            assert len(open_dataset(root, "train", dataset=name))


def test_labels_beyond_the_table_are_named(releases, write_mat, tmp_path, build):
    root = build("context_mat")
    data = open_dataset(root, "train")
    write_mat(root / data.items[0].mask, "LabelMap", [460], np.uint16)
    with pytest.raises(LabelError, match=r"no class: 460 \(1 pixels\)\. Expected 2, 9, 18\.\.19, 22\.\.23.*, … for"):
        data.read_mask(0)


def test_places_above_a_folder():
    assert steps("a/b") == ["a/b", "a", ""]
    assert steps("") == [""]
    assert join("", "b") == "b"
    assert join("a/b", "c/d") == "a/b/c/d"


def test_a_place_needs_all_its_marks(tmp_path):
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "b" / "x").mkdir(parents=True)
    (tmp_path / "b" / "y").touch()
    assert locate(tmp_path, ["", "a", "b"], "x", "y") == "b"
    assert locate(tmp_path, ["", "a"], "x", "y") is None


@pytest.mark.parametrize(
    "text",
    [
        "2007_000032\n\n2007_000039\n",
        "\ufeff2007_000032 -1\r\n2007_000039  1\r\n",
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\nx/2007_000039.jpg y\n",
    ],
)
def test_lists_of_several_makes_are_read(tmp_path, text):
    (tmp_path / "train.txt").write_bytes(text.encode())
    assert read_names(tmp_path / "train.txt") == ["2007_000032", "2007_000039"]


def test_wrong_lists_are_named(tmp_path):
    path = tmp_path / "train.txt"
    with pytest.raises(DatasetNotFound, match=r"No list of images .*train\.txt"):
        read_names(path)
    path.write_text("a\nb\na.jpg\n")
    with pytest.raises(DataError, match=r"train\.txt lists 'a' in the lines 1 and 3"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match=r"train\.txt cannot be read as a list"):
        read_names(path)


def test_listed_images_that_are_not_there_are_named():
    with pytest.raises(SampleError, match=r"2 of 3 listed images are not in JPEGImages: b, c"):
        pick(["a", "b", "c"], {"a": "JPEGImages/a.jpg"}, Path("JPEGImages"))
    assert list(pick(["b", "a"], {"a": "1", "b": "2"}, Path())) == ["b", "a"]


def test_voc_colours_are_those_of_the_development_kit():
    # Written down from VOClabelcolormap's table; the last row of the 256 is 224, 224, 192 (the colour of void).
    assert voc_colours(8)[3:] == ((128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128))
    assert voc_colours(1, first=20) == ((0, 64, 128),)
    assert voc_colours(1, first=255) == ((224, 224, 192),)
    assert len(set(voc_colours(256))) == 256


def test_every_published_data_set_is_a_dataset_of_its_own_file():
    assert all(issubclass(kind, Dataset) for kind in PUBLISHED)
    assert COCOStuff.__module__ == "segcontext.data.coco_stuff"
