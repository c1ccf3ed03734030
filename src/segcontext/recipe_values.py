"""The values of a recipe, held against the types and the ranges that its keys ask for."""

from __future__ import annotations

import math
import os
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from segcontext.errors import RecipeError, nearest

__all__ = ["check_ranges", "coerce"]

#: What `test_protocol` may hold.
TEST_KEYS = (
    *("mode", "window", "overlap", "blend", "context", "thumbnail", "scales", "flip", "average", "padding"),
    *("output_stride", "iterations"),
)

NOT_NEGATIVE = (
    "steps",
    "epochs",
    "scale_step",
    "color_jitter",
    "momentum",
    "weight_decay",
    "power",
    "warmup",
    "head_lr_factor",
    "bias_lr_factor",
    "clip_gradient",
    "ohem_min_kept",
    "auxiliary_weight",
    "val_every",
    "val_limit",
    "workers",
)


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


def check_ranges(values: Mapping[str, Any]) -> None:
    """Refuses values that are of the right type but that no run could use, and keys that contradict each other.

    Args:
        values: every key of a recipe, of the right type.

    Raises:
        RecipeError: it says what must hold.
    """
    crop = values["crop"] if isinstance(values["crop"], list) else [values["crop"]]
    weights = values["class_weights"] if isinstance(values["class_weights"], list) else [1.0]
    batch, accumulate, devices = (values[name] for name in ("batch", "accumulate", "devices"))
    scale = values["scale"]
    negative = [name for name in NOT_NEGATIVE if not values[name] >= 0]
    endless = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    checks = (
        (not endless, f"{', '.join(endless)} must be finite"),
        (not negative, f"{', '.join(negative)} cannot be negative"),
        (values["steps"] > 0 or values["epochs"] > 0, "steps or epochs must be above 0"),
        (min(batch, accumulate, devices) > 0, "batch, accumulate and devices start at 1"),
        (batch % (accumulate * devices or 1) == 0, "batch must be a multiple of accumulate × devices"),
        (len(crop) in (1, 2) and min(crop) > 0, "crop must be one side, or height and width, in pixels"),
        (len(scale) == 2 and 0 < scale[0] <= scale[1] < math.inf, "scale must be [smallest, largest], above 0"),
        (0 <= values["flip"] <= 1, "flip is a probability"),
        (values["lr"] > 0, "lr must be above 0"),
        (0 <= values["bn_momentum"] <= 1, "bn_momentum is the share of the new statistics, from 0 to 1"),
        (0 <= values["weight_averaging"] < 1, "weight_averaging is a decay from 0 to below 1"),
        (0 < values["ohem_threshold"] <= 1, "ohem_threshold is a probability above 0"),
        (min(weights) >= 0 and 0 < max(weights) < math.inf, "class_weights cannot be negative, or all 0"),
        (values["cache_size"] > 0, "cache_size must be above 0; cache: none keeps nothing"),
        (values["cache"] != "", "cache must be a folder, auto, or none"),
        (values["checkpoint_every"] > 0, "checkpoint_every must be at least 1"),
        (not (values["after"] and values["init"]), "after and init both say what to start from; leave one out"),
    )
    for holds, rule in checks:
        if not holds:
            raise RecipeError(f"The recipe is off: {rule}.")
    for name in values["test_protocol"]:
        if name not in TEST_KEYS:
            raise RecipeError(
                f"test_protocol has an unknown key '{name}'; it takes {', '.join(TEST_KEYS)}.{nearest(name, TEST_KEYS)}"
            )


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
