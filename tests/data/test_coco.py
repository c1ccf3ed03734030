import shutil

import pytest

from segcontext.data import COCOVOC, VOC, COCOStuff
from segcontext.errors import DatasetNotFound, RecipeError, SampleError

# COCO-Stuff's labels.txt (nightrome/cocostuff), numbers 1..182.
LABELS = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra,
giraffe, hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard,
sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate,
wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog,
pizza, donut, cake, chair, couch, potted plant, bed, mirror, dining table, window, desk, toilet, door, tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, blender, book,
clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush, banner, blanket, branch, bridge,
building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes,
clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel,
ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net,
paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road,
rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete,
wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind,
window-other, wood
"""
WITHOUT_MASKS = (
    *("street sign", "hat", "shoe", "eye glasses", "plate", "mirror", "window", "desk", "door", "blender"),
    "hair brush",
)


@pytest.fixture(scope="module")
def stuff_names():
    return {number: name.strip() for number, name in enumerate(LABELS.replace("\n", " ").split(","), start=1)}


@pytest.fixture(scope="module")
def classes(stuff_names):
    """Number to class index, by the names; of the two that are called alike, COCO has no masks for the thing."""
    kept = {number: name for number, name in stuff_names.items() if name not in WITHOUT_MASKS}
    assert len(stuff_names) == 182
    assert len(kept) == 171
    return {number: COCOStuff.classes.index(name) for number, name in kept.items()}


def test_names_are_those_of_labels_txt_in_its_order(classes):
    assert list(classes.values()) == list(range(171))


@pytest.mark.parametrize(
    ("layout", "void", "offset"), [("coco_10k", 0, 0), ("coco_164k", 255, 1), ("coco_plain", 255, 1)]
)
def test_raw_values(releases, meaning, classes, layout, void, offset):
    data = COCOStuff(releases[layout][0])
    expected = {void: 255, **{number - offset: index for number, index in classes.items()}}
    for value in range(256):
        assert meaning(data, value) == expected.get(value)


def test_the_files_of_both_releases_read(releases):
    small, large = COCOStuff(releases["coco_10k"][0]), COCOStuff(releases["coco_164k"][0])
    assert small.items[0] == (
        "cocostuff-10k-v1.1/images/COCO_train2014_000000000077.jpg",
        "cocostuff-10k-v1.1/annotations/COCO_train2014_000000000077.mat",
        "COCO_train2014_000000000077",
    )
    assert large.items[0] == (
        *("images/train2017/000000000009.jpg", "annotations/train2017/000000000009.png", "000000000009"),
    )
    assert small.read_mask(0)[0].tolist() == [255, *range(171)]
    assert large.read_mask(0)[0].tolist() == [*range(171), 255]


def test_counts_are_those_of_the_release_that_is_there(releases, caplog):
    COCOStuff(releases["coco_10k"][0], "val")
    assert "has 1 images, the release 1000" in caplog.text
    COCOStuff(releases["coco_plain"][0], "train")
    assert "has 1 images, the release 118287" in caplog.text


def test_one_split_of_the_large_release_is_enough(build):
    root = build("coco_plain")
    shutil.rmtree(root / "coco" / "train2017")
    assert COCOStuff.recognises(root)
    assert COCOStuff.recognises(root / "coco")
    assert len(COCOStuff(root, "val")) == 1
    with pytest.raises(DatasetNotFound, match=r"train2017/ with stuffthingmaps/train2017/ \(164k\)"):
        COCOStuff(root, "train")


def test_both_releases_in_one_folder_are_not_guessed(build):
    root = build("coco_10k")
    build("coco_plain")
    with pytest.raises(RecipeError, match=r"Both releases .*cocostuff-10k-v1.1/images/.*coco/train2017/"):
        COCOStuff(root)
    assert len(COCOStuff(root / "coco")) == len(COCOStuff(root / "cocostuff-10k-v1.1")) == 1


def test_a_release_goes_before_one_that_lies_in_it(build):
    root = build("coco_164k")
    build("coco_10k")
    assert COCOStuff(root).items[0].name == "000000000009"
    shutil.move(root / "cocostuff-10k-v1.1" / "imageLists", root / "imageLists")
    with pytest.raises(RecipeError, match="Both releases"):
        COCOStuff(root)


def test_what_is_missing_is_named(build):
    root = build("coco_10k")
    (root / "cocostuff-10k-v1.1" / "annotations" / "COCO_train2014_000000000077.mat").unlink()
    with pytest.raises(SampleError, match=r"no mask: .*000077\.jpg\. Expected .*/annotations/.*000077\.mat"):
        COCOStuff(root)
    (root / "cocostuff-10k-v1.1" / "imageLists" / "test.txt").unlink()
    with pytest.raises(DatasetNotFound, match=r"No list of images .*test\.txt"):
        COCOStuff(root, "val")


SAME = {
    **{"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "potted plant": "pottedplant"},
    **{"dining table": "diningtable", "tv": "tvmonitor"},
}


def test_coco_s_things_are_the_classes_of_voc(releases, meaning, stuff_names):
    data = COCOVOC(releases["coco_164k"][0])
    assert data.classes == VOC.classes
    found = set()
    for value in range(256):
        name = stuff_names.get(value + 1, "")
        name = SAME.get(name, name)
        index = data.classes.index(name) if name in data.classes else 0
        assert meaning(data, value) == (index if value < 182 or value == 255 else None)
        found.add(index)
    assert found == set(range(21))


@pytest.mark.parametrize("layout", ["coco_164k", "coco_plain"])
def test_coco_with_voc_s_classes_has_three_splits(releases, layout):
    root, _ = releases[layout]
    names = {split: [item.name for item in COCOVOC(root, split).items] for split in COCOVOC.splits}
    assert names == {
        **{"train": ["000000000009"], "val": ["000000000139"]},
        "trainval": ["000000000009", "000000000139"],
    }
    assert not COCOVOC.recognises(root)
    assert COCOVOC(root).read_mask(0).unique().tolist() == list(range(21))


def test_coco_without_maps_says_so(build):
    root = build("coco_plain")
    shutil.rmtree(root / "coco" / "stuffthingmaps")
    with pytest.raises(DatasetNotFound, match=r"No COCO with COCO-Stuff's maps .* with stuffthingmaps/train2017/"):
        COCOVOC(root)
