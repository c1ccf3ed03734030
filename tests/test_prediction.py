import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from torch import nn

from segcontext.errors import DataError, OutputExists, SampleError
from segcontext.inference import Predictor
from segcontext.prediction import find_images, predict_files
from segcontext.types import Output

RED, GREEN = (220, 20, 20), (20, 220, 20)


class Pointwise(nn.Module):
    classes = ("red", "green", "blue")
    palette = (RED, GREEN, (20, 20, 220))

    def forward(self, images):
        return Output(8 * images, tuple(images.shape[-2:]), True)


@pytest.fixture
def predictor():
    return Predictor(Pointwise())


def draw(path, colour=RED, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names(inputs, **options):
    return [file.name for file in find_images(inputs, **options)]


def written(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_keeps_its_shape_and_every_picture_its_size(tmp_path, predictor):
    draw(tmp_path / "in" / "a.jpg", RED, (5, 7))
    draw(tmp_path / "in" / "day" / "b.1.PNG", GREEN, (9, 2))
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    draw(tmp_path / "in" / ".hidden" / "c.png")
    results = predict_files(predictor, tmp_path / "in", tmp_path / "out", probabilities=True, progress=False)
    assert written(tmp_path / "out") == [
        "masks/a.png",
        "masks/day/b.1.png",
        "overlays/a.jpg",
        "overlays/day/b.1.jpg",
        "probabilities/a.npz",
        "probabilities/day/b.1.npz",
    ]
    first, second = results
    assert (first.source, first.error) == (tmp_path / "in" / "a.jpg", None)
    assert read(first.mask).shape == (7, 5)
    assert (read(second.mask) == 1).all()
    assert read(second.overlay).shape == (2, 9, 3)
    with Image.open(second.mask) as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((0, 0)) == GREEN
    with np.load(second.probabilities) as stored:
        assert stored["probabilities"].dtype == np.float16
        assert stored["probabilities"].shape == (3, 2, 9)
        assert stored["classes"].tolist() == ["red", "green", "blue"]


def test_overlays_and_probabilities_are_written_as_asked(tmp_path, predictor):
    (result,) = predict_files(predictor, draw(tmp_path / "a.png"), tmp_path / "out", overlay=False, progress=False)
    assert written(tmp_path / "out") == ["masks/a.png"]
    assert result.overlay is None
    assert result.probabilities is None


def test_probabilities_are_made_only_where_asked(tmp_path, predictor, monkeypatch):
    masks = []
    for probabilities in (True, False):
        out = tmp_path / str(probabilities)
        with monkeypatch.context() as patch:
            if not probabilities:
                patch.setattr(Predictor, "__call__", lambda *_: pytest.fail("probabilities were made"))
            (result,) = predict_files(
                predictor, draw(tmp_path / "a.png", GREEN), out, probabilities=probabilities, progress=False
            )
        masks.append(read(result.mask))
    assert np.array_equal(*masks)


def test_files_folders_and_globs_are_found_in_order(tmp_path, monkeypatch):
    for name in ("b.png", "a.jpg", "deep/er/c.png", "deep/d.jpg"):
        draw(tmp_path / name)
    assert names(tmp_path) == ["a", "b", "deep/d", "deep/er/c"]
    assert names([tmp_path / "b.png", tmp_path]) == ["b", "a", "deep/d", "deep/er/c"]
    assert names(f"{tmp_path}/*.png") == ["b"]
    assert names(f"{tmp_path}/**/*.png") == ["b", "deep/er/c"]
    assert names(f"{tmp_path}/d*/[d-e]*") == ["deep/d"]
    assert names(tmp_path, exclude=tmp_path / "deep") == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    assert names("*.jpg") == ["a"]
    assert names(["deep", "deep/d.jpg"]) == ["d", "er/c"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    draw(tmp_path / "a[1].png")
    assert names(tmp_path / "a[1].png") == ["a[1]"]


def test_no_two_pictures_share_a_name(tmp_path, predictor):
    paths = [
        draw(tmp_path / name, colour, size)
        for name, colour, size in (
            ("a.png", RED, (1, 1)),
            ("a.bmp", GREEN, (2, 1)),
            ("a.png.bmp", RED, (3, 1)),
            ("other/a.png", GREEN, (4, 1)),
            ("A.webp", RED, (5, 1)),
        )
    ]
    results = predict_files(predictor, paths, tmp_path / "out", progress=False)
    masks = [result.mask.relative_to(tmp_path / "out" / "masks").as_posix() for result in results]
    assert masks == ["a.png.png", "a.bmp.png", "a.png-2.png", "a.png-3.png", "A.webp.png"]
    assert [read(result.mask).shape[1] for result in results] == [1, 2, 3, 4, 5]


def test_outputs_in_the_input_folder_are_no_inputs(tmp_path, predictor):
    draw(tmp_path / "a.png")
    for _ in range(2):
        results = predict_files(predictor, tmp_path, tmp_path / "out", overwrite=True, progress=False)
        assert [result.source.name for result in results] == ["a.png"]


def test_nothing_is_overwritten_unless_asked(tmp_path, predictor):
    sources = [draw(tmp_path / "in" / f"{name}.png") for name in "abcd"]
    predict_files(predictor, sources[1:], tmp_path / "out", progress=False)
    mask = tmp_path / "out" / "masks" / "b.png"
    mask.write_text("mine")
    with pytest.raises(OutputExists, match=r"6 outputs are already there: .*b\.png.*--overwrite"):
        predict_files(predictor, sources, tmp_path / "out", progress=False)
    assert mask.read_text() == "mine"
    assert not (tmp_path / "out" / "masks" / "a.png").exists()
    predict_files(predictor, sources, tmp_path / "out", overwrite=True, progress=False)
    assert read(mask).shape == (3, 4)


def test_an_input_is_never_overwritten(tmp_path, predictor):
    source = draw(tmp_path / "masks" / "a.png")
    before = source.read_bytes()
    with pytest.raises(OutputExists, match="is an input"):
        predict_files(predictor, source, tmp_path, overwrite=True, progress=False)
    assert source.read_bytes() == before


def test_the_output_folder_must_not_be_a_file(tmp_path, predictor):
    draw(tmp_path / "a.png")
    with pytest.raises(OutputExists, match="is a file"):
        predict_files(predictor, tmp_path / "a.png", tmp_path / "a.png", progress=False)


def test_a_bad_picture_does_not_stop_the_others(tmp_path, predictor):
    draw(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:40])
    draw(tmp_path / "in" / "c.png")
    screen = io.StringIO()
    results = predict_files(predictor, tmp_path / "in", tmp_path / "out", console=Console(file=screen, width=100))
    assert [result.error is None for result in results] == [True, False, True]
    assert "b.png" in str(results[1].error)
    assert results[1].mask is None
    assert written(tmp_path / "out") == ["masks/a.png", "masks/c.png", "overlays/a.jpg", "overlays/c.jpg"]
    assert "3/3" in screen.getvalue()
    assert "1 unreadable" in screen.getvalue()


def test_nothing_but_bad_pictures_is_an_error(tmp_path, predictor):
    for name in "ab":
        (tmp_path / f"{name}.png").write_text("no picture")
    with pytest.raises(SampleError, match=r"None of the 2 images could be read\. The first: .*a\.png"):
        predict_files(predictor, tmp_path, tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("", "hold no image to predict; looked for .png, .jpg"),
        ("nowhere", "nowhere does not exist"),
        ("*.tiff", r"matches no image; looked for '\*.tiff'"),
        ("no/*.png", "which is no folder"),
    ],
)
def test_inputs_that_match_nothing_say_what_was_looked_for(tmp_path, entry, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=words):
        find_images(tmp_path / "empty" / entry)
    with pytest.raises(DataError, match=words):
        find_images([draw(tmp_path / "a.png"), tmp_path / "empty" / entry])


def test_no_inputs_at_all_are_refused():
    with pytest.raises(DataError, match="at least one"):
        find_images([])


def test_an_interrupted_picture_leaves_no_mask(tmp_path, predictor, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    draw_free = tmp_path / "a.ppm"
    draw_free.write_bytes(b"P6 1 1 255 abc")
    with pytest.raises(OSError, match="disk full"):
        predict_files(predictor, draw_free, tmp_path / "out", progress=False)
    assert written(tmp_path / "out") == []
