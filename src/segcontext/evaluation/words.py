"""How classes and shares are written, and how names of classes are compared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["listing", "or_none", "percent", "plain_names", "without_nan"]


def plain_names(names: Iterable[str]) -> list[str]:
    """Class names as they are compared: capitals, spaces and underscores make no difference."""
    return [re.sub(r"[\W_]+", "", name).casefold() for name in names]


def listing(names: Sequence[str]) -> str:
    """The first dozen class names, in one line."""
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


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
