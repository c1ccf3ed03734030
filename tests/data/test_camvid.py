import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segcontext.data import DATASETS, CamVid, Dataset, Folder, Scenes, open_dataset
from segcontext.errors import DatasetNotFound, LabelError, RecipeError

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


# label_colors.txt of the Cambridge release.
COLOURS = """
64 128 64 Animal, 192 0 128 Archway, 0 128 192 Bicyclist, 0 128 64 Bridge, 128 0 0 Building, 64 0 128 Car,
64 0 192 CartLuggagePram, 192 128 64 Child, 192 192 128 Column_Pole, 64 64 128 Fence, 128 0 192 LaneMkgsDriv,
192 0 64 LaneMkgsNonDriv, 128 128 64 Misc_Text, 192 0 192 MotorcycleScooter, 128 64 64 OtherMoving,
64 192 128 ParkingBlock, 64 64 0 Pedestrian, 128 64 128 Road, 128 128 192 RoadShoulder, 0 0 192 Sidewalk,
192 128 128 SignSymbol, 128 128 128 Sky, 64 128 192 SUVPickupTruck, 0 0 64 TrafficCone, 0 64 64 TrafficLight,
192 64 128 Train, 128 128 0 Tree, 192 128 192 Truck_Bus, 64 0 64 Tunnel, 192 192 0 VegetationMisc, 0 0 0 Void,
64 192 0 Wall
"""
REDUCED = {
    **{"Archway": "Building", "Bridge": "Building", "Tunnel": "Building", "Wall": "Building"},
    **{"Column_Pole": "Pole", "TrafficCone": "Pole", "LaneMkgsDriv": "Road", "LaneMkgsNonDriv": "Road"},
    **{"Sidewalk": "Pavement", "ParkingBlock": "Pavement", "RoadShoulder": "Pavement", "VegetationMisc": "Tree"},
    **{"Misc_Text": "SignSymbol", "TrafficLight": "SignSymbol", "OtherMoving": "Car", "SUVPickupTruck": "Car"},
    **{"Train": "Car", "Truck_Bus": "Car", "Animal": "Pedestrian", "CartLuggagePram": "Pedestrian"},
    **{"Child": "Pedestrian", "MotorcycleScooter": "Bicyclist"},
}


def test_raw_values_of_segnet_s_release(releases, meaning):
    data = CamVid(releases["camvid_segnet"][0])
    for value in range(256):
        assert meaning(data, value) == (value if value < 11 else 255 if value in (11, 255) else None)


def test_32_colours_become_11_classes(build):
    root = build("camvid_cambridge")
    lines = [line.split() for line in COLOURS.replace("\n", " ").split(",")]
    names = [line[3] for line in lines]
    colours = np.array([[[int(channel) for channel in line[:3]] for line in lines]], np.uint8)
    assert len(set(names)) == len({tuple(colour) for colour in colours[0].tolist()}) == 32
    data = CamVid(root)
    Image.fromarray(colours).save(root / data.items[0].mask)
    classes = [REDUCED.get(name, name) for name in names]
    assert set(classes) == {*CamVid.classes, "Void"}
    expected = [255 if name == "Void" else CamVid.classes.index(name) for name in classes]
    assert data.read_mask(0)[0].tolist() == expected
    Image.fromarray(np.array([[(1, 2, 3)]], np.uint8)).save(root / data.items[0].mask)
    with pytest.raises(LabelError, match=r"colours that are no class, such as \(1, 2, 3\)"):
        data.read_mask(0)


FRAMES = {
    "train": ["0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00390", "0016E5_07920", "0016E5_08190"],
    "val": ["0016E5_07959", "0016E5_08159"],
    "test": ["0001TP_008550", "0001TP_010380", "Seq05VD_f00000", "Seq05VD_f05100"],
}


@pytest.mark.parametrize("split", FRAMES)
def test_split_follows_from_sequence_and_frame(releases, split):
    data = CamVid(releases["camvid_cambridge"][0], split)
    assert [item.name for item in data.items] == sorted(FRAMES[split])
    assert data.items[0].mask == f"LabeledApproved_full/{data.items[0].name}_L.png"
    assert data[0].mask.tolist() == [[*range(11), 255]]


def test_lists_go_before_sequence_and_frame(build):
    root = build("camvid_cambridge")
    (root / "val.txt").write_text("/SegNet/val/0006R0_f00930.png /SegNet/valannot/0006R0_f00930.png\n")
    assert [item.name for item in CamVid(root, "val").items] == ["0006R0_f00930"]
    assert len(CamVid(root, "test")) == 4


def test_colours_count_in_palette_files_too(build):
    root = build("camvid_cambridge")
    before = [CamVid(root).read_mask(index) for index in range(len(CamVid(root)))]
    for number, path in enumerate(sorted((root / "LabeledApproved_full").iterdir())):
        with Image.open(path) as image:
            colours = np.asarray(image.convert("RGB"))
        table, indices = np.unique(colours.reshape(-1, 3), axis=0, return_inverse=True)
        # Another order in each file, as programs that shrink PNG files leave it.
        order = np.random.default_rng(number).permutation(len(table))
        small = Image.fromarray(np.argsort(order)[indices.reshape(colours.shape[:2])].astype(np.uint8))
        small.putpalette(table[order].tobytes())
        small.save(path)
    for index, mask in enumerate(before):
        assert len(mask.unique()) > 1
        assert torch.equal(CamVid(root).read_mask(index), mask)


def test_frames_of_other_films_are_in_no_split(build):
    root = build("camvid_cambridge")
    for name in ("0001TP_draft", "mine_000010", "another"):
        (root / "701_StillsRaw_full" / f"{name}.png").touch()
    assert sum(len(CamVid(root, split)) for split in CamVid.splits) == 12


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


@pytest.mark.skipif(REAL is None, reason="SEGCONTEXT_CAMVID does not name the data")
def test_the_split_by_frames_is_that_of_the_real_release(tmp_path):
    expected = {}
    for split in ("train", "val"):
        expected[split] = sorted(path.stem for path in Path(REAL, split).iterdir())
        for name in expected[split]:
            for path in (tmp_path / "701_StillsRaw_full" / name, tmp_path / "LabeledApproved_full" / f"{name}_L"):
                path.parent.mkdir(exist_ok=True)
                path.with_name(f"{path.name}.png").touch()
    for split, names in expected.items():
        assert [item.name for item in CamVid(tmp_path, split).items] == names
    with pytest.raises(DatasetNotFound, match=r"'test' .* is empty"):
        CamVid(tmp_path, "test")
