import shutil

import pytest

from segcontext.data import Cityscapes
from segcontext.errors import DatasetNotFound, SampleError

# The labels of cityscapesScripts' labels.py that are evaluated, by id.
EVALUATED = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
LAYOUTS = ["cityscapes", "cityscapes_archives", "cityscapes_train_ids"]
FINE, COARSE = "gtFine", "gtCoarse"
SPLITS = {
    **{"train": [("train", FINE)], "val": [("val", FINE)], "trainval": [("train", FINE), ("val", FINE)]},
    **{
        "coarse": [("train_extra", COARSE)],
        "train_extra": [("train_extra", COARSE)],
        "coarse_train": [("train", COARSE)],
        "coarse_val": [("val", COARSE)],
    },
    "train+coarse": [("train", FINE), ("train_extra", COARSE)],
    "trainval+coarse": [("train", FINE), ("val", FINE), ("train_extra", COARSE)],
}


@pytest.mark.parametrize("layout", ["cityscapes", "cityscapes_archives"])
def test_label_ids_are_mapped(releases, meaning, layout):
    data = Cityscapes(releases[layout][0])
    for value in range(256):
        expected = data.classes.index(EVALUATED[value]) if value in EVALUATED else 255
        assert meaning(data, value) == (expected if value < 34 or value == 255 else None)


def test_train_ids_are_read_where_there_are_no_label_ids(releases, meaning):
    data = Cityscapes(releases["cityscapes_train_ids"][0])
    for value in range(256):
        assert meaning(data, value) == (value if value < 19 or value == 255 else None)
    assert data.classes == tuple(EVALUATED.values())


def test_label_ids_go_before_train_ids(build, write_mask):
    root = build("cityscapes")
    for path in (root / "gtFine").rglob("*_labelIds.png"):
        write_mask(path.with_name(path.name.replace("labelIds", "labelTrainIds")), [0])
    assert all("_labelIds" in item.mask for item in Cityscapes(root, "trainval").items)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", SPLITS)
def test_splits(releases, layout, split):
    items = Cityscapes(releases[layout][0], split).items
    assert len(items) == len(SPLITS[split])
    for item, (folder, labels) in zip(items, SPLITS[split], strict=True):
        city, frame = item.name.split("/")
        assert frame.startswith(f"{city}_")
        assert f"/{folder}/{city}/{frame}_leftImg8bit.png" in item.image
        assert f"{labels}/{folder}/{city}/{frame}_{labels}_label" in item.mask


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_test_split_has_no_labels_though_dummies_lie_there(releases, layout):
    data = Cityscapes(releases[layout][0], "test")
    assert [item.name for item in data.items] == ["berlin/berlin_000000_000019"]
    assert data[0].mask is None


def test_counts_of_the_release_fit_together():
    counts = Cityscapes.expected_counts
    assert set(counts) == set(Cityscapes.splits)
    assert counts["coarse"] == 19998
    for split in ("trainval", "train+coarse", "trainval+coarse"):
        parts = {"train": ("train",), "trainval": ("train", "val")}[split.split("+")[0]]
        parts += ("coarse",) * split.endswith("+coarse")
        assert counts[split] == sum(counts[part] for part in parts)


def test_two_extra_images_may_lack_labels(build, caplog):
    root = build("cityscapes")
    city = root / "leftImg8bit" / "train_extra" / "augsburg"
    for number in (1, 2):
        shutil.copy(
            city / "augsburg_000000_000000_leftImg8bit.png", city / f"augsburg_000000_00000{number}_leftImg8bit.png"
        )
    assert len(Cityscapes(root, "coarse")) == 1
    assert "left out, since there are no coarse labels for them: augsburg/augsburg_000000_000001" in caplog.text
    shutil.copy(city / "augsburg_000000_000000_leftImg8bit.png", city / "augsburg_000000_000003_leftImg8bit.png")
    with pytest.raises(SampleError, match=r"3 of 4 images .*Expected .*000001_gtCoarse_labelIds\.png"):
        Cityscapes(root, "train+coarse")


def test_what_is_missing_is_named(build):
    root = build("cityscapes")
    (root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DatasetNotFound, match=r"expected \*_labelIds\.png .* in each of gtFine/train\. Unpack"):
        Cityscapes(root)
    shutil.rmtree(root / "gtCoarse")
    with pytest.raises(
        DatasetNotFound, match=r"No split 'coarse' of Cityscapes.*gtCoarse/train_extra/.*holds: gtFine/"
    ):
        Cityscapes(root, "coarse")
    shutil.rmtree(root / "leftImg8bit" / "val")
    with pytest.raises(DatasetNotFound, match=r"No split 'val' of Cityscapes.*looked for leftImg8bit/val/"):
        Cityscapes(root, "val")


def test_colours_are_those_of_the_release():
    assert len(set(Cityscapes.palette)) == 19
    assert Cityscapes.palette[0] == (128, 64, 128)
    assert Cityscapes.palette[Cityscapes.classes.index("sky")] == (70, 130, 180)
    assert Cityscapes.palette[18] == (119, 11, 32)
