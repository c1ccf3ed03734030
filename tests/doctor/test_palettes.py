"""Palette masks whose indices and colours contradict each other."""

import numpy as np
import pytest
from PIL import Image
from tests.doctor.trees import labels, picture

from segcontext.data import Folder
from segcontext.doctor import examine
from segcontext.errors import LabelError

COLOURS = ((128, 64, 128), (70, 130, 180), (0, 0, 142))
COLOURED = "".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in zip("abc", COLOURS, strict=True))


def indexed(seed, order=(0, 1, 2), colours=COLOURS):
    """A palette mask that shows the classes in their colours, with the classes' indices in this order."""
    table = np.argsort(order).astype(np.uint8)
    mask = Image.fromarray(table[np.asarray(labels(seed))], "P")
    mask.putpalette([channel for index in order for channel in colours[index]])
    return mask


@pytest.fixture
def palettes(tree):
    """Writes palette masks of these orders or colours."""

    def call(classes, *kinds):
        tree.classes(classes)
        for number, kind in enumerate(kinds):
            split = "val" if number == len(kinds) - 1 else "train"
            tree.add(f"{split}/{number}", number, mask=indexed(number, **kind))
        return tree

    return call


RIGHT, MOVED = {}, {"order": (1, 0, 2)}
OTHER = {"colours": ((1, 1, 1), (2, 2, 2), (3, 3, 3))}


@pytest.mark.parametrize("classes", ["a\nb\nc", COLOURED])
def test_palettes_that_agree_are_no_finding(palettes, look, classes):
    assert look(palettes(classes, RIGHT, RIGHT, RIGHT))[1] == {}


def test_a_class_s_colour_at_the_index_of_another_is_an_error(palettes, look):
    tree = palettes(COLOURED, RIGHT, RIGHT, MOVED)
    diagnosis, found = look(tree)
    assert set(found) == {"palette-colours"}
    assert not diagnosis.healthy
    assert found["palette-colours"].count == 1
    assert "masks/val/2.png: 0 has the colour (70, 130, 180) of 'b', which is 1" in str(
        found["palette-colours"].examples[0]
    )
    assert "segcontext convert" in found["palette-colours"].cure
    # Reading the data refuses the same mask.
    Folder(tree.root, "train")[1]
    with pytest.raises(LabelError, match=r"2\.png: its palette"):
        Folder(tree.root, "val")[0]


def test_where_all_palettes_are_wrong_nothing_is_said_of_the_values(palettes, look):
    diagnosis, found = look(palettes("0 void 9 9 9\n1 a 128 64 128\n2 b 70 130 180\n3 c 0 0 142", MOVED, MOVED))
    assert found["palette-colours"].count == 2
    assert "outside-classes" not in found
    assert "classes.txt" not in diagnosis.mend()


def test_other_colours_than_those_of_the_classes_say_nothing(palettes, look):
    assert look(palettes(COLOURED, OTHER, OTHER, OTHER))[1] == {}


def test_colours_whose_index_changes_from_file_to_file_are_an_error(palettes, look):
    diagnosis, found = look(palettes("a\nb\nc", RIGHT, RIGHT, MOVED))
    assert set(found) == {"palette-order"}
    assert not diagnosis.healthy
    assert [example.mask for example in found["palette-order"].examples] == ["masks/val/2.png"]


def test_other_colours_from_file_to_file_are_a_warning(palettes, look):
    diagnosis, found = look(palettes("a\nb\nc", RIGHT, RIGHT, OTHER))
    assert set(found) == {"palettes-differ"}
    assert diagnosis.healthy


def test_data_whose_palette_colours_count_are_read_by_them(camvid_stills):
    diagnosis = examine(camvid_stills, progress=False, workers=0)
    assert diagnosis.seen.survey.name == "camvid"
    assert diagnosis.seen.whole.presence[:2].tolist() == [2, 2]
    assert not {"palette-colours", "palette-order", "strange-colour"} & {each.code for each in diagnosis.findings}


@pytest.fixture
def camvid_stills(tmp_path):
    """Two frames of CamVid's Cambridge release whose colours are stored as palettes of different order."""
    sky, building = (128, 128, 128), (128, 0, 0)
    for number, (name, colours) in enumerate(
        {"0001TP_006690": (sky, building), "0016E5_07959": (building, sky)}.items()
    ):
        for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
            (tmp_path / folder).mkdir(exist_ok=True)
        picture(number).save(tmp_path / f"701_StillsRaw_full/{name}.png")
        mask = Image.fromarray(np.asarray(labels(number, values=(0, 1))), "P")
        mask.putpalette([channel for colour in colours for channel in colour])
        mask.save(tmp_path / f"LabeledApproved_full/{name}_L.png")
    return tmp_path
