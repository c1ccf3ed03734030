"""The papers' recipes: what they say is what the papers print, and each of them trains."""

import dataclasses
import functools
import importlib.util
import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from segcontext import Protocol, Recipe, build, load_model
from segcontext.checkpoint import read_state
from segcontext.cli import _parser, main
from segcontext.data import DATASETS
from segcontext.training import train

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "recipes").glob("*/*.yaml"))
NAMES = [f"{path.parent.name}/{path.stem}" for path in FILES]
every_recipe = pytest.mark.parametrize("name", NAMES)


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


index = module(ROOT / "docs" / "_extensions" / "recipe_index.py")
trees = module(ROOT / "tests" / "data" / "conftest.py")


def file(name):
    return ROOT / "recipes" / f"{name}.yaml"


def header(name):
    return index.header(file(name))


def keys(name):
    return index.keys(file(name))


parser = functools.cache(_parser)


# What the papers print. `None` stands for what they draw. The rows that share a recipe share its score.

LDV2 = {"3×3, r=3": "76.2", "5×5, r=3": "77.2", "5×5, r=6": "77.5", "7×7, r=6": "78.9"}
ASPP_LDV2 = {"3×3, r=3": "79.9", "3×3, r=6": "79.8", "5×5, r=3": "80.2", "5×5, r=6": "80.8", "7×7, r=6": "80.3"}
PRINTED = {
    "EMANet": {
        "Table 1": {"EMANet (256)": "79.73 80.94", "EMANet (512)": "80.05 81.32"},
        "Table 2": {"EMANet ResNet-101": "87.7", "EMANet ResNet-152": "88.2"},
        "Table 3": {"EMANet ResNet-50": "50.5", "EMANet ResNet-101": "53.1"},
        "Table 4": {"EMANet ResNet-101": "39.9"},
        "§6.2.2": {"A² block": "77.41", "Non-local": "77.78", "EMANet with T = 1": "77.34"},
        "Fig. 3 left": dict.fromkeys(("moving average", "back-propagation", "no updating")),
        "Fig. 3 right": dict.fromkeys(("L2Norm", "LayerNorm", "no normalisation")),
        "Fig. 4": dict.fromkeys(f"T_train = {number}" for number in range(1, 9)),
    },
    "GALD": {
        "Table I(a)": {"FCN (Baseline)": "73.7", "+ASPP": "77.2", "+NL": "78.0", "+PSP": "76.2", "+CGNL": "78.2"},
        "Table I(b)": {
            **{"FCN (Baseline)": "73.7", "+LDv1": "77.5", "+PSP + LDv1": "78.9", "+ASPP + LDv1": "79.5"},
            **{"+NL + LDv1": "79.2", "+CGNL + LDv1": "79.6"},
        },
        "Table I(c)": {"FCN (Baseline)": "73.7", "+Parallel": "77.5", "+LDGA": "78.1", "+GALD": "79.6"},
        "Table I(d)": {
            **{"FCN (Baseline)": "73.7", "+LDv2": "78.9", "+PSP + LDv2": "80.2", "+ASPP + LDv2": "80.8"},
            **{"+NL + LDv2": "79.9", "+CGNL + LDv2": "80.1"},
        },
        "Table II(a)": {
            **{"FCN (Baseline)": "73.7", "FCN + CGNL": "78.2", "+CGNL+LD (depth-wise convolution)": "79.6"},
            **{"+CGNL+LD (bilinear interpolation)": "77.6", "+CGNL+LD (average pooling)": "76.5"},
        },
        "Table II(b)": {
            **{"FCN (Baseline)": "73.7", "FCN + ASPP (Baseline)": "77.2"},
            **{f"+LDv2 (k={kernel})": score for kernel, score in LDV2.items()},
            **{f"+ASPP+LDv2 (k={kernel})": score for kernel, score in ASPP_LDV2.items()},
        },
        "Table II(c)": {"Key & Query (baseline)": "80.8", "Key": "80.1", "Query": "79.8"},
        "Table III": {
            **{"baseline (ResNet-50)": "80.8", "ResNet101": "81.5", "ResNet101 and MG": "81.8"},
            **{"ResNet101, MG and MS": "83.0"},
        },
        "Table IV": {
            **{"FCN (Baseline)": "73.7", "FCN with GA (ASPP)": "77.2", "FCN with GA (ASPP) and LDv1": "79.5"},
            **{"FCN with GA (ASPP) and LDv2": "80.8", "FCN (ResNet101) with GA (ASPP)": "79.3"},
        },
        "Table VI": {"Ours (ResNet101)-GALDv1": "81.8", "Ours (ResNet101)-GALDv2": "83.2"},
        "Table VII": {"Ours (ResNet101)-GALDv1": "82.8 82.9", "Ours (ResNet101)-GALDv2": "83.5"},
        "Table VIII": {"Ours (GALDv1)": "53.5", "Ours (GALDv2)": "55.2 55.3"},
        "Table IX": {
            **{"CGNL only": "43.65 80.13", "Ours (GALDv1)": "44.95 81.33"},
            **{"ASPP only": "43.85 81.21", "Ours (GALDv2)": "46.38 82.22"},
        },
        "Table X": {
            **{"Ours (GALDV1), ImageNet": "74.9", "Ours (GALDV2), ImageNet": "76.5"},
            **{"Ours (GALDV1), Cityscapes": "80.3", "Ours (GALDV2), Cityscapes": "81.6"},
        },
        "Table XI": {"Ours (GALDv1)": "38.5", "Ours (GALDv2)": "40.1"},
    },
}
# What a row is trained with, by the sections on implementation and results.
SETTINGS = {
    "emanet/*": {"crop": 513, "power": 0.9, "momentum": 0.9, "weight_decay": 1e-4},
    "emanet/table1_*": {"dataset": "voc", "train_split": "trainaug", "batch": 16, "lr": 0.009, "steps": 30_000},
    "emanet/table[12]_*": {"output_stride": 8},
    "emanet/table2_*_stage1": {"dataset": "coco_voc", "batch": 16, "lr": 0.009, "steps": 150_000},
    "emanet/table2_*_stage2": {"train_split": "trainaug", "batch": 16, "lr": 0.001, "steps": 30_000},
    "emanet/table2_*_r1?[12]": {"train_split": "trainval", "batch": 16, "lr": 0.0001, "steps": 30_000},
    "emanet/table3_*": {"dataset": "pascal_context_59", "batch": 16, "steps": 15_000, "output_stride": 16},
    "emanet/table4_*": {"dataset": "coco_stuff", "batch": 16, "steps": 30_000, "output_stride": 8},
    "emanet/[fs]*": {"dataset": "voc", "batch": 12, "lr": 0.009, "steps": 30_000, "backbone": "resnet50s"},
    "emanet/[fs]*_r50": {"output_stride": 16},
    "gald/*": {"output_stride": 8, "power": 0.9, "momentum": 0.9, "weight_decay": 5e-4, "loss": "ohem"},
    "gald/table[1-4][a-d_]*": {"dataset": "cityscapes", "batch": 8, "lr": 0.01, "steps": 50_000, "crop": 832},
    "gald/table6_*": {"train_split": "trainval", "batch": 8, "lr": 0.01, "epochs": 300, "crop": 832},
    "gald/table7_*_stage2": {"train_split": "coarse", "batch": 16, "lr": 0.001, "epochs": 40, "crop": 832},
    "gald/table7_v?": {"train_split": "trainval", "batch": 16, "lr": 0.001, "epochs": 20, "crop": 832},
    "gald/table7_*": {"freeze_bn": True},
    "gald/table8_*": {"dataset": "pascal_context_59", "crop": 532, "batch": 16, "lr": 0.001, "epochs": 180},
    "gald/table9_*": {"dataset": "ade20k", "crop": 512, "batch": 16, "lr": 0.01, "epochs": 240},
    "gald/table10_*": {"crop": 640, "batch": 16},
    "gald/table10_*_imagenet": {"dataset": "camvid", "lr": 0.01, "epochs": 180},
    "gald/table10_*_stage1": {"dataset": "cityscapes", "lr": 0.01, "epochs": 180},
    "gald/table10_*_cityscapes": {"dataset": "camvid", "lr": 0.001, "epochs": 90, "init_classifier": False},
    "gald/table11_*": {"dataset": "coco_stuff", "crop": 532, "batch": 16, "lr": 0.001, "epochs": 240},
}
WORDS = {
    "aggregation": {
        **{"ASPP": "aspp", "PSP": "psp", "NL": "non_local", "Non-local": "non_local", "CGNL": "cgnl", "A²": "a2"},
        **{"EMANet": "ema", "T_train": "ema"},
    },
    "distribution": {"LDv1": "mask", "GALDv1": "mask", "GALDV1": "mask", "LDv2": "affinity", "GALDv2": "affinity"},
    "backbone": {"ResNet-50": "resnet50s", "ResNet101": "resnet101s", "ResNet-101": "resnet101s"},
}
# Keys that say where and how a run is executed, or that only some runs have.
NOT_NEEDED = {
    *("data_root", "weights", "after", "init", "init_classifier", "channels_last", "compile", "devices", "accelerator"),
    *("val_every", "val_limit", "checkpoint_every", "cache", "cache_size"),
}
ONLY_WITH = {"ohem_threshold": "ohem", "ohem_min_kept": "ohem", "ohem_scope": "ohem"}


def test_each_row_that_the_authors_trained_has_one_recipe_and_its_printed_score():
    rows = index.rows()
    listed = {(paper, place, row) for paper, places in PRINTED.items() for place in places for row in places[place]}
    assert {row[:3] for row in rows} == listed
    assert len(rows) == len(listed)
    for paper, place, row, path in rows:
        expected, printed = index.header(path)["Expected"][0], PRINTED[paper][place][row]
        if printed is None:
            assert "drawn" in expected or row == "T_train = 1"
        else:
            assert re.findall(r"\d+\.\d+", expected) == printed.split(), (paper, place, row)


@every_recipe
def test_a_recipe_has_every_key_and_no_other(name):
    values = keys(name)
    recipe = Recipe.load(file(name))
    wanted = {field.name for field in dataclasses.fields(Recipe)} - NOT_NEEDED
    wanted -= {key for key, loss in ONLY_WITH.items() if recipe.loss != loss}
    if not recipe.model_options["auxiliary"]:
        wanted.remove("auxiliary_weight")
    assert wanted - set(values) == set()
    assert recipe.model == "segmenter", "named networks have settings of their own that the file would not show"
    assert recipe.test_protocol["output_stride"] == 8
    Protocol(
        **{key: value for key, value in recipe.test_protocol.items() if key not in ("output_stride", "iterations")}
    )
    assert ("iterations" in recipe.test_protocol) == (recipe.aggregation == "ema")
    (dataset,) = [kind for kind in DATASETS if kind.name == recipe.dataset]
    assert {recipe.train_split, recipe.val_split} <= set(dataset.splits)
    assert recipe.after is None or (Path(recipe.after).is_file() and not recipe.pretrained)


@every_recipe
def test_a_header_is_complete(name):
    fields = header(name)
    assert list(fields) == [field for field in index.FIELDS if field in fields]
    assert {"Paper", "Expected", "Command", "Test", "Note"} <= set(fields)
    assert len(fields["Expected"]) == len(fields["Command"]) == 1
    assert re.search(r"\((as printed in the paper; )?not run here\)$", fields["Expected"][0])
    assert ("as printed" in fields["Expected"][0]) == ("mIoU" in fields["Expected"][0])
    run = f"runs/{name}"
    command = f"segcontext train --config recipes/{name}.yaml --data_root DATASETS --out {run}"
    assert fields["Command"] == [command]
    for line in (command, *fields["Test"]):
        program, *words = shlex.split(line)
        assert program == "segcontext"
        parser().parse_args(words, defaults=False, _skip_validation=False)
        assert run in words
    stages = [paper for paper in fields["Paper"] if ": stage " in paper]
    assert stages == fields["Paper"] or not stages


@every_recipe
def test_settings_are_those_of_the_papers(name):
    matching = [pattern for pattern in SETTINGS if fnmatch(name, pattern)]
    assert len(matching) >= 2, "no settings are listed for it"
    for pattern in matching:
        assert {key: keys(name)[key] for key in SETTINGS[pattern]} == SETTINGS[pattern], pattern


@every_recipe
def test_what_a_row_says_is_what_its_keys_say(name):
    values = keys(name)
    for paper in header(name)["Paper"]:
        row = paper.split(", ", 2)[2]
        for key, words in WORDS.items():
            for word, value in words.items():
                if re.search(rf"(?<![\w-]){re.escape(word)}(?!\w)", row) and word + " and" not in row:
                    assert values[key] == value or (key, word) == ("aggregation", "EMANet"), row
        window = re.search(r"k=(\d)×\1, r=(\d)", row)
        if window:
            options = values["distribution_options"]
            assert [options["kernel_size"], options["dilation"]] == [int(number) for number in window.groups()]
        iterations = re.search(r"\bT(?:_train)? = (\d)", row)
        if iterations:
            assert values["aggregation_options"]["iterations"] == int(iterations[1])
        width = re.fullmatch(r"EMANet \((\d+)\)", row)
        if width:
            assert values["model_options"]["reduce_channels"] == int(width[1])
        if "GALD, Table I" in paper and "Table I" in paper.split(", ")[1] and name.startswith("gald/table1"):
            assert values["model_options"]["multi_grid"] is None


def test_crops_of_cityscapes_are_the_printed_ones_and_the_header_says_what_the_code_has():
    found = [name for name in NAMES if keys(name)["dataset"] == "cityscapes" and "table10" not in name]
    assert len(found) > 30
    for name in found:
        (note,) = (note for note in header(name)["Note"] if "769" in note)
        assert note.startswith(f"crop {keys(name)['crop']} as printed")


def test_stages_are_chains_that_end_in_a_row():
    chains = {
        name: [f"{path.parent.name}/{path.stem}" for path in index.chain(file(name))] for name in NAMES if rows_of(name)
    }
    long = {name: len(chain) for name, chain in chains.items() if len(chain) > 1}
    assert long == {
        **{f"emanet/table2_emanet_r{layers}": 3 for layers in (101, 152)},
        **{f"gald/table7_{version}": 3 for version in ("v1", "v2")},
        **{f"gald/table10_{version}_cityscapes": 2 for version in ("v1", "v2")},
    }
    assert {name for chain in chains.values() for name in chain} == set(NAMES)
    network = ("backbone", "aggregation", "aggregation_options", "distribution", "distribution_options")
    for name in long:
        for key in (*network, "arrangement", "model_options"):
            assert len({json.dumps(keys(stage)[key]) for stage in chains[name]}) == 1, (name, key)


def rows_of(name):
    return [paper for paper in header(name)["Paper"] if ": stage " not in paper]


def test_the_index_page_is_up_to_date():
    written = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert written == index.page(), "run: python docs/_extensions/recipe_index.py"
    assert (
        "recipes.md" in yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8").split("markdown_extensions")[0])["nav"]
    )


# Networks at their real size


def parameters(part):
    return sum(each.numel() for each in part.parameters())


@functools.cache
def real(name, classes):
    with torch.device("meta"):
        return build("segmenter", classes, {**Recipe.load(file(name)).network(), "pretrained": False})


@pytest.mark.parametrize(
    ("name", "beyond", "bases"),
    [("emanet/table1_emanet512_r101", 9_974_805, 32_768), ("emanet/table1_emanet256_r101", 4_856_341, 16_384)],
)
def test_networks_of_table_1_have_the_parameters_it_counts(name, beyond, bases):
    network = real(name, 21)
    assert parameters(network.backbone) == 42_623_936
    assert parameters(network) - parameters(network.backbone) == beyond
    assert network.aggregation.bases.numel() == bases


@pytest.mark.parametrize(
    ("without", "with_it", "more"),
    [
        ("gald/table1a_cgnl", "gald/table1b_cgnl_v1", 18_432),
        ("gald/table1a_aspp", "gald/table1d_aspp_v2", 2304 * 1024 + 1024 + (512 - 256) * 512 * 9),
    ],
)
def test_a_distribution_is_all_that_sets_two_rows_apart(without, with_it, more):
    """LDv2's 512 channels also widen the fusing convolution, which ASPP alone gives 256."""
    assert parameters(real(with_it, 19)) - parameters(real(without, 19)) == more


@pytest.mark.parametrize(
    ("name", "classes", "dilations", "features"),
    [
        ("emanet/table3_emanet_r50", 59, [1, 4, 8], 33),
        ("gald/table1c_parallel", 19, [4, 4, 4], 105),
        ("gald/table6_v2", 19, [4, 8, 16], 105),
    ],
)
def test_networks_answer_at_the_size_of_their_crops(name, classes, dilations, features):
    """With shapes alone, as on PyTorch's meta device, which knows no autocast.

    GALD's pooling rounds up: crops of 832 become 416, 209 and 105, as its code's own tiles of 832 do.
    """
    recipe = Recipe.load(file(name))
    height, width = recipe.crop_size
    with FakeTensorMode(), torch.no_grad():
        network = build("segmenter", classes, {**recipe.network(), "pretrained": False}).eval()
        output = network(torch.empty(1, 3, height, width))
    assert [block.conv2.dilation[0] for block in network.backbone.net.layer4] == dilations
    assert output.logits.shape == (1, classes, height, width)
    assert output.features_logits.shape[-2:] == (features, features)


# Training, on trees of a few pixels with networks of a few channels

LESS = {
    **{"num_bases": 4, "out_channels": 16, "channels": 16, "key_channels": 4, "value_channels": 16, "maps": 4},
    **{"reduce_channels": 16, "project_channels": 16, "fuse_channels": 16, "auxiliary_channels": 16},
}
BACKBONE = {"layers": [1, 1, 1, 3], "channels": [4, 8, 12, 16], "stem_width": 4}


def tiny(name):
    """The recipe's keys, all switches as they are, with less of everything."""
    values = json.loads(json.dumps(keys(name)))
    for part in ("aggregation_options", "distribution_options", "model_options"):
        for key, value in values[part].items():
            values[part][key] = LESS.get(key, value) if isinstance(value, int) else value
    values["model_options"]["backbone_options"]["timm_options"] = BACKBONE
    if "window" in values["test_protocol"]:
        values["test_protocol"]["window"] = 40
    values |= {"backbone": "resnet50s", "pretrained": False, "steps": 1, "epochs": 0, "batch": 2, "crop": 33}
    values |= {"workers": 0, "accelerator": "cpu", "val_limit": 1}
    if values["loss"] == "ohem":
        values["ohem_min_kept"] = 50
    return values


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """All folders of the papers' data, as --data_root has them."""
    root = tmp_path_factory.mktemp("datasets")
    for folder, builder in (
        ("VOCdevkit/VOC2012", trees.voc_aug),
        ("VOCdevkit/VOC2010", trees.context_converted),
        ("cityscapes", trees.cityscapes),
        ("ADEChallengeData2016", trees.ade20k),
        ("coco_stuff10k", trees.coco_10k),
        ("", trees.coco_plain),
        ("camvid", trees.camvid_cambridge),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        builder(root / folder)
    return root


CHAINS = [name for name in NAMES if rows_of(name) and "after" in keys(name)]


def chain_of(name):
    """The names of the stages of a recipe, last one first."""
    return [f"{path.parent.name}/{path.stem}" for path in index.chain(file(name))]


@pytest.fixture(scope="module")
def trained(datasets, tmp_path_factory):
    """Trains a tiny recipe, once for all those that differ in numbers alone, and returns the run's folder."""
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        # The report takes longer than all the rest, and says nothing of recipes; that it is there ends a stage.
        patch.setattr("segcontext.training.run.write_report", lambda run, *_, **__: (run / "report.md").touch())

        def command(name):
            """A chain, by its one command; the weights of its later stages stay where they start."""
            folder = tmp_path_factory.mktemp("chain")
            for number, stage in enumerate(chain_of(name)):
                later = {"lr": 1e-12} if "after" in keys(stage) else {}
                (folder / f"{Path(stage).name}.yaml").write_text(yaml.safe_dump({**tiny(stage), **later}))
                runs.setdefault(stage, folder / "run" / Path(*["before"] * number))
            words = ["--config", f"{folder / Path(name).name}.yaml", "--data_root", f"{datasets}"]
            assert main(["train", *words, "--out", str(folder / "run")]) == 0
            return folder / "run"

        def run(name):
            ends = [end for end in CHAINS if name in chain_of(end)]
            if name not in runs and ends:
                command(ends[0])
            if name not in runs:
                values = tiny(name)
                kind = json.dumps(values, sort_keys=True)
                if kind not in runs:
                    folder = tmp_path_factory.mktemp("run") / "run"
                    train(Recipe.from_mapping({**values, "data_root": str(datasets)}), folder)
                    runs[kind] = folder
                runs[name] = runs[kind]
            return runs[name]

        yield run


@every_recipe
def test_every_recipe_takes_a_step(name, trained):
    """It is taken, everything is finite, and the result was validated."""
    run = trained(name)
    tensors, info = read_state(run / "state.safetensors", kind="training")
    assert info["progress"]["step"] == info["progress"]["validated"] == 1
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    momenta = [tensor for key, tensor in tensors.items() if key.startswith("optimizer.")]
    assert sum(bool(tensor.any()) for tensor in momenta) > len(momenta) / 2


@pytest.mark.parametrize("name", CHAINS)
def test_each_stage_starts_from_the_weights_of_the_one_before(name, trained):
    last = trained(name)
    run = Recipe.load(last / "recipe.yaml")
    for stage in chain_of(name)[:-1]:
        now, before = (load_model(folder, which="last").state_dict() for folder in (last, last / "before"))
        kept = [key for key in now if key.endswith("weight") and now[key].shape == before[key].shape]
        classifiers = {"classifier.weight", "auxiliary.2.weight"} & set(now)
        assert set(kept) >= {key for key in now if key.endswith("weight")} - classifiers
        assert classifiers <= set(kept) or not run.init_classifier
        for key in kept:
            torch.testing.assert_close(now[key], before[key], rtol=1e-5, atol=1e-6, msg=f"{stage}: {key}")
        last = last / "before"
        run = Recipe.load(last / "recipe.yaml")
    assert run.after is None


def test_a_stage_that_is_there_already_is_not_trained_again(trained, datasets, tmp_path):
    name = "gald/table10_v1_cityscapes"
    done, run = trained(name), tmp_path / "run"
    for stage in chain_of(name):
        (tmp_path / f"{Path(stage).name}.yaml").write_text(yaml.safe_dump(tiny(stage)))
    run.mkdir()
    (run / "before").symlink_to(done / "before")
    weights = done / "before" / "weights" / "last.safetensors"
    written = weights.stat().st_mtime_ns
    words = ["--config", f"{tmp_path / Path(name).name}.yaml", "--data_root", f"{datasets}", "--out", f"{run}"]
    assert main(["train", *words, "--resume"]) == 0
    assert weights.stat().st_mtime_ns == written
    assert (run / "weights" / "last.safetensors").is_file()


SIX = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
WHOLE, ALL = {"mode": "whole", "padding": "none"}, {"scales": SIX, "flip": True}
PADDED = {"mode": "whole", "padding": "stride_plus_one", "average": "probabilities"}


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("emanet/table1_emanet512_r101", [{**PADDED, "scales": [1.0], "flip": False}, {**PADDED, **ALL}]),
        ("gald/table3_r101_mg_ms", [{"mode": "sliding", "window": 40, "overlap": 0.3333, "average": "logits", **ALL}]),
        ("gald/table10_v1_cityscapes", [{**WHOLE, "average": "logits", **ALL}]),
    ],
)
def test_tests_as_the_headers_give_them(name, asked, trained, tmp_path):
    run, commands = trained(name), header(name)["Test"]
    for number, (line, protocol) in enumerate(zip(commands, asked, strict=True)):
        words = [word.replace(f"runs/{name}", str(run)) for word in shlex.split(line)[1:]]
        if "--out" in words:
            del words[words.index("--out") :][:2]
        out = tmp_path / str(number)
        assert main([*words, "--out", str(out), "--pictures", "0"]) == 0
        scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        assert {key: scores["protocol"][key] for key in protocol} == protocol
        assert scores["split"] == ("test" if "--split" in words else "val")


def test_boundaries_are_scored_at_one_scale_whatever_the_recipe_says(trained, tmp_path):
    """Table V of GALD, as the index page gives it."""
    name = "gald/table3_r101_mg_ms"
    assert {"scales", "flip"} <= set(keys(name)["test_protocol"])
    command = re.search(r"`(segcontext evaluate RUN .*? --boundary paper)`", index.LEFT_OUT)[1]
    words = [str(trained(name)) if word == "RUN" else word for word in shlex.split(command)[1:]]
    assert main([*words, "--out", str(tmp_path / "out"), "--pictures", "0"]) == 0
    scores = json.loads((tmp_path / "out/scores.json").read_text(encoding="utf-8"))
    once = {"mode": "whole", "window": None, "scales": [1.0], "flip": False}
    assert {key: scores["protocol"][key] for key in once} == once
    assert len(scores["boundary_f"]["slacks"]) == 4


@pytest.mark.parametrize("name", ["emanet/table2_emanet_r101", "gald/table6_v2"])
def test_rows_of_servers_are_handed_in_by_the_headers_command(name, trained, tmp_path):
    (line,) = header(name)["Test"]
    words = [word.replace(f"runs/{name}", str(trained(name))) for word in shlex.split(line)[1:]]
    assert words[0] == "submit"
    assert main([*words[: words.index("--out")], "--out", str(tmp_path / "sent")]) == 0
    assert len(list((tmp_path / "sent").rglob("*.png"))) == 1
    assert len(list(tmp_path.glob("sent.*"))) == 1


def test_the_stride_and_iterations_of_the_test_are_the_recipes(trained, monkeypatch, tmp_path):
    """Trained at stride 16 with two iterations; tested at 8, with as many as the command line says."""
    import segcontext.evaluation

    asked, run = [], trained("emanet/fig4_train2_r50")
    original = segcontext.evaluation.evaluate

    def evaluate(model, *arguments, **options):
        asked.append((model.backbone.output_stride, model.aggregation.evaluation_iterations))
        return original(model, *arguments, **options)

    monkeypatch.setattr(segcontext.evaluation, "evaluate", evaluate)
    assert load_model(run).backbone.output_stride == 16
    for number, options in enumerate(([], ["--iterations", "8"], ["--output_stride", "16"])):
        assert main(["evaluate", str(run), "--pictures", "0", "--out", str(tmp_path / str(number)), *options]) == 0
    assert asked == [(8, 2), (8, 8), (16, 2)]
