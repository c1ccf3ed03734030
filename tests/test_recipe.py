import dataclasses
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext import recipe_file
from segcontext.errors import RecipeError
from segcontext.recipe import Recipe
from segcontext.recipe_file import find_recipe, headline, shipped_recipes
from segcontext.zoo import option_names

FIELDS = {item.name: item for item in dataclasses.fields(Recipe)}


def written(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_a_recipe_and_follow_emanets():
    recipe = Recipe(data="demo")
    assert (recipe.model, recipe.crop, recipe.batch, recipe.lr, recipe.power) == ("emanet", 513, 16, 0.009, 0.9)
    assert (recipe.momentum, recipe.weight_decay, recipe.steps) == (0.9, 1e-4, 30_000)


def test_every_key_is_explained_once():
    explained = re.findall(r"^ {8}(\w+): ", Recipe.__doc__.split("Args:")[1].split("Raises:")[0], re.MULTILINE)
    assert explained == list(FIELDS)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    recipe = Recipe(
        data="a: b # c",
        lr="3e-05",
        crop=(320, 480),
        scale=(0.7, 2.1),
        class_weights=[1, 2.5],
        precision="32",
        weights=tmp_path / "w.pth",
        aggregation="none",
        aggregation_options={"bins": (1, 2, 3)},
        model_options={"multi_grid": (1, 2, 4), "backbone_options": {"dilations": [None, (1, 2)]}},
    )
    recipe.save(tmp_path / "r.yaml", header="two\nlines: of comment")
    assert Recipe.load(tmp_path / "r.yaml") == recipe
    text = (tmp_path / "r.yaml").read_text()
    assert text.startswith("# two\n# lines: of comment\ndata: ")
    assert list(yaml.safe_load(text)) == list(FIELDS)


@settings(max_examples=40, deadline=None)
@given(
    data=st.text(min_size=1, max_size=20),
    lr=st.floats(1e-12, 1e6),
    names=st.lists(st.sampled_from(["yes", "null", "~", "1e3", "0x1f", "1_000", "on", "none", "2020-01-01"])),
    seed=st.integers(-(2**63), 2**63),
)
def test_any_text_and_number_survives(tmp_path_factory, data, lr, names, seed):
    recipe = Recipe(data=data, lr=lr, seed=seed, dataset="".join(names), model_options={name: name for name in names})
    path = tmp_path_factory.mktemp("recipes") / "r.yaml"
    recipe.save(path)
    assert Recipe.load(path) == recipe


def test_numbers_that_yaml_takes_for_words_are_numbers(tmp_path):
    recipe = Recipe.load(written(tmp_path, "data: demo\nlr: 1e-3\nweight_decay: 5e-4\nscale: [5e-1, 2]\npower: 1\n"))
    assert (recipe.lr, recipe.weight_decay, recipe.scale) == (1e-3, 5e-4, [0.5, 2.0])
    assert type(recipe.power) is float


def test_overrides_replace_the_files_keys(tmp_path):
    path = written(tmp_path, "data: demo\nbatch: 8\nsteps: 10\n")
    recipe = Recipe.load(path, batch=4, seed=3)
    assert (recipe.batch, recipe.steps, recipe.seed) == (4, 10, 3)


@pytest.mark.parametrize(
    ("key", "right"),
    [("bacth", "batch"), ("lerning_rate", None), ("output-stride", "output_stride"), ("Data", "data"), (7, None)],
)
def test_a_misspelt_key_is_refused_with_the_nearest_right_one(key, right):
    with pytest.raises(RecipeError, match=f"file.yaml has an unknown key '{key}'.") as caught:
        Recipe.from_mapping({"data": "demo", key: 1}, source="file.yaml")
    if right:
        assert f"Did you mean '{right}'?" in str(caught.value)


def test_a_recipe_without_data_says_so():
    with pytest.raises(RecipeError, match="key 'data'"):
        Recipe.from_mapping({"batch": 4})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "There is no recipe at"),
        ("", "'key: value' lines, but it holds NoneType"),
        ("- data\n", "it holds list"),
        ("data: [", "is no YAML"),
        ("data: !!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        written(tmp_path, text)
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.load(path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"data: \xff\xfe")
    with pytest.raises(RecipeError, match="is no YAML"):
        Recipe.load(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("batch", "8", "batch cannot be '8'; expected a whole number"),
        ("batch", 8.0, "a whole number"),
        ("batch", True, "a whole number"),
        ("batch", None, "a whole number"),
        ("lr", "fast", "lr cannot be 'fast'; expected a number"),
        ("lr", True, "a number"),
        ("lr", [0.1], "a number"),
        ("pretrained", 1, "true or false"),
        ("pretrained", "false", "true or false"),
        ("data", 5, "a word"),
        ("weights", 5, "a word or nothing"),
        ("crop", "big", "a whole number or a list"),
        ("crop", [320, 2.5], "crop cannot be"),
        ("scale", 2.0, "a list"),
        ("scale", ["small", 2], "scale cannot be 'small'"),
        ("class_weights", {"sky": 1}, "none, median_frequency, inverse_log, inverse_sqrt or a list"),
        ("model_options", "reduce_channels", "a mapping"),
        ("aggregation_options", ["num_bases"], "a mapping"),
        ("optimizer", "adam", "optimizer must be one of sgd, adamw, not 'adam'. Did you mean 'adamw'?"),
        ("loss", None, "cross_entropy, ohem"),
        ("precision", 16, "32, bf16"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key, value, words):
    with pytest.raises(RecipeError, match=re.escape(words)):
        Recipe(**{"data": "demo", key: value})


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0, "epochs": 0},
        {"steps": -5, "epochs": 1},
        {"epochs": -1},
        {"batch": 0},
        {"accumulate": 0},
        {"devices": 0},
        {"batch": 6, "accumulate": 4},
        {"batch": 6, "devices": 4},
        {"crop": 0},
        {"crop": []},
        {"crop": [3, 4, 5]},
        {"scale": [2.0, 0.5]},
        {"scale": [0, 1]},
        {"scale": [1]},
        {"flip": 1.5},
        {"lr": 0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": "-1e-3"},
        {"momentum": -0.9},
        {"weight_decay": float("nan")},
        {"weight_averaging": 1},
        {"ohem_threshold": 0},
        {"ohem_min_kept": -1},
        {"bn_momentum": 1.5},
        {"warmup": -1},
        {"workers": -1},
        {"val_every": -1},
        {"checkpoint_every": 0},
        {"clip_gradient": -1},
        {"scale_step": -0.1},
        {"color_jitter": -0.1},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused(values):
    with pytest.raises(RecipeError, match="The recipe is off") as caught:
        Recipe(data="demo", **values)
    assert any(key in str(caught.value) for key in values)


def test_yamls_numbers_may_stand_for_words_among_choices():
    assert Recipe.from_mapping({"data": "demo", "precision": 32}).precision == "32"


def test_an_empty_mapping_may_be_left_blank(tmp_path):
    recipe = Recipe.load(written(tmp_path, "data: demo\nmodel_options:\naggregation:\n"))
    assert recipe.model_options == {}
    assert recipe.aggregation is None


def test_recipes_share_nothing_and_stay_as_they_are():
    options = {"num_bases": 4}
    one, two = Recipe(data="demo", aggregation_options=options), Recipe(data="demo")
    one.scale.append(3.0)
    options["num_bases"] = 5
    assert two.scale == [0.5, 2.0]
    assert one.aggregation_options == {"num_bases": 4}
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.lr = 1.0


@pytest.mark.parametrize(("crop", "size"), [(513, (513, 513)), ([320], (320, 320)), ([320, 480], (320, 480))])
def test_a_crop_is_one_side_or_two(crop, size):
    assert Recipe(data="demo", crop=crop).crop_size == size


def test_the_networks_options_are_those_of_the_zoo_and_blanks_are_left_to_it():
    blank = Recipe(data="demo").network()
    assert set(blank) == {"backbone", "output_stride", "pretrained", "weights", "bn_momentum"}
    full = Recipe(
        data=Path("demo"),
        aggregation="ema",
        aggregation_options={"num_bases": 4},
        distribution="mask",
        distribution_options={"ratio": 4},
        arrangement="ldga",
        model_options={"reduce_channels": 32},
    ).network()
    assert set(full) <= set(option_names())
    assert full["aggregation_options"] == {"num_bases": 4}
    assert full["reduce_channels"] == 32


@pytest.mark.parametrize("key", ["backbone", "bn_momentum", "pretrained", "aggregation"])
def test_model_options_may_not_contradict_the_recipes_own_keys(key):
    with pytest.raises(RecipeError, match=f"repeats keys that the recipe has of its own: {key}"):
        Recipe(data="demo", aggregation="psp", model_options={key: "resnet18"}).network()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epochs": float("inf")}, "epochs must be finite"),
        ({"scale": [1.0, float("inf")]}, "scale must be"),
        ({"class_weights": [1.0, -5.0]}, "class_weights cannot be negative"),
        ({"cache_size": 0}, "cache_size must be above 0; cache: none"),
        ({"cache": ""}, "cache must be a folder, auto, or none"),
    ],
)
def test_numbers_that_no_run_could_use_are_refused(keys, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(data="demo", **keys)


def test_numbers_that_yaml_takes_for_words_are_numbers_in_mappings_too():
    recipe = Recipe(
        data="demo", aggregation_options={"lam": "1e1", "upkeep": "learned"}, model_options={"a": ["2.5e-1"]}
    )
    assert recipe.aggregation_options == {"lam": 10.0, "upkeep": "learned"}
    assert recipe.model_options == {"a": [0.25]}


def test_a_wrong_key_of_the_test_protocol_is_named():
    with pytest.raises(RecipeError, match=r"unknown key 'scale'.*Did you mean 'scales'"):
        Recipe(data="demo", test_protocol={"scale": [1.0]})


def test_absolute_paths_mean_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(data="photos", init="runs/first", weights="/w.pth").absolute()
    assert (recipe.data, recipe.init, recipe.weights) == (f"{tmp_path}/photos", f"{tmp_path}/runs/first", "/w.pth")
    assert recipe.data_root is None
    recipe = Recipe(data="city", data_root="sets", after="first.yaml").absolute()
    assert (recipe.data, recipe.data_root, recipe.after) == ("city", f"{tmp_path}/sets", f"{tmp_path}/first.yaml")
    assert recipe.data_path == f"{tmp_path}/sets/city"
    assert recipe.absolute() == recipe
    assert [Recipe(data="demo", cache=word).absolute().cache for word in ("auto", "none", "pixels")] == [
        *("auto", "none", f"{tmp_path}/pixels"),
    ]
    demo = Recipe(data="demo")
    assert demo.absolute() == demo


# Recipes that come with the package


def test_recipes_are_found_by_name_and_files_go_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = shipped_recipes()
    assert list(shipped) == sorted(shipped, key=lambda name: shipped[name])
    for name in ("camvid_cpu", "gald/table7_v2"):
        assert shipped[name].is_file()
        for spelt in (name, f"{name}.yaml", f"recipes/{name}", f"recipes/{name}.yaml", f"./{name}", Path(name)):
            assert find_recipe(spelt) == shipped[name]
    assert Recipe.load("camvid_cpu", data="demo").aggregation == "ema"
    assert Recipe.load("gald/table7_v2").after == str(shipped["gald/table7_v2_stage2"])
    Path("camvid_cpu").write_text("data: mine\n")
    assert Recipe.load("camvid_cpu").data == "mine"


def test_a_recipe_that_is_not_known_is_refused_with_the_nearest(tmp_path):
    for asked, meant in (("camvid_gpuu", "camvid_gpu"), ("table7_v2.yaml", "gald/table7_v2 or")):
        with pytest.raises(RecipeError, match=rf"no recipe at {asked}.*segcontext recipes.*Did you mean {meant}"):
            find_recipe(asked)
    for asked in ("zzz", tmp_path / "camvid_gpu.yaml", tmp_path):
        with pytest.raises(RecipeError, match="no recipe at") as caught:
            find_recipe(asked)
        assert "Did you mean" not in str(caught.value)


def test_an_installed_package_has_its_recipes_within(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "segcontext"
    source = shipped_recipes()["gald/table7_v2"]
    (package / "recipes/gald").mkdir(parents=True)
    shutil.copy(source, package / "recipes/gald")
    monkeypatch.setattr(recipe_file, "__file__", str(package / "recipe_file.py"))
    assert shipped_recipes() == {"gald/table7_v2": package / "recipes/gald/table7_v2.yaml"}
    assert headline(find_recipe("gald/table7_v2")) == "Paper: GALD, Table VII, Ours (ResNet101)-GALDv2"
    shutil.rmtree(package / "recipes")
    assert shipped_recipes() == {}


def test_the_wheel_packs_the_recipes_where_they_are_looked_for():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"recipes": "segcontext/recipes"}
