import csv
import io
import json
import re
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import multiprocessing, nn
from torchvision import tv_tensors

from segcontext.cli import main
from segcontext.data import Scenes
from segcontext.data.dataset import Dataset, Item
from segcontext.errors import DataError, LabelError, OutputExists, RecipeError
from segcontext.evaluation import ImageScore, Measured, Measures, compare_speed, evaluate
from segcontext.evaluation import scoring as scoring_module
from segcontext.evaluation.scoring import _positions, _spread
from segcontext.inference import Protocol
from segcontext.metrics import (
    BoundaryFScore,
    ConfusionMatrix,
    RankSlice,
    band_confusion_matrix,
    boundary_f_score,
    boundary_iou_counts,
    calibration_counts,
    confidence,
    confusion_matrix,
    entropy,
    reliability,
    scores,
    size_counts,
    size_scores,
)
from segcontext.types import Output, Sample

NAMES = ("red", "green", "blue")
EVERYTHING = Measures(
    boundary=(1, 0.1), boundary_protocol="strict", boundary_iou=2, sizes=(4, 12), band=1, calibration=10
)


class Colours(Dataset):
    """Coloured noise: the labels are the strongest channels, the picture hides some of them."""

    name, classes, palette = "colours", NAMES, ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    splits = ("val",)
    masked = True

    def list_items(self):
        return [Item(f"{index}.png", None, f"part/{index}") for index in range(7)]

    def __getitem__(self, index):
        draw = np.random.default_rng(index)
        # Two sizes, so that not every batch stacks.
        pixels = draw.integers(0, 256, (3, 12, 10 + 2 * (index > 3)), dtype=np.uint8)
        mask = pixels.argmax(0).astype(np.uint8)
        mask[draw.random(mask.shape) < 0.1] = 255
        hidden = draw.random(mask.shape) < 0.1 * index
        pixels[:, hidden] = pixels[:, hidden][::-1]
        image = tv_tensors.Image(torch.from_numpy(pixels))
        return Sample(image, tv_tensors.Mask(torch.from_numpy(mask)) if self.masked else None, self.items[index].name)


class Pointwise(nn.Module):
    classes, num_classes = NAMES, 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.dropout = nn.Dropout()
        self.calls = []

    def forward(self, images):
        assert torch.is_inference_mode_enabled()
        self.calls.append((len(images), torch.is_autocast_enabled("cpu")))
        return Output(self.scale * self.dropout(images), tuple(images.shape[-2:]), True)


@pytest.fixture
def data():
    return Colours(".", "val")


def expected_matrix(dataset):
    matrix = np.zeros((3, 3), dtype=np.int64)
    for image, mask, _ in (dataset[index] for index in range(len(dataset))):
        for guess, truth in zip(image.argmax(0).flatten().tolist(), mask.flatten().tolist(), strict=True):
            if truth != 255:
                matrix[truth, guess] += 1
    return matrix


def test_every_pixel_of_every_image_counts_once(data):
    model = Pointwise()
    found = evaluate(model, data, progress=False, pictures=0)
    assert np.array_equal(found.matrix.numpy(), expected_matrix(data))
    assert found.scores.miou == scores(found.matrix).miou
    assert (found.images, found.dataset, found.split, found.classes) == (7, "colours", "val", NAMES)
    assert found.samples == ()
    assert [size for size, _ in model.calls] == [1] * 7
    assert model.training


@pytest.mark.parametrize("batch", [3, 20])
def test_batches_hold_images_of_one_size_and_change_nothing(data, batch):
    model = Pointwise()
    found = evaluate(model, data, batch=batch, progress=False, pictures=0)
    assert np.array_equal(found.matrix.numpy(), expected_matrix(data))
    assert [size for size, _ in model.calls] == {3: [3, 1, 2, 1], 20: [4, 3]}[batch]


def test_a_limit_spreads_over_the_data(data):
    found = evaluate(Pointwise(), data, limit=3, progress=False)
    assert found.images == 3
    assert {sample.name for sample in found.samples} == {"part/0", "part/2", "part/4"}
    assert evaluate(Pointwise(), data, limit=100, progress=False, pictures=0).images == 7


def test_autocast_is_used_where_asked_for(data):
    model = Pointwise()
    evaluate(model, data, limit=1, pictures=0, progress=False, precision="bf16", device="cpu")
    evaluate(model, data, limit=1, pictures=0, progress=False)
    assert [cast for _, cast in model.calls] == [True, False]


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_faster_copy_is_scored_where_asked_for(data, precision):
    from segcontext import segmenter

    model = segmenter(3, backbone="test_resnet", pretrained=False, reduce_channels=8, aggregation="ema")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"pictures": 2, "progress": False}
    plain = evaluate(model, data, **options)
    fast = evaluate(model, data, speed="folded", precision=precision, **options)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (fast.conditions.speed, fast.conditions.precision) == ("folded", precision)
    assert abs(fast.scores.miou - plain.scores.miou) < 0.05
    compared = compare_speed(model, data, speed="folded", precision=precision)
    assert (compared.images, compared.precision) == (7, precision)
    assert (compared.plain_miou, compared.fast_miou) == (plain.scores.miou, fast.scores.miou)
    assert compared.agreement > 0.9
    assert compared.worst_logit < 0.1 * compared.largest_logit
    assert compared.plain_seconds > 0
    assert f"7 images, network beside its faster copy ({precision})" in str(compared)
    assert not model._forward_hooks


def test_the_protocol_is_followed(data):
    model = Pointwise()
    protocol = Protocol(flip=True)
    found = evaluate(model, data, protocol=protocol, pictures=0, progress=False)
    assert len(model.calls) == 14
    assert found.protocol is protocol
    assert "flip" in found.summary()


def test_samples_run_from_the_worst_to_the_best(data):
    found = evaluate(Pointwise(), data, pictures=4, progress=False)
    values = [sample.miou for sample in found.samples]
    assert values == sorted(values)
    per_image = [
        scores(confusion_matrix(data[index].image.argmax(0), data[index].mask, 3)).miou for index in range(len(data))
    ]
    assert (values[0], values[-1]) == (min(per_image), max(per_image))
    sample = found.samples[0]
    index = int(sample.name.removeprefix("part/"))
    assert np.array_equal(sample.image, data[index].image.permute(1, 2, 0).numpy())
    assert np.array_equal(sample.truth, data[index].mask.numpy())
    assert np.array_equal(sample.prediction, data[index].image.argmax(0).numpy())


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(0, 3, 0), (5, 0, 0), (5, 1, 1), (3, 8, 3), (9, 8, 8), (100, 8, 8)],
)
def test_the_spread_holds_as_many_as_wanted_and_both_ends(count, wanted, expected):
    found = [(((7 * index) % count) / 100, index) for index in range(count)] + [(float("nan"), 1000)]
    chosen = _spread(found, wanted)
    assert len(set(chosen)) == len(chosen) == expected
    values = [((7 * index) % count) / 100 for index in chosen]
    assert values == sorted(values)
    if expected:
        assert values[0] == 0
    if expected > 1:
        assert values[-1] == (count - 1) / 100


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("red", "green"), r"trained on 2 classes \(red, green\), but colours has 3 \(red, green, blue\)"),
        (("red", "green", "cyan"), r"\(red, green, cyan\)"),
        (("green", "red", "blue"), "another order"),
        (tuple(f"class {index}" for index in range(171)), "171 classes .*…"),
    ],
)
def test_other_classes_are_refused(data, classes, words):
    model = Pointwise()
    model.classes, model.num_classes = classes, len(classes)
    with pytest.raises(DataError, match=words):
        evaluate(model, data, progress=False)
    assert model.calls == []


def test_what_was_scored_is_told(data, monkeypatch, tmp_path):
    from segcontext import segmenter

    monkeypatch.chdir(tmp_path)
    small = {"backbone": "test_resnet", "pretrained": False, "reduce_channels": 8}
    model = segmenter(3, aggregation="ema", output_stride=8, **small)
    model.aggregation.evaluation_iterations = 5
    options = {"limit": 1, "pictures": 0, "progress": False}
    found = evaluate(model, data, weights="runs/a/weights/last.safetensors", precision="bf16", **options).as_dict()
    said = {key: found[key] for key in ("data", "weights", "output_stride", "iterations", "precision", "speed")}
    assert said == {
        "data": str(data.root.absolute()),
        "weights": str(tmp_path / "runs/a/weights/last.safetensors"),
        **{"output_stride": 8, "iterations": 5, "precision": "bf16", "speed": "plain"},
    }
    scenes = Scenes(split="val", size=(32, 64), length=1)
    model = segmenter(len(scenes.classes), aggregation="none", **small)
    found = evaluate(model, scenes, **options).as_dict()
    assert (found["data"], found["iterations"]) == ("demo", None)


def test_spelling_and_missing_names_do_not_matter(data):
    model = Pointwise()
    for classes in ((), ("RED", "Green_", " blue")):
        model.classes = classes
        assert evaluate(model, data, limit=1, pictures=0, progress=False).classes == NAMES


def test_data_without_labels_is_refused_and_the_model_left_as_it_was(data):
    data.masked = False
    model = Pointwise()
    with pytest.raises(DataError, match="part/0 has no labels"):
        evaluate(model, data, progress=False)
    assert model.training


def test_wrong_labels_are_refused_by_name(data, monkeypatch):
    monkeypatch.setattr(
        Colours, "__getitem__", lambda *_: Sample(torch.zeros(3, 2, 2).byte(), torch.full((2, 2), 9), "x")
    )
    with pytest.raises(LabelError, match=r"x: The target may hold 0\.\.2 .*, but holds 9"):
        evaluate(Pointwise(), data, progress=False)


@pytest.mark.parametrize(
    "option", [{"batch": 0}, {"limit": 0}, {"workers": -1}, {"pictures": -1}, {"worst": -1}, {"precision": "f8"}]
)
def test_impossible_options_are_refused(data, option):
    with pytest.raises(RecipeError, match=f"{next(iter(option))}={next(iter(option.values()))!r}"):
        evaluate(Pointwise(), data, **option)


def test_everything_is_saved(tmp_path, data):
    screen = io.StringIO()
    found = evaluate(Pointwise(), data, pictures=3, console=Console(file=screen, width=120))
    assert "7/7" in screen.getvalue()
    found.save(tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert stored["miou"] == found.scores.miou
    assert stored["per_class"][1]["iou"] == found.scores.iou[1].item()
    assert sum(row["share"] for row in stored["per_class"]) == pytest.approx(1)
    assert Protocol(**stored["protocol"]) == found.protocol
    assert [stored[key] for key in ("weights", "output_stride", "iterations", "precision")] == [None, None, None, "32"]
    with (tmp_path / "out" / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    assert float(rows[2]["precision"]) == found.scores.precision[2].item()
    with (tmp_path / "out" / "confusion.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0][1:] == [row[0] for row in table[1:]] == list(NAMES)
    assert [[int(cell) for cell in row[1:]] for row in table[1:]] == found.matrix.tolist()
    with Image.open(tmp_path / "out" / "confusion.png") as image:
        assert min(image.size) > 300
    pictures = sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir())
    assert len(pictures) == 4
    assert pictures[0].startswith("01_part_")
    assert pictures[-1] == "overview.png"
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").rglob("*"))


def test_saving_never_replaces_unasked(tmp_path, data):
    found = evaluate(Pointwise(), data, pictures=5, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists, match="not empty"):
        found.save(tmp_path)
    with pytest.raises(OutputExists, match="is a file"):
        found.save(tmp_path / "notes.txt", overwrite=True)
    found.save(tmp_path, overwrite=True)
    (tmp_path / "pictures" / "mine.png").write_text("mine")
    evaluate(Pointwise(), data, pictures=2, progress=False).save(tmp_path, overwrite=True)
    # Pictures of the first evaluation are gone, what is not its own is still there.
    assert len(list((tmp_path / "pictures").iterdir())) == 2 + 1 + 1
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "pictures" / "mine.png").read_text() == "mine"


def test_absent_classes_are_empty_cells_and_null(tmp_path, data, monkeypatch):
    grey = Sample(torch.full((3, 2, 2), 9).byte(), torch.zeros(2, 2).byte(), "grey")
    monkeypatch.setattr(Colours, "__getitem__", lambda *_: grey)
    found = evaluate(Pointwise(), data, limit=1, progress=False)
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["per_class"][2]["iou"] is None
    assert (tmp_path / "out" / "per_class.csv").read_text().splitlines()[3] == "blue,,,,0,0.0"
    assert found.scores.miou == 1


def test_the_table_shows_every_class_and_the_means(data):
    found = evaluate(Pointwise(), data, pictures=0, progress=False)
    screen = io.StringIO()
    Console(file=screen, width=100).print(found.table())
    text = screen.getvalue()
    for word in (*NAMES, "IoU", "precision", "mean", f"{100 * found.scores.miou:.1f} %"):
        assert word in text
    assert f"mIoU {100 * found.scores.miou:.1f} %" in found.summary()
    assert "colours val, 7 images, whole image" in found.summary()


def answers(dataset):
    """Labels, truth and probabilities of every image, as `Pointwise` answers."""
    for sample in (dataset[index] for index in range(len(dataset))):
        probabilities = (4 * sample.image.float() / 255).softmax(0)
        yield sample.image.argmax(0), sample.mask.as_subclass(torch.Tensor), probabilities


def test_everything_else_is_measured_as_its_function_says(data):
    found = evaluate(Pointwise(), data, batch=3, measures=EVERYTHING, pictures=0, progress=False)
    assert np.array_equal(found.matrix.numpy(), expected_matrix(data))
    measured, parts = found.measured, list(answers(data))
    singles = torch.stack([boundary_f_score(*part[:2], 3, [1, 0.1], protocol="strict") for part in parts])
    torch.testing.assert_close(measured.boundary_f, singles.nanmean(0), rtol=1e-14, atol=0)
    both, predicted, true = sum(boundary_iou_counts(*part[:2], 3, width=2) for part in parts).double().T
    assert torch.equal(measured.boundary_iou, both / (predicted + true - both))
    expected = size_scores(sum(size_counts(*part[:2], 3, areas=(4, 12)) for part in parts))
    assert torch.equal(measured.sizes.iou, expected.iou)
    inside, outside = sum(band_confusion_matrix(*part[:2], 3, width=1) for part in parts)
    assert (measured.band.inside.miou, measured.band.outside.miou) == (scores(inside).miou, scores(outside).miou)
    counts = sum(calibration_counts(share, truth, bins=10) for _, truth, share in parts)
    assert measured.calibration.ece == pytest.approx(reliability(counts).ece, rel=1e-6)
    assert measured.calibration.pixels.sum() == found.matrix.sum()
    assert measured.measures is EVERYTHING


def test_nothing_else_is_measured_and_no_probabilities_are_made_unless_asked(data, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("probabilities of all classes at image size were asked for")

    monkeypatch.setattr(scoring_module, "predict_probabilities", refuse)
    found = evaluate(Pointwise(), data, progress=False)
    assert found.measured.as_dict() == {}
    assert len(found.tables()) == 2
    assert found.samples[0].confidence is found.samples[0].entropy is None
    assert len(found.samples[0].views(found.palette)) == 4
    rest = Measures(boundary=(2,), boundary_iou=0.02, sizes=(4,), band=2)
    assert evaluate(Pointwise(), data, measures=rest, limit=2, pictures=1, progress=False).measured.band is not None
    with pytest.raises(AssertionError, match="were asked for"):
        evaluate(Pointwise(), data, measures=Measures(calibration=5), progress=False)


def test_every_image_is_listed_from_the_worst_to_the_best(data, tmp_path):
    found = evaluate(Pointwise(), data, batch=2, pictures=2, worst=3, progress=False)
    expected = []
    for index, (labels, truth, _) in enumerate(answers(data)):
        values = scores(confusion_matrix(labels, truth, 3))
        expected.append(ImageScore(f"part/{index}", values.miou, values.pixel_accuracy, index))
    assert list(found.ranking) == sorted(expected, key=lambda image: image.miou)
    # The three worst, and the best as the other end of two.
    names = [image.name for image in found.ranking]
    assert [sample.name for sample in found.samples] == [*names[:3], names[-1]]
    found.save(tmp_path)
    with (tmp_path / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == names
    assert [float(row["miou"]) for row in rows] == [image.miou for image in found.ranking]
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {row["picture"] for row in rows if row["picture"]} == pictures - {"overview.png"}
    assert [bool(row["picture"]) for row in rows] == [True] * 3 + [False] * 3 + [True]
    stored = json.loads((tmp_path / "scores.json").read_text())["worst_images"]
    assert [image["name"] for image in stored] == names[:5]


def test_images_without_a_score_come_last_and_have_no_picture():
    void = ImageScore("void", float("nan"), float("nan"), 0)
    ranking = [ImageScore("bad", 0.1, 0.2, 2), ImageScore("good", 0.9, 0.9, 1), void]
    assert _positions(ranking, 8, 8) == [2, 1]
    assert _positions(ranking, 0, 1) == [2]


def test_pictures_show_confidence_and_entropy_where_they_are_known(data, tmp_path):
    found = evaluate(Pointwise(), data, measures=Measures(calibration=15), pictures=2, progress=False)
    sample = found.samples[0]
    probabilities = list(answers(data))[int(sample.name.removeprefix("part/"))][2]
    np.testing.assert_allclose(sample.confidence, confidence(probabilities).numpy(), rtol=1e-5)
    np.testing.assert_allclose(sample.entropy, entropy(probabilities, normalised=True).numpy(), rtol=1e-5)
    views = sample.views(found.palette)
    assert [view.shape for view in views] == [sample.image.shape] * 6
    assert all(view.dtype == np.uint8 for view in views)
    # The surest pixel is brighter than the least sure one in one map, and darker in the other.
    surest, least = sample.confidence.argmax(), sample.confidence.argmin()
    brightness = [view.reshape(-1, 3).sum(1, dtype=int) for view in views[4:]]
    assert brightness[0][surest] > brightness[0][least]
    assert brightness[1][surest] < brightness[1][least]
    found.save(tmp_path)
    with Image.open(tmp_path / "pictures" / "overview.png") as image:
        assert image.width > 6 * 12


def test_everything_measured_is_saved_and_stale_files_go(data, tmp_path):
    found = evaluate(Pointwise(), data, measures=EVERYTHING, pictures=1, progress=False)
    found.save(tmp_path)
    own = {"boundary.csv", "sizes.csv", "band.csv", "calibration.csv", "reliability.png"}
    assert own < {path.name for path in tmp_path.iterdir()}
    stored = json.loads((tmp_path / "scores.json").read_text())
    measured = found.measured
    assert stored["boundary_f"]["protocol"] == "strict"
    assert stored["boundary_f"]["slacks"] == [1, 0.1]
    assert stored["boundary_f"]["per_class"] == measured.boundary_f.tolist()
    assert stored["boundary_f"]["mean"] == pytest.approx(measured.boundary_f.mean(1).tolist())
    assert stored["boundary_iou"]["per_class"] == measured.boundary_iou.tolist()
    assert stored["sizes"]["names"] == ["small", "medium", "large"]
    assert stored["sizes"]["objects"] == measured.sizes.objects.tolist()
    assert stored["band"]["inside"]["iou"] == measured.band.inside.iou.tolist()
    assert stored["calibration"]["ece"] == measured.calibration.ece
    tables = {}
    for name in ("boundary", "sizes", "band", "calibration"):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
    assert [row["class"] for row in tables["boundary"]] == list(NAMES)
    assert list(tables["boundary"][0]) == ["class", "F 1 px", "F 10 %", "IoU 2 px"]
    assert float(tables["boundary"][1]["F 10 %"]) == measured.boundary_f[1, 1].item()
    assert float(tables["sizes"][2]["IoU small"]) == measured.sizes.iou[0, 2].item()
    assert float(tables["band"][0]["IoU outside"]) == measured.band.outside.iou[0].item()
    assert [int(row["pixels"]) for row in tables["calibration"]] == measured.calibration.pixels.tolist()
    assert tables["calibration"][0]["accuracy"] == ""
    with Image.open(tmp_path / "reliability.png") as image:
        assert min(image.size) > 300
    evaluate(Pointwise(), data, pictures=1, progress=False).save(tmp_path, overwrite=True)
    assert own.isdisjoint(path.name for path in tmp_path.iterdir())
    assert "boundary_f" not in json.loads((tmp_path / "scores.json").read_text())


def test_the_tables_show_what_was_measured(data):
    found = evaluate(Pointwise(), data, measures=EVERYTHING, pictures=0, progress=False)
    screen = io.StringIO()
    console = Console(file=screen, width=160)
    for table in found.tables():
        console.print(table)
    text = screen.getvalue()
    for word in ("Boundaries (strict protocol)", "F 10 %", "IoU 2 px", "IoU small", "IoU inside", "Worst images"):
        assert word in text
    assert f"{100 * found.measured.boundary_f[0].mean().item():.1f} %" in text
    assert f"Expected calibration error {100 * found.measured.calibration.ece:.1f} %" in text
    assert found.ranking[0].name in text


def test_sizes_other_than_three_are_named_by_their_areas():
    assert Measured(Measures(sizes=(10, 20, 30))).size_names() == (
        "below 10 px",
        "from 10 px",
        "from 20 px",
        "from 30 px",
    )
    assert Measured(Measures()).size_names() == ()


@pytest.mark.parametrize(
    "option",
    [
        {"boundary": (0,)},
        {"boundary": (3,), "boundary_protocol": "both"},
        {"boundary_iou": 0},
        {"sizes": (9, 4)},
        {"band": -1},
        {"calibration": -2},
    ],
)
def test_impossible_measures_are_refused(option):
    with pytest.raises(RecipeError):
        Measures(**option)


def test_measures_take_lists_as_recipes_and_json_bring_them():
    assert hash(Measures(boundary=[3, 0.005], sizes=[4, 9])) == hash(Measures(boundary=(3.0, 0.005), sizes=(4, 9)))
    assert not Measures().any
    assert Measures(band=2).any


def test_the_command_line_measures_and_prints(tiny_run, tmp_path, capsys):
    words = ["evaluate", str(tiny_run), "--out", str(tmp_path / "all"), "--boundary", "3", "[0.005,0.1]", "paper"]
    words += ["--boundary-protocol", "strict", "--boundary-iou", "0.02", "--sizes", "--band", "2", "--calibration"]
    assert main([*words, "--worst", "1", "--pictures", "0"]) == 0
    printed = capsys.readouterr().out
    for word in ("strict protocol", "small", "inside", "Expected calibration error", "Worst images"):
        assert word in printed
    stored = json.loads((tmp_path / "all" / "scores.json").read_text())
    assert stored["boundary_f"]["slacks"] == [3, 0.005, 0.1, 0.00088, 0.001875, 0.00375, 0.005]
    assert (stored["boundary_iou"]["width"], stored["band"]["width"]) == (0.02, 2)
    assert stored["sizes"]["areas"] == [1024, 9216]
    assert len(stored["calibration"]["pixels"]) == 15
    assert len(list((tmp_path / "all" / "pictures").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--boundary", "three"], "--boundary cannot be 'three'"),
        (["--boundary", "-3"], "A slack is a share"),
        (["--boundary_protocol", "strict"], r"give slacks \(--boundary\)"),
        (["--band", "0"], "The width of the band"),
        (["--worst", "-1"], "worst=-1"),
    ],
)
def test_the_command_line_refuses_what_cannot_be_measured(tiny_run, tmp_path, capsys, words, message):
    assert main(["evaluate", str(tiny_run), "--out", str(tmp_path / "none"), *words]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "none").exists()


def evaluate_a_share(rank, port, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    dataset, model = Colours(".", "val"), Pointwise()
    found = evaluate(model, dataset, batch=2, pictures=3, progress=False, measures=EVERYTHING)
    metric, boundary = ConfusionMatrix(3), BoundaryFScore(3, [1, 0.1], protocol="strict")
    for index in RankSlice(dataset, rank=rank, world=2):
        metric.update(dataset[index].image.argmax(0), dataset[index].mask)
        boundary.update(dataset[index].image.argmax(0), dataset[index].mask)
    # One image for two ranks: the other one has nothing to count.
    single = evaluate(model, dataset, limit=1, pictures=0, progress=False, measures=EVERYTHING)
    torch.save(
        {
            "matrix": found.matrix,
            "images": found.images,
            "names": [sample.name for sample in found.samples],
            "ranking": [tuple(image) for image in found.ranking],
            "measured": json.dumps(found.measured.as_dict()),
            "single": json.dumps(single.measured.as_dict()),
            "metric": metric.compute(),
            "boundary": boundary.compute(),
        },
        f"{folder}/{rank}.pt",
    )
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds_to_the_last_bit(tmp_path, data):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Seven images on two ranks: the shares differ, and nothing may be counted twice to even them out.
    multiprocessing.spawn(evaluate_a_share, (port, str(tmp_path)), nprocs=2)
    threads = torch.get_num_threads()
    # PyTorch's softmax may change in its last bit with the number of threads; the counts do not, given the same one.
    torch.set_num_threads(1)
    try:
        alone = evaluate(Pointwise(), data, pictures=3, progress=False, measures=EVERYTHING)
        single = evaluate(Pointwise(), data, limit=1, pictures=0, progress=False, measures=EVERYTHING)
    finally:
        torch.set_num_threads(threads)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(found["matrix"], alone.matrix)
        assert torch.equal(found["metric"], alone.matrix)
        assert torch.equal(found["boundary"], alone.measured.boundary_f)
        assert found["measured"] == json.dumps(alone.measured.as_dict())
        assert found["single"] == json.dumps(single.measured.as_dict())
        assert found["ranking"] == [tuple(image) for image in alone.ranking]
        assert found["images"] == 7
        assert found["names"] == ([sample.name for sample in alone.samples] if rank == 0 else [])
