"""The papers' tables beside ours, and the command that prints them."""

import csv
import io
import json

import pytest
import torch
from torch import nn

from segcontext.cli import main
from segcontext.costs import paper_table, render
from segcontext.costs.module_rule import by_modules
from segcontext.costs.printed import EMANET, GALD
from segcontext.errors import RecipeError


@pytest.fixture(scope="module")
def emanet():
    return {row["method"]: row for row in paper_table("emanet")}


@pytest.fixture(scope="module")
def gald():
    return {row["method"]: row for row in paper_table("gald")}


def test_emanet_rows_to_the_printed_digits(emanet):
    agrees = {method: row["agrees"] for method, row in emanet.items()}
    assert agrees == {
        "ResNet-101": ["parameters", "multiply_adds", "memory"],
        "DeepLabV3": ["parameters", "multiply_adds", "memory"],
        "DeepLabV3+": [],
        "PSANet": ["parameters", "multiply_adds"],
        "EMANet (256)": ["parameters"],
        "EMANet (512)": ["parameters", "multiply_adds"],
    }


def test_emanet_rows_hold_the_exact_counts(emanet):
    assert emanet["ResNet-101"]["parameters"] == 42_623_936
    assert emanet["ResNet-101"]["convolutions_and_products"] == 189_889_136_320
    assert emanet["ResNet-101"]["multiply_adds"] == 190_577_894_464
    assert emanet["EMANet (512)"]["parameters"] == 9_974_805 + 32_768
    assert emanet["EMANet (256)"]["parameters"] == 4_856_341 + 16_384
    # Table 1 counts 7·C·K·N for the unit; the rest are convolutions.
    pixels, channels, bases = 65 * 65, 512, 64
    products = pixels * (9 * 2048 * channels + 2 * channels**2 + 7 * channels * bases + 21 * channels)
    assert emanet["EMANet (512)"]["convolutions_and_products"] == products
    # PSANet's two products are there, but not in what is counted as the paper counts.
    psanet = emanet["PSANet"]
    assert psanet["convolutions_and_products"] - psanet["multiply_adds"] > 1e9


def test_every_difference_is_explained(emanet, gald):
    for row in (*emanet.values(), *gald.values()):
        printed = [name for name in ("parameters", "multiply_adds", "memory") if row.get(f"paper_{name}") is not None]
        assert set(row["agrees"]) <= set(printed)
        if set(row["agrees"]) != set(printed):
            assert len(row["note"]) > 40
        for name in printed:
            assert row[f"paper_{name}"] > 0


def test_the_notes_numbers_hold(emanet):
    assert "= 22.10 M" in emanet["EMANet (512)"]["note"]
    assert "= 12.27 M" in emanet["EMANet (256)"]["note"]
    # DeepLabV3+ without image pooling.
    branches = 4 * 256
    without = 2048 * 256 * (1 + 27) + branches * 256 + 2 * (branches + 256)
    decoder = 256 * 48 + 304 * 256 * 9 + 256 * 256 * 9 + 2 * (48 + 512) + 257 * 21
    assert round((without + decoder) / 1e6, 1) == 16.3
    full, fine = 65 * 65, 129 * 129
    operations = (2048 * 256 * 28 + branches * 256) * full + (256 * 48 + 560 * 2304 + 256 * 21) * fine
    assert round(operations / 1e9, 1) == 84.9
    assert round(2 * 3 * 256 * fine * 4 / 2**20, 1) == 97.5


def test_gald_rows(gald):
    assert gald["FCN + ASPP + LDv2"]["parameters"] == 2304 * 1024 + 1024
    assert gald["FCN + ASPP + LDv1"]["parameters"] == 3 * 256 * (9 + 1 + 2)
    deep, shallow = gald["FCN (ResNet-101) + ASPP"], gald["FCN + ASPP"]
    # Plain ResNet-50; 3×3 to 512; ASPP's four branches and projection; 3×3 over its output and the deep features.
    head = 2048 * 512 * 9 + 512 * 256 * (1 + 3 * 9) + 4 * 256 * 256 + (256 + 2048) * 512 * 9
    norms = 2 * (512 + 5 * 256 + 512)
    assert shallow["parameters"] == 23_508_032 + head + norms + (512 + 1) * 19
    assert shallow["agrees"] == ["parameters"]
    assert shallow["parameters_printed"] == "47.5M"
    assert deep["parameters"] - shallow["parameters"] == 18_992_128
    assert [row["paper_parameters_printed"] for row in gald.values()] == [None, "47.5M", "+0.4M", "+2.3M", "65.4M"]
    assert deep["multiply_adds"] > 1.3 * shallow["multiply_adds"]
    assert [row.milliseconds for row in GALD] == [60, 65, 70, 82, 120]


def test_an_unknown_table_is_refused():
    with pytest.raises(RecipeError, match="Did you mean 'emanet'"):
        paper_table("emanett")


def test_the_rule_of_layers_counts_as_the_tool_does():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Dropout(0.0))
            self.relu = nn.ReLU()

        def forward(self, x):
            x = self.relu(x)
            return self.relu(self.layers(x)).softmax(1) + 1

    found = by_modules(Block(), (8, 8))
    assert found["layers"].operations == 4 * 64 * (3 + 1) + 2 * 4 * 64 + 4 * 64
    assert found["layers"].mebibytes == pytest.approx(4 * (4 * 64 + 4 * 64 + 4 * 16) / 2**20)
    # It ran twice and counts as it ran last.
    assert found["relu"].operations == 4 * 16
    assert found["relu"].mebibytes == pytest.approx(4 * 4 * 16 / 2**20)


def test_formats_of_rows():
    rows = [{"name": "a", "values": [1, 2], "none": None}, {"name": "bcd", "values": [], "none": None}]
    columns = [("name", lambda row: row["name"]), ("count", lambda row: str(len(row["values"])))]
    assert (
        render(rows, columns, "text", below=["words"]) == "name  count\n-----------\na         2\nbcd       0\n\nwords"
    )
    assert render(rows, columns, "markdown").splitlines()[:3] == ["| name | count |", "|---|---:|", "| a | 2 |"]
    assert json.loads(render(rows, columns, "json")) == rows
    read = list(csv.DictReader(io.StringIO(render(rows, columns, "csv"))))
    assert read == [{"name": "a", "values": "[1, 2]", "none": ""}, {"name": "bcd", "values": "[]", "none": ""}]


@pytest.fixture
def run(capsys):
    def command(*words):
        code = main(["cost", *words])
        return code, capsys.readouterr()

    return command


def test_the_command_counts_a_named_network(run):
    words = ("--model", "emanet", "--backbone", "test_resnet", "--size", "33", "41", "--num-classes", "3")
    code, text = run(*words)
    assert code == 0
    assert "aggregation" in text.out
    assert "33×41 pixels" in text.out
    assert "multiply-add is" in text.out
    code, found = run(*words, "--format", "json")
    rows = json.loads(found.out)
    assert rows[-1]["part"] == "total"
    assert next(row for row in rows if row["part"] == "aggregation")["buffers"] == 64 * 512
    assert run(*words, "--format", "csv")[1].out.startswith("part,parameters,")
    assert run(*words, "--format", "markdown")[1].out.startswith("| part | parameters |")


def test_the_command_counts_recipes_and_runs(run, tiny_recipe, tiny_run):
    code, found = run(str(tiny_recipe), "--format", "json", "--num_classes", "3")
    assert code == 0
    of_recipe = json.loads(found.out)
    code, found = run(str(tiny_run), "--format", "json")
    assert code == 0
    of_run = json.loads(found.out)
    # Both at the recipe's crop.
    for row, other in zip(of_recipe, of_run, strict=True):
        assert {**row, "latency": None} == {**other, "latency": None}
    code, found = run(str(tiny_run), "--size", "32", "--options", "{reduce_channels: 4}")
    assert code == 2
    assert "--options cannot change" in found.err


def test_the_command_measures_latency(run):
    words = ("--model", "fcn", "--backbone", "test_resnet", "--size", "33", "--latency", "--rounds", "1")
    code, found = run(*words, "--device", "cpu", "--format", "json")
    assert code == 0
    assert json.loads(found.out)[-1]["latency"] > 0
    assert "median of 1 rounds" in run(*words, "--device", "cpu")[1].out


def test_a_table_needs_a_round():
    with pytest.raises(RecipeError, match="At least one round"):
        paper_table("gald", timed=True, rounds=0)


def test_the_command_prints_a_table(run, monkeypatch):
    # The numbers are tested above; two rows of small networks are enough for their form.
    small = [EMANET[0], EMANET[-1]]
    monkeypatch.setattr("segcontext.costs.tables.EMANET", small)
    monkeypatch.setattr("segcontext.costs.tables.SIZES", {"emanet": (33, 33), "gald": (33, 33)})
    for row in small:
        monkeypatch.setitem(row.__dict__, "backbone", "resnet18")
    code, found = run("--table", "emanet")
    assert code == 0
    assert "+22.1M" in found.out
    assert "EMANet (512): Parameters with the bases." in found.out
    code, found = run("--table", "emanet", "--format", "json")
    keys = {"method", "parameters", "multiply_adds", "memory", "paper_parameters", "paper_multiply_adds", "note"}
    assert keys <= set(json.loads(found.out)[1])
    code, found = run("--table", "emanet", "--latency", "--rounds", "1", "--device", "cpu", "--format", "json")
    assert json.loads(found.out)[0]["relative_latency"] == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "Say which network"),
        (("recipe.yaml", "--model", "emanet"), "not both"),
        (("--model", "emanett"), "Did you mean 'emanet'"),
        (("--model", "emanet", "--size", "1", "2", "3"), "--size takes"),
        (("--model", "emanet", "--rounds", "3"), "--rounds is for the latency"),
        (("--table", "emanet", "--size", "65"), "leave --size out"),
        (("nowhere.yaml",), "There is no recipe"),
        (("--table", "deeplab"), "expected emanet or gald"),
    ],
)
def test_mistakes_on_the_command_line_are_named(run, words, expected):
    code, found = run(*words)
    assert code == 2
    assert expected in " ".join(found.err.split())


def test_meta_networks_are_no_trouble():
    with torch.device("meta"):
        layers = nn.Sequential(nn.Conv2d(3, 4, 1))
    assert by_modules(layers, (4, 4))["0"].operations == 4 * 16 * 4
