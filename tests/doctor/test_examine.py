"""The doctor finds what is wrong, names it, and finds nothing where nothing is."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.doctor.trees import NAMES, cut, labels, picture, recompressed

from segcontext.data import Dataset, Folder, open_dataset
from segcontext.doctor import examine
from segcontext.errors import DatasetNotFound, RecipeError

# Ways of breaking a folder, each with the finding that must name it and the file that it must show.


def missing_mask(tree):
    tree.save(picture(1), "images/train/alone.png")
    return "images/train/alone.png"


def missing_image(tree):
    tree.save(labels(2), "masks/train/widow.png")
    return "masks/train/widow.png"


def truncated_image(tree):
    tree.add("train/cut", 3)
    cut(tree.root / "images/train/cut.png", 900)
    return "images/train/cut.png"


def unreadable_mask(tree):
    tree.add("train/text", 4)
    (tree.root / "masks/train/text.png").write_text("no mask")
    return "masks/train/text.png"


def other_size(tree):
    tree.add("train/small", 5, mask=labels(5, width=32, height=24))
    return "masks/train/small.png"


def lossy_mask(tree):
    tree.save(picture(6), "images/train/lossy.png")
    tree.save(labels(6), "masks/train/lossy.jpg")
    return "masks/train/lossy.jpg"


def coloured_mask(tree):
    table = np.array([(10, 20, 30), (200, 0, 0), (0, 200, 0)], np.uint8)
    tree.add("train/colours", 7, mask=Image.fromarray(table[np.asarray(labels(7))]))
    return "masks/train/colours.png"


def strange_value(tree):
    tree.add("train/strange", 8, mask=labels(8, values=(0, 1, 77)))
    return "masks/train/strange.png"


def smoothed_mask(tree):
    ramp = np.linspace(0, 250, 64).round().astype(np.uint8)[None].repeat(48, 0)
    tree.add("train/smooth", 9, mask=Image.fromarray(ramp))
    return "masks/train/smooth.png"


def turned_image(tree):
    exif = Image.Exif()
    exif[0x0112] = 6
    tree.add("train/turned", 10, suffix=".jpg", exif=exif)
    return "images/train/turned.jpg"


def copy_in_validation(tree):
    tree.add("train/twin", 11)
    tree.add("val/twin_again", 11)
    return "images/val/twin_again.png"


def neighbour_in_validation(tree):
    tree.add("train/frame_1", 12)
    tree.add("val/frame_2", 12, image=recompressed(picture(12)))
    return "images/val/frame_2.png"


def printed_image(tree):
    tree.add("train/printed", 13, image=picture(13).convert("CMYK"), suffix=".jpg")
    return "images/train/printed.jpg"


def deep_image(tree):
    tree.add("train/deep", 14, image=Image.fromarray(np.asarray(picture(14).convert("L")).astype(np.uint16) * 257))
    return "images/train/deep.png"


def double(tree):
    for name in ("train/double_1", "train/double_2"):
        tree.add(name, 15)
    return "images/train/double_2.png"


def contrary_labels(tree):
    tree.add("train/contrary_1", 16)
    tree.add("train/contrary_2", 16, mask=labels(17))
    return "images/train/contrary_2.png"


def copied_mask(tree):
    tree.add("train/copied_1", 18)
    tree.add("train/copied_2", 19, mask=labels(18))
    return "images/train/copied_2.png"


def blank_image(tree):
    tree.add("train/blank", 20, image=Image.new("RGB", (64, 48), (9, 9, 9)))
    return "images/train/blank.png"


def void_mask(tree):
    tree.add("train/void", 21, mask=Image.new("L", (64, 48), 255))
    return "masks/train/void.png"


BREAKS = {
    "missing-mask": missing_mask,
    "missing-image": missing_image,
    "unreadable-image": truncated_image,
    "unreadable-mask": unreadable_mask,
    "size-mismatch": other_size,
    "lossy-mask": lossy_mask,
    "colour-mask": coloured_mask,
    "outside-classes": strange_value,
    "many-values": smoothed_mask,
    "exif-rotation": turned_image,
    "leak": copy_in_validation,
    "near-leak": neighbour_in_validation,
    "image-mode": printed_image,
    "duplicate": double,
    "contrary-labels": contrary_labels,
    "copied-mask": copied_mask,
    "blank-image": blank_image,
    "all-void": void_mask,
}
HARMLESS = {"missing-image", "near-leak", "image-mode", "duplicate", "contrary-labels", "copied-mask", "blank-image"}


def test_a_clean_folder_has_no_findings(tree, look):
    diagnosis, found = look(tree.fill())
    assert found == {}
    assert diagnosis.healthy
    assert diagnosis.mend().keys() == {"recipe.yaml"}
    assert len(diagnosis.seen.records) == 6


@pytest.mark.parametrize("code", BREAKS)
def test_each_break_alone_is_the_only_finding(tree, look, code):
    shown = BREAKS[code](tree.fill())
    diagnosis, found = look(tree)
    assert set(found) == {code}
    assert found[code].count == 1
    assert shown in str(found[code].examples[0])
    assert (tree.root / shown).exists()
    assert diagnosis.healthy == (code in HARMLESS | {"all-void"})


def test_a_folder_broken_in_eighteen_ways_shows_all_of_them(tree, look, tmp_path):
    tree.fill()
    tree.classes("\n".join([*NAMES, "unicorn"]))
    shown = {code: mistake(tree) for code, mistake in BREAKS.items()}
    shown["image-mode"] = deep_image(tree)
    diagnosis, found = look(tree)
    assert set(BREAKS) | {"class-never-seen"} == set(found)
    for code, path in shown.items():
        assert any(path in str(example) for example in found[code].examples), code
    assert "unicorn" in found["class-never-seen"].title
    assert not diagnosis.healthy
    diagnosis.save(tmp_path / "out")
    page = (tmp_path / "out/doctor.html").read_text()
    assert all(code in page for code in found)
    assert all(path in page for path in shown.values())
    assert page.count("data:image/jpeg;base64,") > 20
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "classes.txt" not in diagnosis.mend() or "77 void" in diagnosis.mend()["classes.txt"]


def test_two_kinds_of_odd_images_are_told_apart(tree, look):
    printed_image(tree.fill())
    deep_image(tree)
    found = [finding.title for finding in look(tree)[0].findings]
    assert len(found) == 2
    assert "printer (CMYK)" in "".join(found)
    assert "16 bits" in "".join(found)


# Mistakes that run through all masks


def mends(tree, diagnosis, file="classes.txt"):
    """Takes the lines over and asserts that the folder is in order then."""
    text = diagnosis.mend()[file]
    (tree.root / file).write_text(text)
    again = examine(tree.root, progress=False, workers=0)
    assert again.findings == ()
    return text


def test_binary_masks_of_0_and_255_are_named_and_mended(tree, look):
    tree.classes("wall\ncrack")
    diagnosis, found = look(tree.fill(values=(0, 255)))
    assert set(found) == {"binary-0-255", "class-never-seen"}
    assert "'wall'" in found["binary-0-255"].why
    assert mends(tree, diagnosis) == "0 wall\n255 crack\n"
    assert Folder(tree.root, "train")[0].mask.unique().tolist() == [0, 1]


def test_labels_from_1_are_named_and_mended(tree, look):
    diagnosis, found = look(tree.fill(values=(1, 2, 3)))
    assert set(found) == {"off-by-one", "class-never-seen"}
    assert "start at 1" in found["off-by-one"].title
    assert mends(tree, diagnosis) == "1 sky\n2 ground\n3 thing\n"
    assert Folder(tree.root, "train")[0].mask.unique().tolist() == [0, 1, 2]


def test_one_value_too_many_asks_whether_0_is_void(tree, look):
    tree.classes("ground\nthing")
    diagnosis, found = look(tree.fill(values=(0, 1, 2)))
    assert set(found) == {"off-by-one"}
    assert "reduce_zero_label" in found["off-by-one"].cure
    assert mends(tree, diagnosis) == "0 void\n1 ground\n2 thing\n"
    assert Folder(tree.root, "train")[0].mask.unique().tolist() == [0, 1, 255]


@pytest.mark.parametrize(("values", "code"), [((0, 127, 255), "stretched-labels"), ((4, 6, 99), "other-values")])
def test_as_many_values_as_classes_are_matched_with_them(tree, look, values, code):
    diagnosis, found = look(tree.fill(values=values))
    assert code in found
    assert mends(tree, diagnosis) == "".join(f"{v} {name}\n" for v, name in zip(values, NAMES, strict=True))


def test_a_few_strange_values_can_be_called_void(tree, look):
    tree.fill()
    tree.add("train/strange", 8, mask=labels(8, values=(0, 1, 77)))
    assert mends(tree, look(tree)[0]) == "0 sky\n1 ground\n2 thing\n77 void\n"


def test_instance_numbers_are_named(tree, look):
    tree.fill()
    tree.add("train/many", 8, mask=Image.fromarray(np.asarray(labels(8)).astype(np.uint16) * 1000 + 26000))
    found = look(tree)[1]
    assert "instances" in found["outside-classes"].cure
    assert found["deep-mask"].count == 1


def test_grey_masks_of_three_channels_are_mended_by_colours(tree, look):
    tree.fill()
    for path in sorted((tree.root / "masks").rglob("*.png")):
        Image.open(path).convert("RGB").save(path)
    diagnosis, found = look(tree)
    assert set(found) == {"grey-colour-mask"}
    mends(tree, diagnosis)
    assert Folder(tree.root, "train")[0].mask.unique().tolist() == [0, 1, 2]


def test_colours_that_are_no_class_are_shown(tree, look):
    tree.classes("sky 1 1 1\nground 2 2 2")
    colours = np.array([(1, 1, 1), (2, 2, 2), (3, 9, 3)], np.uint8)
    tree.add("train/a", 1, mask=Image.fromarray(colours[np.asarray(labels(1))]))
    tree.add("val/b", 2, mask=Image.fromarray(colours[np.asarray(labels(2)) % 2]))
    assert "(3, 9, 3)" in look(tree)[1]["strange-colour"].why


def test_rare_classes_get_their_weights(tree, look):
    rare = np.zeros((48, 64), np.uint8)
    rare[24:], rare[0, :8] = 1, 2
    for number in range(4):
        tree.add(f"{'train' if number < 3 else 'val'}/{number}", number, mask=Image.fromarray(rare))
    diagnosis, found = look(tree)
    (line,) = [line for line in diagnosis.mend()["recipe.yaml"].splitlines() if line.startswith("class_weights")]
    weights = [float(number) for number in re.findall(r"[\d.]+", line.partition("#")[0])]
    pixels = np.array([24 * 64 - 8, 24 * 64, 8])
    expected = 1 / (pixels / pixels.sum())
    expected /= (expected * pixels / pixels.sum()).sum()
    np.testing.assert_allclose(weights, expected, rtol=0.01)
    assert found["imbalance"].severity == "note"


def test_a_class_that_training_never_sees_is_a_warning(tree, look):
    tree.fill(train=3, val=1)
    for number in range(3):
        tree.add(f"train/good_{number}", 100 + number, mask=labels(100 + number, values=(0, 1)))
    found = look(tree)[1]
    assert found["class-not-in-split"].severity == "warning"
    assert "thing" in found["class-not-in-split"].title


# Folders that no reader opens


def test_without_a_classes_file_the_values_are_listed(tree, look):
    tree.fill()
    (tree.root / "classes.txt").unlink()
    diagnosis, found = look(tree)
    assert set(found) == {"no-classes-file", "unnamed-values"}
    assert diagnosis.mend()["classes.txt"] == "0 class_0\n1 class_1\n2 class_2\n"


def test_a_wrong_classes_file_is_quoted(tree, look):
    tree.fill()
    tree.classes("sky\nsky")
    found = look(tree)[1]
    assert "twice" in found["classes-file"].why


def test_other_folder_names_are_recognised(tree, look):
    tree.fill()
    (tree.root / "images").rename(tree.root / "JPEGImages")
    (tree.root / "masks").rename(tree.root / "Labels")
    missing = tree.root / "Labels/train/good_0.png"
    missing.unlink()
    diagnosis, found = look(tree)
    assert "JPEGImages/ and Labels/" in found["folder-names"].title
    assert "mv " in diagnosis.mend()["command"]
    assert found["missing-mask"].count == 1
    assert {split.name: len(split.items) for split in diagnosis.seen.survey.splits} == {"train": 4, "val": 2}


def test_lists_are_read_to_the_end(tree, look):
    for name in "abcdef":
        tree.add(name, ord(name))
    (tree.root / "train.txt").write_text("a\nb.png\nzebra\na\n# c\nunicorn\n")
    (tree.root / "val.txt").write_text("d\nb\n")
    found = look(tree)[1]
    assert [example.remark for example in found["list-names-no-image"].examples] == [
        "train.txt, line 3: zebra",
        "train.txt, line 6: unicorn",
    ]
    assert [example.remark for example in found["listed-twice"].examples] == ["train.txt, line 4: a"]
    assert [example.remark for example in found["in-no-split"].examples] == ["c", "e", "f"]
    assert found["leak"].count == 1
    assert "train, val" in str(found["leak"].examples[0])
    assert "missing-image" not in found


def test_files_that_share_a_name_are_paired(tree, look):
    tree.fill()
    tree.save(picture(1), "images/train/good_0.bmp")
    found = look(tree)[1]
    assert set(found) == {"same-name"}
    assert "good_0.bmp and images/train/good_0.png" in str(found["same-name"].examples[0])


def test_images_without_any_masks_are_one_finding(tree, look):
    tree.fill()
    tree.save(picture(1), "images/test/new.png")
    found = look(tree)[1]
    assert set(found) == {"unlabelled-split"}
    assert found["unlabelled-split"].severity == "warning"


def test_an_empty_validation_split_is_told(tree, look):
    tree.add("only", 1)
    found = look(tree)[1]
    assert "'val'" in found["empty-split"].title or "'train'" in found["empty-split"].title


def test_masks_of_other_splits_are_not_alone(tree, look):
    for name in "abcd":
        tree.add(name, ord(name))
    for file, names in (("train", "a\nb"), ("val", "c")):
        (tree.root / f"{file}.txt").write_text(names)
    assert set(look(tree)[1]) == {"in-no-split"}


def test_lists_that_keep_frames_together_are_written(tree, look):
    for video in range(3):
        for frame in range(3):
            image = picture(video) if frame == 0 else recompressed(picture(video), 50 + 15 * frame)
            split = "val" if (video, frame) in ((0, 0), (1, 2)) else "train"
            tree.add(f"{split}/{video}_{frame}", 10 * video + frame, image=image)
    for number in range(2):
        tree.add(f"val/other_{number}", 500 + number)
    diagnosis, found = look(tree)
    assert found["near-leak"].count == 2
    for file in ("train.txt", "val.txt"):
        (tree.root / file).write_text(diagnosis.mend()[file])
    again = look(tree)[1]
    assert not {"near-leak", "leak"} & set(again)
    listed = sorted((tree.root / "train.txt").read_text().split() + (tree.root / "val.txt").read_text().split())
    assert len(listed) == len(set(listed)) == 11
    assert len(Folder(tree.root, "train")) == 9


def test_no_lists_are_written_that_would_empty_a_split(tree, look):
    """Frames of one camera that does not move look alike, all of them."""
    for frame in range(8):
        image = picture(1) if frame == 0 else recompressed(picture(1), 50 + 5 * frame)
        tree.add(f"{'val' if frame > 5 else 'train'}/{frame}", frame, image=image)
    diagnosis, found = look(tree)
    assert found["near-leak"].count == 2
    assert "'val' would keep 0 of its 2 images" in found["near-leak"].cure
    assert diagnosis.mend().keys() == {"recipe.yaml"}


# Other data sets


def test_camvid_s_layout_is_examined(camvid_data):
    diagnosis = examine(camvid_data, progress=False)
    codes = {finding.code for finding in diagnosis.findings}
    assert {"release-count", "class-never-seen"} <= codes
    assert diagnosis.seen.survey.name == "camvid"
    assert diagnosis.healthy
    assert [split.name for split in diagnosis.seen.survey.splits] == ["train", "val"]


def test_masks_that_only_their_data_set_reads_are_counted(tmp_path, tree, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "odd_data.py").write_text(
        "from segcontext.data import Dataset\nimport torch\nfrom torchvision import tv_tensors\n"
        "class Odd(Dataset):\n"
        "    name, classes, palette = 'odd', ('a', 'b'), ((1, 2, 3), (4, 5, 6))\n"
        "    splits = ('train',)\n"
        "    def list_items(self):\n        return self.pairs('images/train', 'masks/train')\n"
        "    def read_mask(self, index):\n"
        "        return tv_tensors.Mask(torch.ones(48, 64, dtype=torch.uint8))\n"
    )
    tree.fill()
    diagnosis = examine(tree.root, dataset="odd_data.Odd", progress=False)
    assert diagnosis.seen.whole.pixels.tolist() == [0, 4 * 48 * 64]


def test_a_release_is_taken_as_it_is(tmp_path, caplog):
    """Labels that need a map, a split without labels, and splits that share their images on purpose."""
    for split, seed in (("train", 1), ("val", 2), ("test", 3)):
        name = f"{split}/bonn/bonn_00000{seed}_000019"
        (tmp_path / f"leftImg8bit/{split}/bonn").mkdir(parents=True)
        picture(seed).save(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png")
        if split != "test":
            (tmp_path / f"gtFine/{split}/bonn").mkdir(parents=True)
            labels(seed, values=(23, 7, 26)).save(tmp_path / f"gtFine/{name}_gtFine_labelIds.png")
    diagnosis = examine(tmp_path, progress=False)
    assert {finding.code for finding in diagnosis.findings} == {"release-count", "class-never-seen"}
    assert diagnosis.seen.survey.name == "cityscapes"
    counts = {split.name: len(split.items) for split in diagnosis.seen.survey.splits}
    assert counts == {"train": 1, "val": 1, "trainval": 2, "test": 1}
    assert len(diagnosis.seen.records) == 3
    assert np.flatnonzero(diagnosis.seen.whole.pixels).tolist() == [0, 10, 13]
    assert diagnosis.mend()["recipe.yaml"].splitlines()[1] == "dataset: cityscapes"
    assert not caplog.records


def test_the_drawn_scenes_are_healthy():
    diagnosis = examine("demo", limit=3, progress=False)
    assert diagnosis.healthy
    assert len(diagnosis.seen.records) == 9
    dataset = open_dataset("demo", "train")
    assert isinstance(dataset, Dataset)
    assert diagnosis.seen.tallies["train"].masks == 3


@pytest.mark.skipif("SEGCONTEXT_CAMVID" not in os.environ, reason="SEGCONTEXT_CAMVID names no folder")
def test_camvid_itself_has_no_errors():
    diagnosis = examine(os.environ["SEGCONTEXT_CAMVID"], limit=30, progress=False)
    assert diagnosis.healthy
    counts = {split.name: len(split.items) for split in diagnosis.seen.survey.splits}
    assert counts.items() >= {"train": 367, "val": 101}.items()
    assert diagnosis.seen.whole.presence.all()
    assert {finding.code for finding in diagnosis.findings} <= {"imbalance", "specks", "near-duplicate"}


# How it works


def test_a_limit_opens_images_of_every_split(tree, look):
    diagnosis, _ = look(tree.fill(train=9, val=3), limit=2)
    assert [record.pair.name for record in diagnosis.seen.records] == ["good_0", "good_4", "good_10", "good_11"]
    assert len(diagnosis.seen.survey.pairs) == 12


def test_what_is_not_there_is_refused(tree, tmp_path):
    with pytest.raises(DatasetNotFound, match="No folder"):
        examine(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DatasetNotFound, match="No images in"):
        examine(tmp_path / "bare")
    with pytest.raises(DatasetNotFound, match="CamVid"):
        examine(tree.fill().root, dataset="camvid")
    with pytest.raises(RecipeError, match="No data set 'foldr'"):
        examine(tree.root, dataset="foldr")
    for options in ({"limit": 0}, {"workers": -1}):
        with pytest.raises(RecipeError, match="limit starts at 1"):
            examine(tree.root, **options)


def test_processes_can_be_given_the_work(tree, look, monkeypatch):
    expected, _ = look(tree.fill())

    def send(thing):
        return pickle.loads(pickle.dumps(thing))

    def share_out(function, shared, jobs, *, workers):
        assert workers == 3
        for job in jobs:
            yield send(send(function)(send(shared), send(job)))

    monkeypatch.setattr("segcontext.doctor.examining.share_out", share_out)
    diagnosis = examine(tree.root, workers=3, progress=False)
    assert diagnosis.values() | {"seconds": 0} == expected.values() | {"seconds": 0}


def test_the_numbers_are_those_of_the_files(tree, look):
    diagnosis, _ = look(tree.fill())
    train = open_dataset(tree.root, "train")
    masks = np.stack([train[index].mask.numpy() for index in range(len(train))])
    images = np.stack([train[index].image.numpy() for index in range(len(train))]) / 255
    tally = diagnosis.seen.tallies["train"]
    assert tally.pixels.tolist() == np.bincount(masks.ravel(), minlength=3).tolist()
    assert tally.presence.tolist() == [(masks == index).any((1, 2)).sum() for index in range(3)]
    np.testing.assert_allclose(tally.channels()["mean"], images.mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(tally.channels()["deviation"], images.std((0, 2, 3)), atol=1e-4)
    assert tally.sizes == {(64, 48): 4}
    assert Path(diagnosis.values()["data"]) == tree.root
