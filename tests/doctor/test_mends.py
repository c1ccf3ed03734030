"""Over many small lists of classes and sets of values, no line that mends something ruins something else."""

import functools
import itertools

import numpy as np
import pytest
from PIL import Image

from segcontext.data import Folder
from segcontext.doctor.copies import find_copies
from segcontext.doctor.examination import Examination, Record
from segcontext.doctor.lenient import LenientFolder
from segcontext.doctor.mask_probe import MaskFacts
from segcontext.doctor.survey import Pair, Reading, Survey
from segcontext.doctor.tally import Tally
from segcontext.doctor.values import diagnose_values

LISTS = (
    "crack",
    "background",
    "0 void\n1 crack",
    "1 crack 9 9 9",
    "255 crack",
    "background\ncrack",
    "a\nb\nvoid",
    "void 1 1 1\na 2 2 2\nb 3 3 3",
    "0 background\n255 thing",
    "1 a\n2 b",
    "0 void\n1 road 128 64 128\n2 car 0 0 142",
    "a\nb\nc",
    "a\nb\n255 void",
    "0 bg 1 1 1\n7 x 2 2 2\n255 y 3 3 3",
    "2 c\n1 b\n0 a",
    "a\nb\nc\nd",
    "0 unlabelled\n1 a\n2 b\n7 ignore",
    "1 a\n2 b\n3 c",
)
VALUES = (0, 1, 2, 3, 4, 7, 254, 255)


def subsets(values, most):
    return [each for size in range(1, most + 1) for each in itertools.combinations(values, size)]


def alike():
    """Data sets whose masks hold the same values."""
    return [(each,) * 4 for each in subsets(VALUES, 5)]


def unlike():
    """Data sets whose masks are of two kinds."""
    kinds = subsets((0, 1, 2, 3, 7, 255), 3)
    rng = np.random.default_rng(0)
    return [
        (kinds[first],) * often + (kinds[second],) * (4 - often)
        for first, second, often in zip(*rng.integers(0, len(kinds), (2, 300)), rng.integers(1, 4, 300), strict=True)
    ]


@pytest.fixture
def opened(tmp_path):
    """Opens a folder with a classes file."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / folder / "0.png")

    @functools.cache
    def call(classes):
        (tmp_path / "classes.txt").write_text(classes)
        return LenientFolder(tmp_path, "all")

    return call


def diagnosed(folder, sets):
    """The findings on values, as if the masks held these."""
    known, count = dict(folder.label_map()), len(folder.classes)
    records, whole = [], Tally(count)
    for number, values in enumerate(sets):
        wrong = sum(value not in known for value in values)
        pair = Pair(str(number), f"images/{number}.png", f"masks/{number}.png", ("all",), 0, number)
        mask = MaskFacts(1, len(values), "L", values=dict.fromkeys(values, 1), distinct=len(values), wrong=wrong)
        records.append(Record(pair, None, mask, "", ""))
        whole.masks += 1
        whole.values.update(mask.values)
        whole.value_masks.update(values)
    survey = Survey(
        root=folder.root,
        name=Folder.name,
        splits=[],
        classes=folder.classes,
        lines=folder.lines,
        readings=[Reading(folder.root, count, known)],
    )
    seen = Examination(survey=survey, records=records, tallies={}, whole=whole, copies=find_copies([], []))
    return list(diagnose_values(seen))


@pytest.mark.parametrize("classes", LISTS)
@pytest.mark.parametrize("kinds", [alike, unlike])
def test_no_mend_leaves_an_error_or_loses_anything(opened, classes, kinds):
    before, mended = opened(classes), 0
    colours = {line.name: line.colour for line in before.lines if line.colour and not line.void}
    void = {line.value for line in before.lines if line.void}
    for sets in kinds():
        findings = diagnosed(before, sets)
        mends = [mend for finding in findings for mend in finding.mend]
        assert len(mends) <= 1
        for mend in mends:
            mended += 1
            after = opened(mend.text)
            case = f"{classes!r} with {sets} became {mend.text!r}"
            assert [each.code for each in diagnosed(after, sets) if each.severity == "error"] == [], case
            assert set(before.classes) <= set(after.classes), case
            assert len(after.classes) > 1, case
            assert colours.items() <= {line.name: line.colour for line in after.lines}.items(), case
            # Void counts on with the classes where all labels are one too high or too low.
            if "off-by-one" not in {finding.code for finding in findings}:
                assert void <= {line.value for line in after.lines}, case
    assert mended
