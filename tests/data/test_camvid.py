import os
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from segcontext.data import DATASETS, CamVid, Dataset, Folder, Scenes, open_dataset
from segcontext.errors import DatasetNotFound, RecipeError

REAL = os.environ.get("SEGCONTEXT_CAMVID")


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        for folder, values, suffix in ((split, 100, ".jpg"), (f"{split}annot", np.arange(12), ".png")):
            (tmp_path / folder).mkdir()
            pixels = np.broadcast_to(np.array(values, np.uint8), (2, 12))
            Image.fromarray(pixels.copy()).save(tmp_path / folder / f"frame{suffix}")
    return tmp_path


def test_raw_label_eleven_is_void(root):
    assert CamVid(root)[0].mask[0].tolist() == [*range(11), 255]


def test_classes_and_colours_agree_with_the_release():
    assert len(CamVid.classes) == len(set(CamVid.palette)) == 11
    assert CamVid.palette[CamVid.classes.index("Pole")] == (192, 192, 128)
    assert CamVid.palette[CamVid.classes.index("Bicyclist")] == (0, 128, 192)


def test_recognised_by_its_folders(root, tmp_path_factory):
    assert CamVid.recognises(root)
    assert not CamVid.recognises(tmp_path_factory.mktemp("other"))
    assert isinstance(open_dataset(root, "val"), CamVid)


def test_count_is_compared_with_the_release(root, caplog):
    CamVid(root, "val")
    assert "has 1 images, the release 101" in caplog.text


def test_missing_split_says_which_folders_are_expected(root):
    with pytest.raises(
        DatasetNotFound, match=r"expected the folders test/ and testannot/.* holds: train/, trainannot/"
    ):
        CamVid(root, "test")


def test_demo_opens_the_drawn_scenes():
    assert isinstance(open_dataset("demo", "val"), Scenes)
    assert open_dataset("demo", "val").split == "val"


def test_named_data_set_is_not_guessed(root):
    assert isinstance(open_dataset(root, "train", dataset="camvid"), CamVid)
    with pytest.raises(DatasetNotFound, match="images"):
        open_dataset(root, "train", dataset="folder")


def test_names_of_data_sets_are_unique():
    assert len({kind.name for kind in DATASETS}) == len(DATASETS)


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"No data set 'camvit'.*Did you mean 'camvid'"):
        open_dataset("anywhere", "train", dataset="camvit")


def test_dotted_path_opens_a_subclass(root, monkeypatch):
    module = types.ModuleType("someones_data")
    module.Mine = type("Mine", (CamVid,), {"name": "mine"})
    module.Other = dict
    monkeypatch.setitem(sys.modules, "someones_data", module)
    assert type(open_dataset(root, "train", dataset="someones_data.Mine")) is module.Mine
    with pytest.raises(RecipeError, match=r"'someones_data' has no 'Mime'. Did you mean 'Mine'"):
        open_dataset(root, "train", dataset="someones_data.Mime")
    with pytest.raises(RecipeError, match="'Other' is no subclass"):
        open_dataset(root, "train", dataset="someones_data.Other")
    with pytest.raises(RecipeError, match="cannot import 'nobodys_data'"):
        open_dataset(root, "train", dataset="nobodys_data.Mine")


def test_unknown_layout_is_answered_with_the_known_ones(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DatasetNotFound, match=r"holds: pictures/(?s:.*)trainannot/(?s:.*)classes.txt"):
        open_dataset(tmp_path, "train")
    with pytest.raises(DatasetNotFound, match=r"No folder .*missing"):
        open_dataset(tmp_path / "missing", "train")


def test_folder_without_classes_says_so(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DatasetNotFound, match="No classes file"):
        open_dataset(tmp_path, "train")


def test_every_data_set_is_a_dataset():
    assert all(issubclass(kind, Dataset) for kind in (*DATASETS, Folder))


@pytest.mark.skipif(REAL is None, reason="SEGCONTEXT_CAMVID does not name the data")
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
def test_the_real_release_reads(split, count, caplog):
    data = open_dataset(REAL, split)
    assert isinstance(data, CamVid)
    assert len(data) == count
    assert "release" not in caplog.text
    for index in (0, count // 2, count - 1):
        sample = data[index]
        assert sample.image.shape == (3, 360, 480)
        labels = set(torch.unique(sample.mask).tolist())
        assert {0, 1, 3} <= labels <= {*range(11), 255}
