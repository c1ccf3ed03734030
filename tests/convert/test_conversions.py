"""COCO files, labelme files and colour masks become folders of one's own, and back."""

import base64
import io
import json
import os
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from segcontext import cli
from segcontext.convert import (
    FolderTarget,
    encode_rle,
    from_coco,
    from_colours,
    from_labelme,
    kind_of,
    read_class_table,
    to_coco,
)
from segcontext.data import Folder
from segcontext.errors import DataError, DatasetNotFound, OutputExists, SampleError

HEIGHT, WIDTH = 20, 30


def photograph(path, seed=0, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size).save(path)
    return path


def box(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def pixels(left, top, right, bottom):
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[top:bottom, left:right] = True
    return found


@pytest.fixture
def coco(tmp_path):
    """A COCO file of two images in a folder, and its content, which a test may change."""
    for number in (1, 2):
        photograph(tmp_path / f"photos/{number:03}.jpg", number)
    content = {
        "images": [{"id": n, "file_name": f"{n:03}.jpg", "height": HEIGHT, "width": WIDTH} for n in (1, 2)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [],
    }

    def add(image, category, segmentation, **keys):
        content["annotations"].append(
            {"id": len(content["annotations"]), "image_id": image, "category_id": category}
            | {"segmentation": segmentation, "iscrowd": 0, **keys}
        )

    def convert(*, split="", image_files="link", overwrite=False, **options):
        (tmp_path / "objects.json").write_text(json.dumps(content))
        target = FolderTarget(folder=tmp_path / "out", split=split, image_files=image_files, overwrite=overwrite)
        options.setdefault("images", tmp_path / "photos")
        done = from_coco(tmp_path / "objects.json", target, progress=False, workers=0, **options)
        return done, Folder(tmp_path / "out", split or "all", labels=True)

    convert.content, convert.add = content, add
    return convert


# From COCO


def test_polygons_and_encodings_become_one_mask(coco):
    coco.add(1, 3, [box(2, 3, 8, 9), box(20, 3, 22, 5)])
    coco.add(1, 18, encode_rle(pixels(10, 10, 15, 14)))
    runs = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 25, 2 * HEIGHT, HEIGHT * 3]}
    coco.add(1, 18, runs)
    done, folder = coco()
    assert (done.written, done.failures, done.classes) == (2, (), ("background", "car", "dog"))
    assert folder.classes == done.classes
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[pixels(2, 3, 8, 9) | pixels(20, 3, 22, 5)] = 1
    expected[pixels(10, 10, 15, 14) | pixels(25, 0, 27, HEIGHT)] = 2
    np.testing.assert_array_equal(folder[0].mask, expected)
    assert not folder[1].mask.any()
    assert [sample.name for sample in folder] == ["001", "002"]


@pytest.mark.parametrize(("overlap", "small_first", "shared"), [("smaller", 2, 2), ("later", 1, 2), ("void", 255, 255)])
def test_pixels_of_two_objects_go_to_whom_the_order_says(coco, overlap, small_first, shared):
    coco.add(1, 18, [box(4, 4, 8, 8)])
    coco.add(1, 3, [box(2, 2, 12, 12)])
    coco.add(2, 3, [box(2, 2, 12, 12)])
    coco.add(2, 18, [box(4, 4, 8, 8)])
    masks = [sample.mask.numpy() for sample in coco(overlap=overlap)[1]]
    assert set(masks[0][4:8, 4:8].ravel()) == {small_first}
    assert set(masks[1][4:8, 4:8].ravel()) == {shared}
    assert masks[0][3, 3] == masks[1][3, 3] == 1


def test_objects_of_one_class_may_overlap(coco):
    coco.add(1, 3, [box(2, 2, 12, 12)])
    coco.add(1, 3, [box(4, 4, 18, 8)])
    assert set(coco(overlap="void")[1][0].mask.unique().tolist()) == {0, 1}


def test_crowds_are_void_below_everything(coco):
    coco.add(1, 18, [box(4, 4, 8, 8)])
    coco.add(1, 3, encode_rle(pixels(0, 0, 10, 10)), iscrowd=1)
    for overlap in ("smaller", "later", "void"):
        mask = coco(overlap=overlap, overwrite=True)[1][0].mask.numpy()
        assert set(mask[4:8, 4:8].ravel()) == {2}
        assert mask[1, 1] == 255
        assert mask[15, 15] == 0


def test_what_no_object_covers_may_be_void(coco):
    coco.add(1, 18, [box(4, 4, 8, 8)])
    done, folder = coco(background="void")
    assert done.classes == ("car", "dog")
    assert folder[0].mask.unique().tolist() == [1, 255]


def test_a_list_chooses_and_orders_the_classes(coco, tmp_path):
    coco.add(1, 18, [box(4, 4, 8, 8)])
    coco.add(1, 3, [box(14, 4, 18, 8)])
    (tmp_path / "wanted.txt").write_text("dog\n")
    done, folder = coco(classes=tmp_path / "wanted.txt")
    assert done.classes == ("background", "dog")
    assert (int(folder[0].mask[5, 5]), int(folder[0].mask[5, 15])) == (1, 0)
    (tmp_path / "wanted.txt").write_text("dog 9 9 9\nbackground 0 0 0\ncar 1 1 1\n")
    done, folder = coco(classes=tmp_path / "wanted.txt", overwrite=True)
    assert done.classes == ("dog", "background", "car")
    assert folder.palette == ((9, 9, 9), (0, 0, 0), (1, 1, 1))
    assert (int(folder[0].mask[5, 5]), int(folder[0].mask[0, 0])) == (0, 1)
    (tmp_path / "wanted.txt").write_text("unicorn\n")
    with pytest.raises(DataError, match="names none of the categories"):
        coco(classes=tmp_path / "wanted.txt", overwrite=True)


def test_a_list_without_background_keeps_its_colours_and_its_void(coco, tmp_path):
    coco.content["categories"] += [{"id": 1, "name": "ignore"}, {"id": 2, "name": "fly"}]
    coco.add(1, 18, [box(4, 4, 8, 8)])
    coco.add(1, 1, [box(14, 4, 18, 8)])
    coco.add(1, 2, [box(20, 4, 24, 8)])
    (tmp_path / "wanted.txt").write_text("dog 9 8 7\ncar 1 2 3\nvoid 0 0 0\nignore\n")
    done, folder = coco(classes=tmp_path / "wanted.txt")
    assert done.classes == folder.classes == ("background", "dog", "car")
    assert folder.palette[1:] == ((9, 8, 7), (1, 2, 3))
    assert folder[0].mask[5, [5, 15, 21, 0]].tolist() == [1, 255, 0, 0]


def test_objects_of_no_image_are_told_of(run, coco, tmp_path):
    coco.add(1, 18, [box(4, 4, 8, 8)])
    coco.add(99, 18, [box(4, 4, 8, 8)])
    coco.add("1", 3, [box(4, 4, 8, 8)])
    done, _ = coco()
    assert re.match(r"2 of 3 objects of .*objects\.json have an image_id that no image has: 99, '1'\.", done.lost)
    code, out, _ = run("objects.json", "--to", "again", "--images", "photos")
    assert (code, "2 of 2 images" in out, "left out: 2 of 3 objects" in out) == (1, True, True)
    # Those that are not wanted are missed by nobody.
    (tmp_path / "cars.txt").write_text("car\n")
    coco.content["annotations"].pop()
    assert not coco(classes=tmp_path / "cars.txt", overwrite=True)[0].lost
    del coco.content["annotations"][0]
    with pytest.raises(DataError, match=r"1 of 1 objects .*: 99\. The images are numbered 1, 2\."):
        coco(overwrite=True)


def test_splits_go_into_one_folder_and_need_the_same_classes(coco, tmp_path):
    coco(split="train")
    coco(split="val")
    assert len(Folder(tmp_path / "out", "train")) == len(Folder(tmp_path / "out", "val")) == 2
    coco.content["categories"].append({"id": 50, "name": "tree"})
    with pytest.raises(OutputExists, match="names other classes"):
        coco(split="test")
    with pytest.raises(OutputExists, match="names other classes"):
        coco(split="train")


def test_masks_are_not_replaced_unless_asked(coco, tmp_path):
    coco()
    before = (tmp_path / "out/masks/001.png").read_bytes()
    coco.add(1, 18, [box(4, 4, 8, 8)])
    with pytest.raises(OutputExists, match=r"001\.png is already there"):
        coco()
    assert (tmp_path / "out/masks/001.png").read_bytes() == before
    coco(overwrite=True)
    assert (tmp_path / "out/masks/001.png").read_bytes() != before


@pytest.mark.parametrize("image_files", ["link", "copy", "none"])
def test_images_are_linked_copied_or_left(coco, tmp_path, image_files):
    if image_files == "none":
        (tmp_path / "out/images").mkdir(parents=True)
        for number in (1, 2):
            photograph(tmp_path / f"out/images/{number:03}.jpg", number)
        folder = coco(image_files="none", images=None)[1]
    else:
        folder = coco(image_files=image_files)[1]
        assert (tmp_path / "out/images/001.jpg").is_symlink() == (image_files == "link")
        assert (tmp_path / "out/images/001.jpg").read_bytes() == (tmp_path / "photos/001.jpg").read_bytes()
        coco(image_files=image_files, overwrite=True)
    assert len(folder) == 2


def test_images_are_found_around_the_file(coco, tmp_path):
    (tmp_path / "photos").rename(tmp_path / "val2017")
    assert coco(images=None)[0].written == 2
    with pytest.raises(SampleError, match=r"2 of 2 images .*--images FOLDER"):
        coco(images=tmp_path / "out/masks", overwrite=True)


def test_one_bad_image_does_not_stop_the_others(coco, tmp_path):
    coco.add(1, 18, encode_rle(np.ones((5, 5))))
    done, _ = coco()
    assert done.written == 1
    assert [failure.name for failure in done.failures] == ["001"]
    assert "5×5" in done.failures[0].reason
    photograph(tmp_path / "photos/002.jpg", size=(HEIGHT, WIDTH))
    with pytest.raises(SampleError, match="None of the 2 images"):
        coco(overwrite=True)


def test_images_turned_by_exif_must_have_the_size_that_is_seen(coco, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / "photos/001.jpg").save(tmp_path / "photos/001.jpg", exif=exif)
    done, _ = coco()
    assert "as it is seen" in done.failures[0].reason
    coco.content["images"][0] |= {"height": WIDTH, "width": HEIGHT}
    done, folder = coco(overwrite=True)
    assert not done.failures
    assert folder[0].mask.shape == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("annotations"), "missing annotations"),
        (lambda content: content["annotations"].append({"image_id": 1, "category_id": 3}), "has boxes only"),
        (lambda content: content["annotations"].append({"segments_info": []}), "panoptic"),
        (lambda content: content["images"][0].pop("height"), "no file name or size"),
        (lambda content: content["images"][0].pop("id"), "no file name or size: KeyError"),
        (lambda content: content["annotations"][0].update(image_id=[1]), "annotation 0 is wrong"),
        (lambda content: content["images"][0].update(file_name="../../etc/001.jpg"), "leads out of"),
        (lambda content: content["images"][0].update(file_name="002.jpg"), "Two images"),
        (lambda content: content["categories"].clear(), "has no categories"),
        (
            lambda content: content["categories"].extend({"id": n, "name": f"c{n}"} for n in range(100, 400)),
            "names 303 classes",
        ),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_written(coco, tmp_path, change, message):
    if "annotations" not in message and "boxes" not in message and "panoptic" not in message:
        coco.add(1, 3, [box(2, 2, 4, 4)])
    change(coco.content)
    with pytest.raises(DataError, match=message):
        coco(image_files="none", images=None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("polygon", [[1, 2, 3], ["a", "b"], [1, 2, float("nan"), 4, 5, 6]])
def test_a_wrong_polygon_fails_its_image(coco, polygon):
    coco.add(1, 3, [polygon])
    assert "a polygon is no list" in coco()[0].failures[0].reason


# And back


@pytest.fixture
def own(tmp_path):
    """A folder with regions that have holes, touch at corners, and hold void."""
    rng = np.random.default_rng(0)
    for number in range(3):
        photograph(tmp_path / f"own/images/all/{number}.png", number)
        coarse = rng.choice([0, 0, 1, 2], (HEIGHT // 2, WIDTH // 2)).astype(np.uint8)
        labels = coarse.repeat(2, 0).repeat(2, 1)
        labels[5:9, 5:9], labels[6:8, 6:8] = 2, 1
        (tmp_path / "own/masks/all").mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(tmp_path / f"own/masks/all/{number}.png")
    (tmp_path / "own/images/all").rename(tmp_path / "own/images/train")
    (tmp_path / "own/masks/all").rename(tmp_path / "own/masks/train")
    (tmp_path / "own/classes.txt").write_text("background\ncar\ndog\n")
    return tmp_path / "own"


@pytest.mark.parametrize("segments", ["polygons", "rle"])
def test_a_folder_comes_back_from_coco_pixel_by_pixel(own, tmp_path, segments):
    before = Folder(own, "train")
    done = to_coco(before, tmp_path / "objects.json", segments=segments, progress=False)
    assert (done.written, done.classes) == (3, ("car", "dog"))
    content = json.loads((tmp_path / "objects.json").read_text())
    kinds = {type(each["segmentation"]) for each in content["annotations"]}
    assert kinds == ({list, dict} if segments == "polygons" else {dict})
    target = FolderTarget(folder=tmp_path / "back", split="train")
    # The file names hold the split already.
    back = from_coco(
        tmp_path / "objects.json", FolderTarget(folder=tmp_path / "back"), images=own / "images", progress=False
    )
    assert back.classes == ("background", "car", "dog")
    after = Folder(tmp_path / "back", "train")
    assert target.mask("0") == tmp_path / "back/masks/train/0.png"
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new.mask, old.mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_areas_and_boxes_are_those_of_coco_s_code(own, tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    to_coco(Folder(own, "train"), tmp_path / "objects.json", progress=False)
    content = json.loads((tmp_path / "objects.json").read_text())
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    for each in content["annotations"]:
        rle = (
            coco.frPyObjects(each["segmentation"], *sizes[each["image_id"]])
            if isinstance(each["segmentation"], list)
            else [each["segmentation"]]
        )
        whole = coco.merge(rle)
        assert int(coco.area(whole)) == each["area"]
        assert coco.toBbox(whole).tolist() == each["bbox"]
    assert len({each["id"] for each in content["annotations"]}) == len(content["annotations"])
    assert {each["category_id"] for each in content["annotations"]} == {1, 2}


def test_void_belongs_to_no_object_and_images_without_labels_fail(own, tmp_path):
    mask = own / "masks/train/0.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(mask)
    (own / "masks/train/1.png").write_text("broken")
    done = to_coco(Folder(own, "train"), tmp_path / "objects.json", progress=False)
    assert [failure.name for failure in done.failures] == ["1"]
    content = json.loads((tmp_path / "objects.json").read_text())
    assert {each["image_id"] for each in content["annotations"]} == {2}
    with pytest.raises(OutputExists, match="already there"):
        to_coco(Folder(own, "train"), tmp_path / "objects.json")


# From labelme


def shape(label, kind, points, **more):
    return {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}, **more}


@pytest.fixture
def labelme(tmp_path):
    """Writes labelme files and converts them."""

    def write(name, shapes, *, embedded=False, **keys):
        image = photograph(tmp_path / f"shot/{name}.jpg", 5)
        content = {"version": "5.5.0", "shapes": shapes, "imagePath": image.name, "imageData": None}
        content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        if embedded:
            content["imageData"] = base64.b64encode(image.read_bytes()).decode()
            image.unlink()
        (tmp_path / f"shot/{name}.json").write_text(json.dumps(content | keys))

    def convert(*, image_files="link", overwrite=False, **options):
        target = FolderTarget(folder=tmp_path / "out", image_files=image_files, overwrite=overwrite)
        done = from_labelme(tmp_path / "shot", target, progress=False, **options)
        return done, Folder(tmp_path / "out", "all")

    convert.write = write
    return convert


def test_all_shapes_of_labelme_are_drawn(labelme):
    patch = np.zeros((4, 5), np.uint8)
    patch[1:3, 1:4] = 255
    buffer = io.BytesIO()
    Image.fromarray(patch).convert("1").save(buffer, "PNG")
    labelme.write(
        "a",
        [
            shape("box", "rectangle", [[2, 1], [6, 5]]),
            shape("poly", "polygon", [[10, 1], [14, 1], [14, 5], [10, 5]]),
            shape("disc", "circle", [[22, 5], [25, 5]]),
            shape("road", "linestrip", [[2, 15], [12, 15], [12, 18]]),
            shape("patch", "mask", [[20, 12], [24, 15]], mask=base64.b64encode(buffer.getvalue()).decode()),
            shape("older", None, [[16, 10], [18, 10], [18, 12], [16, 12]]),
        ],
    )
    done, folder = labelme(line_width=2)
    assert done.classes == ("background", "box", "disc", "older", "patch", "poly", "road")
    mask = folder[0].mask.numpy()
    areas = dict(zip(folder.classes, np.bincount(mask.ravel(), minlength=7).tolist(), strict=True))
    assert (areas["box"], areas["poly"], areas["older"], areas["patch"]) == (16, 16, 4, 6)
    assert abs(areas["disc"] - np.pi * 9) < 4
    assert mask[13, 21] == folder.classes.index("patch")
    assert abs(areas["road"] - (10 + 3) * 2) <= 6


def test_later_shapes_lie_on_top_and_special_labels_are_understood(labelme):
    square = [[2, 2], [10, 2], [10, 10], [2, 10]]
    labelme.write(
        "deep/a",
        [
            shape("car", "polygon", square),
            shape("_background_", "rectangle", [[2, 2], [4, 4]]),
            shape("__ignore__", "rectangle", [[6, 6], [10, 10]]),
            shape("dog", "point", [[20, 10]]),
        ],
        embedded=True,
    )
    done, folder = labelme()
    assert done.classes == ("background", "car", "dog")
    assert folder[0].name == "deep/a"
    mask = folder[0].mask.numpy()
    assert (mask[2, 2], mask[5, 5], mask[8, 8], mask[10, 20]) == (0, 1, 255, 2)
    assert not labelme(overlap="smaller", overwrite=True)[1][0].mask[2, 2]


def test_labels_that_a_list_leaves_out_are_background(labelme, tmp_path):
    labelme.write("a", [shape("car", "rectangle", [[2, 2], [8, 8]]), shape("fly", "rectangle", [[20, 2], [28, 8]])])
    (tmp_path / "wanted.txt").write_text("car 1 2 3")
    done, folder = labelme(classes=tmp_path / "wanted.txt")
    assert done.classes == ("background", "car")
    assert folder.palette[1] == (1, 2, 3)
    assert (int(folder[0].mask[4, 4]), int(folder[0].mask[4, 24])) == (1, 0)
    mask = labelme(classes=tmp_path / "wanted.txt", background="void", overwrite=True)[1][0].mask
    assert (int(mask[4, 4]), int(mask[4, 24])) == (0, 255)


@pytest.mark.parametrize(
    ("shapes", "keys", "message"),
    [
        ([shape("car", "star", [[1, 2]])], {}, "is a star"),
        ([shape("car", "circle", [[1, 2]])], {}, "'car' is wrong"),
        ([shape("car", "mask", [[1, 2]], mask="?")], {}, "'car' is wrong"),
        ([], {"imageHeight": 9}, "its image is 30×20"),
        ([], {"imagePath": "gone.jpg"}, "has no image"),
        ([], {"imagePath": "gone.jpg", "imageData": "AAAA"}, "embedded image cannot be decoded"),
    ],
)
def test_a_wrong_file_fails_alone(labelme, shapes, keys, message):
    labelme.write("good", [shape("car", "rectangle", [[2, 2], [8, 8]])])
    labelme.write("wrong", shapes, **keys)
    done, _ = labelme()
    assert [failure.name for failure in done.failures] == ["wrong"]
    assert message in done.failures[0].reason


def test_images_can_lie_elsewhere_or_be_left_out(labelme, tmp_path):
    labelme.write("a", [shape("car", "rectangle", [[2, 2], [8, 8]])], imagePath="..\\raw\\a.jpg")
    (tmp_path / "shot/a.jpg").rename(tmp_path / "a.jpg")
    assert labelme(images=tmp_path)[0].written == 1
    photograph(tmp_path / "out/images/a.jpg")
    assert labelme(image_files="none", overwrite=True)[0].written == 1


# From colours

COLOURS = {"car": (9, 0, 0), "road": (0, 200, 0), "void": (0, 0, 0)}


@pytest.fixture
def coloured(tmp_path):
    """Masks in colours beside their images, the list of the colours, and the labels that they stand for."""
    labels = np.random.default_rng(1).choice([0, 1, 255], (2, HEIGHT, WIDTH)).astype(np.uint8)
    table = np.zeros((256, 3), np.uint8)
    table[[0, 1, 255]] = list(COLOURS.values())
    (tmp_path / "set/colours").mkdir(parents=True)
    for name, each in zip("ab", labels, strict=True):
        Image.fromarray(table[each]).save(tmp_path / f"set/colours/{name}_L.png")
        photograph(tmp_path / f"set/images/{name}.jpg")
    (tmp_path / "table.txt").write_text("".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in COLOURS.items()))

    def convert(*, image_files="copy", overwrite=False, **options):
        target = FolderTarget(folder=tmp_path / "out", image_files=image_files, overwrite=overwrite)
        options = {"classes": tmp_path / "table.txt", "ending": "_L", **options}
        done = from_colours(tmp_path / "set/colours", target, progress=False, **options)
        return done, Folder(tmp_path / "out", "all")

    convert.labels = labels
    return convert


def test_colours_become_indices(coloured):
    done, folder = coloured()
    assert done.classes == folder.classes == ("car", "road")
    assert folder.palette == ((9, 0, 0), (0, 200, 0))
    for sample, labels in zip(folder, coloured.labels, strict=True):
        np.testing.assert_array_equal(sample.mask, labels)


def test_unknown_colours_fail_or_are_void_or_the_nearest(coloured, tmp_path):
    path = tmp_path / "set/colours/a_L.png"
    pixels = np.array(Image.open(path))
    pixels[0, :3] = (3, 190, 9), (12, 1, 0), (1, 2, 1)
    Image.fromarray(pixels).save(path)
    done, _ = coloured()
    assert [failure.name for failure in done.failures] == ["a"]
    assert "3 of its colours are no class, such as (1, 2, 1)" in done.failures[0].reason
    assert coloured(unknown="void", overwrite=True)[1][0].mask[0, :3].tolist() == [255, 255, 255]
    assert coloured(unknown="nearest", overwrite=True)[1][0].mask[0, :3].tolist() == [1, 0, 255]


def test_without_a_list_the_colours_are_shown(coloured):
    with pytest.raises(DataError, match=r"(?s)--classes FILE.*NAME \d+ \d+ \d+\nNAME \d+ \d+ \d+\nNAME"):
        coloured(classes=None)


def test_masks_without_images_are_refused(coloured, tmp_path):
    with pytest.raises(SampleError, match=r"2 of 2 masks have no image.*--ending _L"):
        coloured(ending="")
    with pytest.raises(DatasetNotFound, match="--images FOLDER"):
        coloured(images=tmp_path / "nowhere")
    (tmp_path / "plain.txt").write_text("car\nroad\n")
    with pytest.raises(DataError, match="gives no colours"):
        coloured(classes=tmp_path / "plain.txt")


@pytest.mark.parametrize(
    ("text", "names", "colours"),
    [
        ("car 1 2 3\nred house 4 5 6", ("car", "red house"), {(1, 2, 3): 0, (4, 5, 6): 1}),
        ("7 car 1 2 3\n9 road 4 5 6  # grey", ("car", "road"), {(1, 2, 3): 0, (4, 5, 6): 1}),
        (
            "1 2 3\t\tcar\n4 5 6 Road_Mark\n0 0 0 Void",
            ("car", "Road_Mark"),
            {(1, 2, 3): 0, (4, 5, 6): 1, (0, 0, 0): 255},
        ),
        ("name,r,g,b\ncar,1,2,3\n\nroad; 4; 5; 6", ("car", "road"), {(1, 2, 3): 0, (4, 5, 6): 1}),
        ("car 1 2 3\nroad 4 5 6\ncar 7 8 9", ("car", "road"), {(1, 2, 3): 0, (4, 5, 6): 1, (7, 8, 9): 0}),
        ("car\nroad", ("car", "road"), {}),
    ],
)
def test_lists_of_many_forms_are_read(tmp_path, text, names, colours):
    (tmp_path / "list.txt").write_text(text)
    table = read_class_table(tmp_path / "list.txt")
    assert (table.names, table.colours) == (names, colours)
    assert len(set(table.palette)) == len(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "names 0 classes"), ("car 1 2 300", "from 0 to 255"), ("car 1 2 3\nroad 1 2 3", "to two classes")],
)
def test_wrong_lists_are_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_table(tmp_path / "list.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_class_table(tmp_path / "none.txt")


# The command


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = cli.main(["convert", *map(str, words)])
        return code, *capsys.readouterr()

    return call


def test_the_command_tells_what_a_source_is(run, coco, labelme, coloured, own, tmp_path):
    coco.add(1, 3, [box(2, 2, 4, 4)])
    coco()
    labelme.write("a", [shape("car", "rectangle", [[2, 2], [8, 8]])])
    for words, text in (
        (("objects.json", "--to", "one", "--images", "photos"), "2 of 2 images with 3 classes converted into one"),
        (("shot", "--to", "two", "--split", "train"), "1 of 1 images with 2 classes converted into two"),
        (("set/colours", "--to", "three", "--classes", "table.txt", "--ending", "_L"), "2 of 2 images with 2 classes"),
        (("own", "--to", "four.json"), "3 of 3 images with 2 classes converted into four.json"),
    ):
        code, out, err = run(*words)
        assert code == 0, err
        assert text in out
    assert len(Folder(tmp_path / "two", "train")) == 1
    assert kind_of(tmp_path / "shot/a.json", "x") == "labelme"


def test_other_json_files_beside_labelme_s_do_not_matter(run, labelme, tmp_path, caplog):
    labelme.write("photo", [shape("car", "rectangle", [[2, 2], [8, 8]])])
    (tmp_path / "shot/a_list.json").write_text("[1]")
    (tmp_path / "shot/settings.json").write_text('{"theme": "dark"}')
    (tmp_path / "shot/coco.json").write_text('{"annotations": []}')
    (tmp_path / "shot/broken.json").write_text('{"shapes": [')
    code, out, err = run("shot", "--to", "out")
    assert (code, "1 of 2 images with 2 classes" in out) == (1, True), err
    assert "not converted: broken:" in out
    assert "left out 3 JSON files that hold no 'shapes': a_list, coco, settings" in caplog.text
    (tmp_path / "shot/photo.json").unlink()
    (tmp_path / "shot/broken.json").unlink()
    with pytest.raises(DataError, match=r"COCO files such as coco\.json"):
        kind_of(tmp_path / "shot", "x")
    with pytest.raises(DataError, match="No labelme file"):
        labelme()


def test_damaged_json_files_alone_are_named(tmp_path):
    photograph(tmp_path / "shot/a.jpg")
    (tmp_path / "shot/a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json cannot be read as JSON"):
        kind_of(tmp_path / "shot", "x")


def test_the_command_says_what_could_not_be_converted(run, coco):
    coco.add(1, 3, [[1, 2, 3]])
    coco()
    code, out, _ = run("objects.json", "--to", "again", "--images", "photos")
    assert code == 1
    assert "not converted: 001: a polygon" in out
    assert "1 of 2 images" in out


def test_the_command_refuses_what_it_does_not_know(run, coco, tmp_path):
    coco()
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    for words, text in (
        (("nowhere", "--to", "x"), "no file or folder"),
        (("other.json", "--to", "x"), "neither of COCO"),
        (("empty", "--to", "x"), "nothing that can be converted"),
        (("objects.json", "--to", "x", "--unknown", "void"), "--unknown is for colours"),
        (("objects.json", "--images", "photos", "--to", "other.json/x"), "Not a directory"),
        (("objects.json", "--images", "photos", "--to", "x", "--workers", "-1"), "workers starts at 0"),
        (("objects.json",), "needs --to"),
    ):
        code, _, err = run(*words)
        assert code == 2
        assert text in err
        assert not (tmp_path / "x").exists()


def test_processes_can_be_given_the_work(coco, own, labelme, coloured, tmp_path, monkeypatch):
    travelled = []

    def send(thing):
        travelled.append(thing)
        return pickle.loads(pickle.dumps(thing))

    def share_out(function, shared, jobs, *, workers):
        for job in jobs:
            yield send(send(function)(send(shared), send(job)))

    monkeypatch.setattr("segcontext.convert.running.share_out", share_out)
    coco.add(1, 3, [box(2, 2, 14, 4)])
    labelme.write("a", [shape("car", "rectangle", [[2, 2], [8, 8]])])
    assert coco()[0].written == 2
    assert labelme(overwrite=True)[0].written == 1
    assert coloured(overwrite=True)[0].written == 2
    assert to_coco(Folder(own, "train"), tmp_path / "back.json", progress=False).written == 3
    assert len(travelled) == 4 * (2 + 1 + 2 + 3)


def test_an_interrupted_conversion_leaves_whole_files_and_no_classes_file(coco, tmp_path, monkeypatch):
    from segcontext.convert import target

    original, calls = target.save_labels, []

    def stopping(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(target, "save_labels", stopping)
    with pytest.raises(KeyboardInterrupt):
        coco()
    found = sorted(os.path.relpath(path, tmp_path / "out") for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["images/001.jpg", "images/002.jpg", "masks/001.png"]
