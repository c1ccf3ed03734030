"""Small trees laid out as the published releases are; every first mask of a tree holds every raw value it may."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat


def save_image(path, values):
    """A grey picture of the size of its labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((1, len(values), 3), 90, np.uint8)).save(path)


def save_mask(path, values, *, palette=False):
    """An index PNG, grey or with a palette as VOC has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(np.array([values], np.uint8))
    if palette:
        mask.putpalette(bytes(range(256)) * 3)
    mask.save(path)


def save_mat(path, variable, values, dtype=np.uint8):
    """A MATLAB label map; that of SBD lies in a struct, with fields that are of no use here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.array([values], dtype)
    if variable == "GTcls":
        present = np.unique(labels)
        content = {"Boundaries": np.zeros((20, 1), object), "Segmentation": labels, "CategoriesPresent": present}
        savemat(path, {variable: content}, do_compression=True)
    else:
        savemat(path, {variable: labels, "names": np.array(["unlabeled", "person"], object)})


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def pair(image, mask, values=(0,), **options):
    save_image(image, values)
    save_mask(mask, values, **options)


def camvid_segnet(root):
    for split in ("train", "val", "test"):
        pair(root / split / "0001TP_1.png", root / f"{split}annot" / "0001TP_1.png", range(12))


CAMVID_FRAMES = {
    "train": ["0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00390", "0016E5_07920", "0016E5_08190"],
    "val": ["0016E5_07959", "0016E5_08159"],
    "test": ["0001TP_008550", "0001TP_010380", "Seq05VD_f00000", "Seq05VD_f05100"],
}


# Sky, Building, Column_Pole, Road, Sidewalk, Tree, SignSymbol, Fence, Car, Pedestrian, Bicyclist, Void
CAMVID_COLOURS = (
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0)),
    *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0)),
)


def camvid_cambridge(root):
    (root / "LabeledApproved_full").mkdir()
    for name in sorted(name for names in CAMVID_FRAMES.values() for name in names):
        save_image(root / "701_StillsRaw_full" / f"{name}.png", CAMVID_COLOURS)
        colours = Image.fromarray(np.array([CAMVID_COLOURS], np.uint8))
        colours.save(root / "LabeledApproved_full" / f"{name}_L.png")
    write(root / "label_colors.txt", "128 128 128\tSky", "0 0 0\t\tVoid")


CITY_FRAMES = {
    "train": "aachen/aachen_000000_000019",
    "val": "lindau/lindau_000000_000019",
    "test": "berlin/berlin_000000_000019",
    "train_extra": "augsburg/augsburg_000000_000000",
}


def _city(images, fine, coarse, kind="labelIds", values=(*range(34), 255)):
    for part, name in CITY_FRAMES.items():
        save_image(images(part) / f"{name}_leftImg8bit.png", values)
        for folder, labels in ((fine, "gtFine"), (coarse, "gtCoarse")):
            if (labels, part) in (("gtFine", "train_extra"), ("gtCoarse", "test")):
                continue
            save_mask(folder / part / f"{name}_{labels}_{kind}.png", values)
            save_mask(folder / part / f"{name}_{labels}_instanceIds.png", values)
            write(folder / part / f"{name}_{labels}_polygons.json", "{}")


def cityscapes(root):
    _city(lambda part: root / "leftImg8bit" / part, root / "gtFine", root / "gtCoarse")


def cityscapes_archives(root):
    """Each archive unpacked into a folder of its own."""

    def images(part):
        archive = "leftImg8bit_trainextra" if part == "train_extra" else "leftImg8bit_trainvaltest"
        return root / archive / "leftImg8bit" / part

    _city(images, root / "gtFine_trainvaltest" / "gtFine", root / "gtCoarse" / "gtCoarse")


def cityscapes_train_ids(root):
    home = root / "cityscapes"
    values = (*range(19), 255)
    _city(lambda part: home / "leftImg8bit" / part, home / "gtFine", home / "gtCoarse", "labelTrainIds", values)


def ade20k(root):
    for folder, split in (("training", "train"), ("validation", "val")):
        name = f"ADE_{split}_00000001"
        pair(root / "images" / folder / f"{name}.jpg", root / "annotations" / folder / f"{name}.png", range(151))
    write(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName")


def ade20k_around(root):
    ade20k(root / "ADEChallengeData2016")
    save_image(root / "release_test" / "testing" / "ADE_test_00000001.jpg", range(2))


VOC_LISTS = {"train": ["2007_000032", "2008_000008"], "val": ["2007_000033", "2008_000009"], "test": ["2008_000006"]}
SBD_LISTS = {"train": ["2008_000008", "2008_000015"], "val": ["2007_000033", "2008_000019"]}
VOC_VALUES = (*range(21), 255)
SBD_VALUES = (*range(21), 0)


def _voc(home):
    for split, names in VOC_LISTS.items():
        write(home / "ImageSets" / "Segmentation" / f"{split}.txt", *names)
        for name in names:
            save_image(home / "JPEGImages" / f"{name}.jpg", VOC_VALUES)
            if split != "test":
                save_mask(home / "SegmentationClass" / f"{name}.png", VOC_VALUES, palette=True)
    write(home / "ImageSets" / "Segmentation" / "trainval.txt", *VOC_LISTS["train"], *VOC_LISTS["val"])
    for name in ("2008_000015", "2008_000019"):
        save_image(home / "JPEGImages" / f"{name}.jpg", VOC_VALUES)


def voc_aug(root):
    """VOC2012 itself, with the labels of SBD as PNGs; it has those of VOC's val too."""
    _voc(root)
    for name in sorted({*SBD_LISTS["train"], *SBD_LISTS["val"]}):
        save_mask(root / "SegmentationClassAug" / f"{name}.png", SBD_VALUES)


def voc_sbd(root):
    """The folder around VOCdevkit, with SBD as released beside it."""
    _voc(root / "VOCdevkit" / "VOC2012")
    sbd = root / "benchmark_RELEASE" / "dataset"
    for split, names in SBD_LISTS.items():
        write(sbd / f"{split}.txt", *names)
        for name in names:
            save_image(sbd / "img" / f"{name}.jpg", SBD_VALUES)
            save_mat(sbd / "cls" / f"{name}.mat", "GTcls", SBD_VALUES)


CONTEXT_LISTS = {"train": ["2008_000002"], "val": ["2008_000003", "2008_000007"]}


def _context(home):
    for split, names in CONTEXT_LISTS.items():
        write(home / "ImageSets" / "Main" / f"{split}.txt", *names)
    write(home / "ImageSets" / "Segmentation" / "train.txt", "2008_000002")


def context_converted(root):
    _context(root)
    for split, names in CONTEXT_LISTS.items():
        write(root / "ImageSets" / "SegmentationContext" / f"{split}.txt", *names)
        for name in names:
            pair(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClassContext" / f"{name}.png", range(60))


def context_png(root):
    home = root / "VOCdevkit" / "VOC2010"
    _context(home)
    for name in (name for names in CONTEXT_LISTS.values() for name in names):
        pair(home / "JPEGImages" / f"{name}.jpg", root / "59_context_labels" / f"{name}.png", range(60))


def context_mat(root):
    home = root / "VOC2010"
    _context(home)
    for name in (name for names in CONTEXT_LISTS.values() for name in names):
        save_image(home / "JPEGImages" / f"{name}.jpg", range(460))
        save_mat(root / "pascal-context" / "trainval" / f"{name}.mat", "LabelMap", range(460), np.uint16)


THINGS_WITHOUT_MASKS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)


def coco_10k(root):
    home = root / "cocostuff-10k-v1.1"
    values = [value for value in range(183) if value not in THINGS_WITHOUT_MASKS]
    for listing, name in (("train", "COCO_train2014_000000000077"), ("test", "COCO_train2014_000000000109")):
        write(home / "imageLists" / f"{listing}.txt", name)
        save_image(home / "images" / f"{name}.jpg", values)
        save_mat(home / "annotations" / f"{name}.mat", "S", values, np.float64)


def _coco_values():
    return [*(value for value in range(182) if value + 1 not in THINGS_WITHOUT_MASKS), 255]


def coco_164k(root):
    """As COCO-Stuff's own instructions have it, and mmsegmentation, whose converter leaves files of its own there."""
    for folder, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        pair(root / "images" / folder / f"{name}.jpg", root / "annotations" / folder / f"{name}.png", _coco_values())
        save_mask(root / "annotations" / folder / f"{name}_labelTrainIds.png", [0])


def coco_plain(root):
    """COCO as it is mostly unpacked, in a folder coco."""
    home = root / "coco"
    write(home / "annotations" / "instances_val2017.json", "{}")
    for folder, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        pair(home / folder / f"{name}.jpg", home / "stuffthingmaps" / folder / f"{name}.png", _coco_values())


def own_folder(root):
    pair(root / "images" / "train" / "a.png", root / "masks" / "train" / "a.png", (0, 1, 255))
    write(root / "classes.txt", "wall", "door")


BUILDERS = {
    builder.__name__: (builder, name)
    for builder, name in (
        (camvid_segnet, "camvid"),
        (camvid_cambridge, "camvid"),
        (cityscapes, "cityscapes"),
        (cityscapes_archives, "cityscapes"),
        (cityscapes_train_ids, "cityscapes"),
        (ade20k, "ade20k"),
        (ade20k_around, "ade20k"),
        (voc_aug, "voc"),
        (voc_sbd, "voc"),
        (context_converted, "pascal_context_59"),
        (context_png, "pascal_context_59"),
        (context_mat, "pascal_context_59"),
        (coco_10k, "coco_stuff"),
        (coco_164k, "coco_stuff"),
        (coco_plain, "coco_stuff"),
        (own_folder, "folder"),
    )
}


def pytest_generate_tests(metafunc):
    """A test that takes `tree` runs once for each of them."""
    if "tree" in metafunc.fixturenames:
        metafunc.parametrize("tree", BUILDERS)


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Tree to its root and the name of its data set; nobody writes into them."""
    built = {}
    for layout, (builder, name) in BUILDERS.items():
        root = tmp_path_factory.mktemp(layout)
        builder(root)
        built[layout] = root, name
    return built


@pytest.fixture
def build(tmp_path):
    """Builds a tree of one's own to break."""

    def built(layout, below=""):
        root = tmp_path / below
        root.mkdir(exist_ok=True)
        BUILDERS[layout][0](root)
        return root

    return built


@pytest.fixture
def meaning(monkeypatch):
    """What `read_mask` makes of one raw value: a class index, 255, or `None` for an error."""
    from segcontext.data import dataset
    from segcontext.errors import LabelError

    def of(data, value):
        monkeypatch.setattr(dataset, "raw_labels", lambda *_: np.array([[value]], np.int64))
        try:
            return int(data.read_mask(0))
        except LabelError:
            return None
        finally:
            monkeypatch.undo()

    return of


@pytest.fixture(scope="session")
def write_mask():
    return save_mask


@pytest.fixture(scope="session")
def write_mat():
    return save_mat
