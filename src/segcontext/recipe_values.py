"""The values of a recipe, held against the types that its keys ask for."""

from __future__ import annotations

import os
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from segcontext.errors import RecipeError, nearest

__all__ = ["coerce"]


def coerce(name: str, value: Any, hint: Any) -> Any:
    """Checks a value against its annotation; numbers that YAML took for words (1e-3) become numbers.

    Args:
        name: the key, for the error.
        value: what was given.
        hint: the annotation.

    Returns:
        The value; tuples become lists, and whole numbers floats where those are asked for.

    Raises:
        RecipeError: the value is of another type, or none of the words that are allowed.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        if str(value) in options:
            return str(value)
        raise RecipeError(f"{name} must be one of {', '.join(options)}, not {value!r}.{nearest(str(value), options)}")
    if origin in (Union, types.UnionType):
        for option in options:
            try:
                return coerce(name, value, option)
            except RecipeError:
                continue
        raise RecipeError(f"{name} cannot be {value!r}; expected {_describe(hint)}.")
    if origin is list and isinstance(value, list | tuple):
        return [coerce(name, item, options[0]) for item in value]
    if origin is dict and (isinstance(value, Mapping) or value is None):
        return _lists(value or {})
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    exact = {int: int, bool: bool, str: str, types.NoneType: types.NoneType}.get(hint)
    if exact is not None and isinstance(value, exact) and not (hint is int and isinstance(value, bool)):
        return value
    raise RecipeError(f"{name} cannot be {value!r}; expected {_describe(hint)}.")


def _lists(value: Any) -> Any:
    """The same value with lists for tuples, as YAML gives it back, and numbers that it took for words (1e-3)."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _describe(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", types.NoneType: "nothing"}
    if hint in words:
        return words[hint]
    if get_origin(hint) is Literal:
        return ", ".join(get_args(hint))
    if get_origin(hint) is list:
        return "a list"
    if get_origin(hint) is dict:
        return "a mapping {key: value}"
    return " or ".join(_describe(option) for option in get_args(hint))
