import shutil
from collections import Counter

import pytest

from segcontext.data import ADE20K
from segcontext.errors import DatasetNotFound


def test_zero_is_void_and_the_others_are_the_classes(releases, meaning):
    data = ADE20K(releases["ade20k"][0])
    for value in range(256):
        assert meaning(data, value) == (255 if value == 0 else value - 1 if value <= 150 else None)


def test_names_and_colours_are_those_of_the_release():
    assert len(ADE20K.classes) == 150
    # Lines of objectInfo150.txt, and rows of color150.mat.
    for number, name, colour in (
        *((1, "wall", (120, 120, 120)), (22, "water", (61, 230, 250)), (49, "skyscraper", (140, 140, 140))),
        *((75, "computer", (0, 255, 173)), (101, "poster", (143, 255, 0)), (150, "flag", (92, 0, 255))),
    ):
        assert ADE20K.classes[number - 1] == name
        assert ADE20K.palette[number - 1] == colour
    assert [ADE20K.classes[number - 1] for number in (90, 125, 137)] == [
        *("television receiver", "microwave", "traffic light")
    ]
    shared = {colour for colour, times in Counter(ADE20K.palette).items() if times > 1}
    assert shared == {(140, 140, 140)}


@pytest.mark.parametrize("layout", ["ade20k", "ade20k_around"])
def test_splits(releases, layout):
    root, _ = releases[layout]
    for split in ("train", "val"):
        assert [item.name for item in ADE20K(root, split).items] == [f"ADE_{split}_00000001"]
    assert ADE20K.expected_counts == {"train": 20210, "val": 2000, "test": 3352}


def test_test_images_have_no_labels(releases, build):
    data = ADE20K(releases["ade20k_around"][0], "test")
    assert data.items == (("release_test/testing/ADE_test_00000001.jpg", None, "ADE_test_00000001"),)
    root = build("ade20k")
    with pytest.raises(DatasetNotFound, match=r"No test images of ADE20K.*archive of their own"):
        ADE20K(root, "test")
    (root / "images" / "testing").mkdir()
    shutil.copy(root / "images/training/ADE_train_00000001.jpg", root / "images/testing/ADE_test_00000001.jpg")
    assert ADE20K(root, "test").items[0].image == "images/testing/ADE_test_00000001.jpg"


def test_one_split_is_enough(build):
    root = build("ade20k_around")
    shutil.rmtree(root / "ADEChallengeData2016" / "images" / "training")
    assert ADE20K.recognises(root)
    assert ADE20K.recognises(root / "ADEChallengeData2016")
    assert len(ADE20K(root, "val")) == 1
    with pytest.raises(
        DatasetNotFound, match=r"looked for images/training/ with annotations/training/, here and in ADE"
    ):
        ADE20K(root, "train")
