"""Recipe files: flat YAML, read with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segcontext.errors import RecipeError

__all__ = ["read_recipe", "read_yaml"]


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The keys of a recipe file; the file that it names in `after` is found from anywhere.

    Args:
        path: the file.

    Returns:
        The keys and their values.

    Raises:
        RecipeError: where the file is missing or no flat YAML.
    """
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
