"""What is written about the project holds: recipes build, examples run, documented commands and keys exist."""

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
import sys
import tomllib
import types
from pathlib import Path

import pytest
import yaml

import segcontext
from segcontext import zoo
from segcontext.aggregation import AGGREGATIONS
from segcontext.assembly import option_names
from segcontext.cli import _parser
from segcontext.distribution import DISTRIBUTIONS

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PARTS = {name: part for name, part in {**AGGREGATIONS, **DISTRIBUTIONS}.items() if name != "none"}


def blocks(path, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def name(path):
    return path.relative_to(ROOT).as_posix()


def commands(text):
    """The words after ``segcontext`` in each line that calls it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z]+=\S*", words[0]):
            words.pop(0)
        if words and words[0] == "torchrun":
            words = words[words.index("segcontext.cli") :]
        if words and words[0] in ("segcontext", ".venv/bin/segcontext", "segcontext.cli"):
            yield words[1:]


def documented_commands():
    for page in PAGES:
        for block in blocks(page, "bash"):
            yield from ((name(page), words) for words in commands(block))
    for recipe in RECIPES:
        for line in recipe.read_text(encoding="utf-8").splitlines():
            if "Command:" in line:
                yield from ((name(recipe), words) for words in commands(line.partition("Command:")[2]))


def scripts(*pages):
    return [(name(page), number, code) for page in pages for number, code in enumerate(blocks(page, "python"))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_network_builds(path):
    recipe = segcontext.Recipe.load(path, data="demo", backbone="resnet18", pretrained=False)
    network = segcontext.build(recipe.model, 4, recipe.network())
    assert network.num_classes == 4
    assert network.backbone.output_stride == recipe.output_stride


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_how_to_run_it_and_what_to_expect(path):
    text = path.read_text(encoding="utf-8")
    header = text[: re.search(r"^[^#\n]", text, re.MULTILINE).start()]
    assert f"segcontext train --config recipes/{path.name}" in header
    assert "Expected:" in header


@pytest.mark.parametrize(("where", "words"), list(documented_commands()))
def test_a_documented_command_is_understood(where, words):
    if words and not words[0].startswith("-"):
        _parser().parse_args(words, defaults=False, _skip_validation=False)


@pytest.mark.parametrize(("where", "number", "code"), scripts(*PAGES))
def test_documented_python_uses_what_there_is(where, number, code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "segcontext":
            assert node.attr in segcontext.__all__
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "segcontext":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_contributing_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    written = []
    for _, _, code in scripts(ROOT / "CONTRIBUTING.md"):
        file = re.match(r"# (\w+\.py)\n", code)
        if file:
            (tmp_path / file[1]).write_text(code, encoding="utf-8")
            written.append(Path(file[1]).stem)
        else:
            exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "example"})
    # All four kinds were there, and the examples imported each.
    assert written == ["strips", "gates", "leaves", "plain"]
    assert all(sys.modules.pop(module, None) for module in written)


@pytest.mark.parametrize(("where", "number", "code"), scripts(*sorted((ROOT / "docs" / "modules").glob("*.md"))))
def test_examples_of_the_module_pages_run(where, number, code, capsys):
    exec(compile(code, where, "exec"), {"__name__": "example"})


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_a_page_with_all_its_switches(part):
    page = (ROOT / "docs" / "modules" / f"{part}.md").read_text(encoding="utf-8")
    switches = [p.name for p in inspect.signature(PARTS[part]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert switches
    assert [switch for switch in switches if f"`{switch}`" not in page] == []


def test_every_recipe_key_and_network_option_is_documented():
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    keys = [field.name for field in dataclasses.fields(segcontext.Recipe)]
    assert [key for key in keys if f"`{key}`" not in training] == []
    parts = "".join(
        (ROOT / "docs" / "modules" / f"{page}.md").read_text("utf-8") for page in ("arrangements", "backbones")
    )
    own = set(keys) | {"backbone_options"}
    assert [option for option in option_names() if option not in own and f"`{option}`" not in parts] == []


def test_the_tree_in_the_readme_is_the_tree():
    tree = next(block for block in blocks(ROOT / "README.md", "text") if "src/segcontext/" in block)
    top, _, package = tree.partition("src/segcontext/\n")
    listed = [word for line in top.splitlines() for word in line.replace("├──", "").split("   ")[0].split()]
    assert [file for file in listed if file != "└──" and not (ROOT / file).exists()] == []
    modules = re.findall(r"[├└]── (\S+?)/?\s", package)
    source = ROOT / "src" / "segcontext"
    there = [p.name for p in source.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    assert sorted(modules) == sorted(there)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_between_files_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_the_citation_names_the_papers_and_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == segcontext.__version__
    values = {entry["value"] for paper in citation["references"] for entry in paper["identifiers"]}
    assert values == {"arXiv:1907.13426", "arXiv:2107.13154", "arXiv:1909.07229"}


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == segcontext.__version__
    assert segcontext.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_public_names_are_complete_and_there():
    # Ruff keeps them sorted.
    assert len(segcontext.__all__) == len(set(segcontext.__all__))
    assert all(getattr(segcontext, public) is not None for public in segcontext.__all__)
    ours = {
        public
        for public, value in vars(segcontext).items()
        if not public.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", "").startswith("segcontext")
    }
    assert ours <= set(segcontext.__all__)
    assert {builder for builder in zoo.BUILDERS if builder not in segcontext.__all__} == set()
