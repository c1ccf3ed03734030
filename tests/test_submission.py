import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segcontext.data import ADE20K, VOC, Cityscapes, Folder
from segcontext.errors import DataError, OutputExists, RecipeError
from segcontext.inference import Predictor
from segcontext.submission import write_submission
from segcontext.types import Output


class Columns(nn.Module):
    """Calls the pixels of column x class x."""

    def __init__(self, classes):
        super().__init__()
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.seen = 0

    def forward(self, images):
        self.seen += 1
        columns = torch.arange(images.shape[-1]) % self.num_classes
        logits = torch.nn.functional.one_hot(columns, self.num_classes).T[None, :, None].float()
        return Output(logits.expand(len(images), -1, images.shape[-2], -1), tuple(images.shape[-2:]), True)


def picture(path, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, width, 3), np.uint8)).save(path)


def cityscapes(root):
    for city, frame in (("berlin", 19), ("bonn", 19), ("bonn", 20)):
        picture(root / f"leftImg8bit/test/{city}/{city}_000000_{frame:06}_leftImg8bit.png", 19)
    return Cityscapes(root, "test")


def voc(root):
    names = ("2008_000006", "2008_000011")
    for name in names:
        picture(root / f"VOC2012/JPEGImages/{name}.jpg", 21)
    lists = root / "VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("\n".join(names))
    return VOC(root, "test")


def ade20k(root):
    for number in (1, 2):
        picture(root / f"images/testing/ADE_test_{number:08}.jpg", 150)
    return ADE20K(root, "test")


IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


@pytest.mark.parametrize(
    ("make", "values", "files"),
    [
        (
            cityscapes,
            IDS,
            [
                f"{city}_pred_labelIds.png"
                for city in ("berlin_000000_000019", "bonn_000000_000019", "bonn_000000_000020")
            ],
        ),
        (voc, list(range(21)), [f"{VOC_FOLDER}/2008_000006.png", f"{VOC_FOLDER}/2008_000011.png"]),
        (ade20k, list(range(1, 151)), ["ADE_test_00000001.png", "ADE_test_00000002.png"]),
    ],
)
def test_every_server_gets_its_names_values_and_archive(tmp_path, make, values, files):
    data = make(tmp_path / "data")
    out = tmp_path / "a.b"
    done = write_submission(Predictor(Columns(data.classes)), data, out, progress=False)
    assert done.images == len(files)
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert found == files
    for name in files:
        with Image.open(out / name) as mask:
            assert mask.mode == ("P" if make is voc else "L")
            assert np.asarray(mask).tolist() == [values, values]
    if make is voc:
        assert done.archive == tmp_path / "a.b.tar.gz"
        with tarfile.open(done.archive) as archive:
            packed = {member.name.removeprefix("./") for member in archive if member.isfile()}
    else:
        assert done.archive == tmp_path / "a.b.zip"
        with zipfile.ZipFile(done.archive) as archive:
            packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert packed == set(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data", "a.b", done.archive.name])


def test_an_interrupted_submission_goes_on_and_none_is_replaced_unasked(tmp_path):
    data, out = cityscapes(tmp_path / "data"), tmp_path / "sent"
    done = write_submission(Predictor(Columns(data.classes)), data, out, progress=False)
    with pytest.raises(OutputExists, match="--resume"):
        write_submission(Predictor(Columns(data.classes)), data, out, progress=False)
    (out / "bonn_000000_000019_pred_labelIds.png").unlink()
    done.archive.unlink()
    model = Columns(data.classes)
    write_submission(Predictor(model), data, out, resume=True, progress=False)
    assert model.seen == 1
    assert done.archive.is_file()
    write_submission(Predictor(model), data, out, overwrite=True, progress=False)
    assert model.seen == 4
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists, match=r"notes\.txt is no prediction"):
        write_submission(Predictor(model), data, out, overwrite=True, progress=False)


def test_what_a_server_could_not_score_is_refused(tmp_path):
    data = cityscapes(tmp_path / "data")
    for classes, message in (
        (data.classes[:5], r"on 5 classes \(road, .*\), but cityscapes has 19"),
        (data.classes[::-1], "in another order"),
        ([f"class {index}" for index in range(19)], r"19 classes \(class 0, .*name its classes"),
    ):
        with pytest.raises(DataError, match=message):
            write_submission(Predictor(Columns(classes)), data, tmp_path / "out")
    picture(tmp_path / "own/images/a.png", 4)
    (tmp_path / "own/classes.txt").write_text("one\ntwo\n")
    with pytest.raises(RecipeError, match="folder has no test server"):
        write_submission(
            Predictor(Columns(["one", "two"])), Folder(tmp_path / "own", "all", labels=False), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
    model = Columns(name.upper().replace(" ", "_") for name in data.classes)
    assert write_submission(Predictor(model), data, tmp_path / "out", progress=False).images == 3
