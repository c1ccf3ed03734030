import shutil

import pytest

from segcontext.data import VOC
from segcontext.errors import DatasetNotFound, RecipeError, SampleError


def names(data):
    return [item.name for item in data.items]


def test_raw_values_are_the_classes_and_255_is_void(releases, meaning):
    data = VOC(releases["voc_aug"][0])
    expected = {**{value: value for value in range(21)}, 255: 255}
    assert {value: meaning(data, value) for value in range(256)} == {value: expected.get(value) for value in range(256)}


def test_colours_and_names_are_those_of_the_development_kit():
    assert VOC.palette == (
        *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)),
        *((128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128)),
        *((64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)),
    )
    assert VOC.classes[0] == "background"
    assert list(VOC.classes[1:]) == sorted(VOC.classes[1:])
    assert VOC.classes.index("diningtable") == 11
    assert VOC.classes.index("tvmonitor") == 20


def test_counts_of_the_release_fit_together():
    counts = VOC.expected_counts
    assert set(counts) == set(VOC.splits)
    assert counts["train"] + counts["val"] == counts["trainval"]
    assert counts["trainaug"] + counts["val"] == counts["trainvalaug"]


@pytest.mark.parametrize("layout", ["voc_aug", "voc_sbd"])
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", ["2007_000032", "2008_000008"]),
        ("val", ["2007_000033", "2008_000009"]),
        ("trainval", ["2007_000032", "2008_000008", "2007_000033", "2008_000009"]),
        ("test", ["2008_000006"]),
        # SBD's train and val, and VOC's train, less VOC's val.
        ("trainaug", ["2007_000032", "2008_000008", "2008_000015", "2008_000019"]),
        (
            "trainvalaug",
            ["2007_000032", "2007_000033", "2008_000008", "2008_000009", "2008_000015", "2008_000019"],
        ),
    ],
)
def test_splits(releases, layout, split, expected):
    assert names(VOC(releases[layout][0], split)) == expected


@pytest.mark.parametrize(("layout", "kind"), [("voc_aug", "Aug/2008_000015.png"), ("voc_sbd", "cls/2008_000015.mat")])
@pytest.mark.parametrize("split", ["trainaug", "trainvalaug"])
def test_voc_s_own_mask_goes_before_that_of_sbd(releases, layout, kind, split):
    masks = {item.name: item.mask for item in VOC(releases[layout][0], split).items}
    assert masks["2008_000015"].endswith(kind)
    assert masks["2008_000008"].endswith("SegmentationClass/2008_000008.png")
    # SBD has an annotation of this image of VOC's val too.
    assert masks.get("2007_000033", "SegmentationClass/").rpartition("/")[0].endswith("SegmentationClass")


def test_sbd_as_released_reads_its_matlab_files(releases):
    data = VOC(releases["voc_sbd"][0], "trainaug")
    assert data.read_mask(2).tolist() == [[*range(21), 0]]
    assert data.read_mask(0).tolist() == [[*range(21), 255]]


def test_root_may_be_each_of_the_three_folders(releases):
    root, _ = releases["voc_sbd"]
    for inner in ("", "VOCdevkit", "VOCdevkit/VOC2012"):
        assert VOC.recognises(root / inner)
        assert len(VOC(root / inner, "trainval")) == 4
    with pytest.raises(DatasetNotFound, match=r"No SBD labels at .*looked for SegmentationClassAug/ and benchmark_"):
        VOC(root / "VOCdevkit", "trainaug")


def test_sbd_may_lie_in_the_development_kit(build):
    root = build("voc_sbd")
    (root / "VOCdevkit" / "VOCaug").mkdir()
    shutil.move(root / "benchmark_RELEASE" / "dataset", root / "VOCdevkit" / "VOCaug" / "dataset")
    assert len(VOC(root, "trainaug")) == len(VOC(root / "VOCdevkit", "trainaug")) == 4


def test_sbd_without_its_lists_is_all_its_files(build):
    root = build("voc_sbd")
    for split in ("train", "val"):
        (root / "benchmark_RELEASE" / "dataset" / f"{split}.txt").unlink()
    assert len(VOC(root, "trainaug")) == 4


def test_images_that_voc_lacks_are_those_of_sbd(build):
    root = build("voc_sbd")
    (root / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2008_000015.jpg").unlink()
    data = VOC(root, "trainaug")
    assert data.items[2].image == "benchmark_RELEASE/dataset/img/2008_000015.jpg"
    assert data[2].image.shape == (3, 1, 22)


@pytest.mark.parametrize("file", ["trainaug.txt", "train_aug.txt"])
def test_a_list_says_what_trainaug_is(build, file):
    root = build("voc_aug")
    (root / "ImageSets" / "Segmentation" / file).write_text("/JPEGImages/2008_000015.jpg /Aug/2008_000015.png\n")
    assert names(VOC(root, "trainaug")) == ["2008_000015"]
    assert names(VOC(root, "trainvalaug")) == ["2007_000033", "2008_000009", "2008_000015"]


def test_masks_of_all_splits_may_lie_in_the_augmented_folder_alone(build):
    root = build("voc_aug")
    for mask in (root / "SegmentationClass").iterdir():
        shutil.copy(mask, root / "SegmentationClassAug" / mask.name)
    shutil.rmtree(root / "SegmentationClass")
    for split, count in (("train", 2), ("val", 2), ("trainaug", 4)):
        data = VOC(root, split)
        assert len(data) == count
        assert all(item.mask.startswith("SegmentationClassAug/") for item in data.items)


def test_what_is_missing_is_named(build):
    root = build("voc_aug")
    (root / "SegmentationClassAug" / "2008_000019.png").unlink()
    (root / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2008_000019\n")
    with pytest.raises(SampleError, match=r"no mask: JPEGImages/2008_000019\.jpg\. Expected .*Aug/2008_000019\.png"):
        VOC(root, "trainaug")
    (root / "JPEGImages" / "2008_000008.jpg").unlink()
    with pytest.raises(SampleError, match=r"1 of 2 listed images are not in .*JPEGImages: 2008_000008"):
        VOC(root, "train")
    (root / "ImageSets" / "Segmentation" / "test.txt").unlink()
    with pytest.raises(DatasetNotFound, match=r"No list of images .*test\.txt.* holds: train\.txt, trainaug\.txt"):
        VOC(root, "test")
    with pytest.raises(RecipeError, match=r"no split 'train_aug'.*Did you mean 'trainaug'"):
        VOC(root, "train_aug")
