"""Recipe files: flat YAML, found by path or by name, and read with errors that name the file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from segcontext.errors import RecipeError

__all__ = ["find_recipe", "headline", "read_recipe", "read_yaml", "shipped_recipes"]


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The keys of a recipe file; the file that it names in `after` is found from anywhere.

    Args:
        path: as for `find_recipe`.

    Returns:
        The keys and their values.

    Raises:
        RecipeError: where the file is missing or no flat YAML.
    """
    path = find_recipe(path)
    values = read_yaml(path)
    if isinstance(values.get("after"), str):
        values["after"] = str((Path(path).parent / values["after"]).resolve())
    return values


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, with errors that name the file."""
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"There is no recipe at {path}; expected a YAML file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must hold 'key: value' lines, but it holds {type(values).__name__}.")
    return values


def find_recipe(path: str | Path) -> Path:
    """A recipe's file.

    Args:
        path: the file, or the name of a recipe that comes with the package: ``emanet/table3_emanet_r50``, with or
            without ``recipes/`` before it and ``.yaml`` after it. A file of that name goes before.

    Returns:
        The file.

    Raises:
        RecipeError: there is neither; it names the nearest.
    """
    path = Path(path)
    if path.is_file():
        return path
    name = (path.with_suffix("") if path.suffix == ".yaml" else path).as_posix().removeprefix("recipes/")
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if path.is_absolute():
        raise RecipeError(f"There is no recipe at {path}; expected a YAML file.")
    near = difflib.get_close_matches(name, shipped, n=3)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise RecipeError(
        f"There is no recipe at {path}, and none of that name comes with segcontext; expected a YAML file, or a name "
        f"that `segcontext recipes` lists.{meant}"
    )


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package by their names, sorted; a checkout has them beside its sources."""
    package = Path(__file__).parent
    folders = [package / "recipes", *([package.parents[1] / "recipes"] if package.parent.name == "src" else [])]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def headline(path: Path) -> str:
    """The first line of a recipe's comment, without its sign and with single spaces."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return " ".join(first.lstrip("#").split()) if first.startswith("#") else ""
