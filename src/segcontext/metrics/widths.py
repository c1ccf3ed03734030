"""Widths of boundaries, in pixels or as shares of the image's diagonal."""

from __future__ import annotations

import math

from segcontext.errors import RecipeError

__all__ = ["check_width", "slack_in_pixels", "width_in_pixels"]


def check_width(width: float, what: str) -> float:
    """The width as a float; a `RecipeError` for what is neither a share nor pixels.

    Args:
        width: a share of the image's diagonal below 1, or pixels from 1 up.
        what: how a message names it, with a capital.
    """
    value = float(width)
    if not (value > 0 and math.isfinite(value)):
        raise RecipeError(
            f"{what} is a share of the image's diagonal above 0 and below 1, or pixels from 1 up, not {value:g}."
        )
    return value


def slack_in_pixels(slack: float, height: int, width: int) -> float:
    """A slack in pixels: shares of the diagonal are rounded up, pixels stay as they are.

    Args:
        slack: a share of the diagonal below 1, or pixels from 1 up.
        height: H.
        width: W.

    Example:
        >>> [slack_in_pixels(share, 1024, 2048) for share in (0.00088, 0.001875, 0.00375, 0.005)]
        [3.0, 5.0, 9.0, 12.0]
    """
    value = check_width(slack, "A slack")
    return float(math.ceil(value * math.hypot(height, width))) if value < 1 else value


def width_in_pixels(share: float, height: int, width: int) -> int:
    """The width of a band in whole pixels: shares of the diagonal are rounded to the nearest, and at least 1.

    Args:
        share: a share of the diagonal below 1, or pixels from 1 up, which are rounded down.
        height: H.
        width: W.

    Example:
        >>> width_in_pixels(0.02, 480, 640), width_in_pixels(0.0001, 480, 640), width_in_pixels(7, 480, 640)
        (16, 1, 7)
    """
    value = check_width(share, "A width")
    return max(1, round(value * math.hypot(height, width))) if value < 1 else int(value)
