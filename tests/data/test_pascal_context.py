import shutil

import pytest

from segcontext.data import VOC, PascalContext, PascalContext60
from segcontext.errors import DataError, DatasetNotFound

# The numbers among the 459 that the Detail API keeps, in the order in which its users list them, without 0.
DETAIL = (
    *(2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296),
    *(427, 44, 45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220),
    *(349, 360, 98, 187, 104, 105, 366, 189, 368, 113, 115),
)
LAYOUTS = ["context_converted", "context_png", "context_mat"]


def test_classes_are_in_alphabetical_order():
    assert len(PascalContext.classes) == len(DETAIL) == 59
    assert list(PascalContext.classes) == sorted(PascalContext.classes)
    assert PascalContext60.classes == ("background", *PascalContext.classes)
    assert PascalContext60.palette == ((0, 0, 0), *PascalContext.palette)
    assert PascalContext.palette[0] == (128, 0, 0)


def test_459_labels_are_mapped_by_their_numbers(releases, meaning):
    root, _ = releases["context_mat"]
    # The labels are in alphabetical order, so the sorted numbers are those of the sorted names.
    index = {number: index for index, number in enumerate(sorted(DETAIL))}
    data, with_background = PascalContext(root), PascalContext60(root)
    for value in (*range(460), 460, 65535, -1):
        known = 0 <= value < 460
        assert meaning(data, value) == (index.get(value, 255) if known else None)
        assert meaning(with_background, value) == (index.get(value, -1) + 1 if known else None)
    assert data.read_mask(0)[0].tolist() == [index.get(value, 255) for value in range(460)]


def test_png_of_the_converter_holds_the_indices(releases, meaning):
    root, _ = releases["context_converted"]
    data, with_background = PascalContext(root), PascalContext60(root)
    for value in range(256):
        assert meaning(data, value) == (255 if value in (0, 255) else value - 1 if value < 60 else None)
        assert meaning(with_background, value) == (value if value < 60 or value == 255 else None)


def test_png_of_the_release_has_an_order_of_its_own(releases, meaning):
    root, _ = releases["context_png"]
    data, with_background = PascalContext(root), PascalContext60(root)
    # 59_labels.txt: VOC's classes, then the others; three go by the names that they have among the 459.
    names = {
        **{number: "table" if name == "diningtable" else name for number, name in enumerate(VOC.classes) if number},
        **{21: "bag", 22: "bed", 23: "bench", 28: "cloth", 41: "mouse", 42: "curtain", 43: "platform", 44: "sign"},
        **{45: "plate", 46: "road", 52: "bedclothes", 53: "track", 58: "window", 59: "wood"},
    }
    for value, name in names.items():
        assert data.classes[meaning(data, value)] == name
        assert with_background.classes[meaning(with_background, value)] == name
    assert sorted(meaning(data, value) for value in range(1, 60)) == list(range(59))
    for value in (0, *range(60, 256)):
        assert meaning(data, value) == (255 if value in (0, 255) else None)
        assert meaning(with_background, value) == {0: 0, 255: 255}.get(value)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_splits(releases, kind):
    root, _ = releases[kind]
    for split, names in (
        ("train", ["2008_000002"]),
        ("val", ["2008_000003", "2008_000007"]),
        ("trainval", ["2008_000002", "2008_000003", "2008_000007"]),
    ):
        assert [item.name for item in PascalContext(root, split).items] == names
    assert PascalContext.expected_counts["train"] + PascalContext.expected_counts["val"] == 10103


@pytest.mark.parametrize("place", ["pascal-context/trainval", "pascal-context", ""])
def test_labels_txt_gives_the_numbers_by_name(build, meaning, place):
    root = build("context_mat")
    shifted = [f"{number + 3}: {name}" for number, name in zip(sorted(DETAIL), PascalContext.classes, strict=True)]
    shifted[0] = shifted[0].replace("aeroplane", "aero plane")
    (root / place / "labels.txt").write_text("\n".join(shifted))
    data = PascalContext(root)
    assert [meaning(data, number + 3) for number in sorted(DETAIL)] == list(range(59))
    assert meaning(data, 2) == 255


def test_wrong_labels_txt_is_named(build):
    root = build("context_mat")
    (root / "labels.txt").write_text("1: accordion\n2: aeroplane\n")
    with pytest.raises(DataError, match=r"labels\.txt lacks bag, bed, bedclothes"):
        PascalContext(root)
    (root / "labels.txt").write_text("accordion\n")
    with pytest.raises(DataError, match=r"labels\.txt is no list of labels"):
        PascalContext(root)


def test_the_first_kind_of_labels_is_read_and_said(build, caplog):
    root = build("context_mat")
    shutil.copytree(root / "pascal-context" / "trainval", root / "VOC2010" / "SegmentationClassContext")
    caplog.set_level("INFO", "segcontext")
    assert PascalContext(root).items[0].mask.endswith(".mat")
    assert "the labels are those in" in caplog.text
    for mat in (root / "VOC2010" / "SegmentationClassContext").iterdir():
        mat.rename(mat.with_suffix(".png"))
    assert PascalContext(root).items[0].mask == "VOC2010/SegmentationClassContext/2008_000002.png"


def test_root_may_be_each_of_the_three_folders(build):
    root = build("context_png")
    (root / "59_context_labels").rename(root / "VOCdevkit" / "VOC2010" / "59_context_labels")
    for inner in ("", "VOCdevkit", "VOCdevkit/VOC2010"):
        assert PascalContext.recognises(root / inner)
        assert not VOC.recognises(root / inner)
        assert len(PascalContext(root / inner, "val")) == 2


def test_images_without_labels_say_which_kinds_there_are(build):
    root = build("context_png")
    shutil.rmtree(root / "59_context_labels")
    with pytest.raises(DatasetNotFound, match=r"No PASCAL Context labels.*59_context_labels/ and trainval/\*\.mat"):
        PascalContext(root)
    assert not PascalContext.recognises(root)
