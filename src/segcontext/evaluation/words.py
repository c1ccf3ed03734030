"""How shares and numbers are written."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["or_none", "percent", "without_nan"]


def percent(share: float) -> str:
    """A share in percent, with one digit; a dash where there is none."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def or_none(value: Any) -> Any:
    """The value, or `None` for a number that JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_nan(value: Any) -> Any:
    """The value, and what dicts and lists in it hold, with `None` for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return or_none(value)
