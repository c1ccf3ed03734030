import csv
import io
import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import multiprocessing, nn
from torchvision import tv_tensors

from segcontext.data.dataset import Dataset, Item
from segcontext.errors import DataError, LabelError, OutputExists, RecipeError
from segcontext.evaluation import evaluate
from segcontext.evaluation.scoring import _spread
from segcontext.inference import Protocol
from segcontext.metrics import ConfusionMatrix, RankSlice, confusion_matrix, scores
from segcontext.types import Output, Sample

NAMES = ("red", "green", "blue")


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


@pytest.mark.parametrize("option", [{"batch": 0}, {"limit": 0}, {"workers": -1}, {"pictures": -1}, {"precision": "f8"}])
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


def evaluate_a_share(rank, port, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    dataset, model = Colours(".", "val"), Pointwise()
    found = evaluate(model, dataset, batch=2, pictures=3, progress=False)
    metric = ConfusionMatrix(3)
    for index in RankSlice(dataset, rank=rank, world=2):
        metric.update(dataset[index].image.argmax(0), dataset[index].mask)
    names = [sample.name for sample in found.samples]
    torch.save((found.matrix, found.images, names, metric.compute()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path, data):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Seven images on two ranks: the shares differ, and nothing may be counted twice to even them out.
    multiprocessing.spawn(evaluate_a_share, (port, str(tmp_path)), nprocs=2)
    alone = evaluate(Pointwise(), data, pictures=3, progress=False)
    for rank in range(2):
        matrix, images, names, metric = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(matrix, alone.matrix)
        assert torch.equal(metric, alone.matrix)
        assert images == 7
        assert names == ([sample.name for sample in alone.samples] if rank == 0 else [])
