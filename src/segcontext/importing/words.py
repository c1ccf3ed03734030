"""How names out of foreign files are put into messages."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["listing", "shown"]


def shown(text: str) -> str:
    r"""A text out of a file as it may be printed: what is no visible character stands there as its escape.

    Names in a file can hold anything, and a terminal obeys control characters.

    Args:
        text: such as a tensor's name.

    Example:
        >>> print(shown("fc\x1b[31m.weight"))
        fc\x1b[31m.weight
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def listing(lines: Iterable[str], limit: int = 20) -> str:
    """Lines under each other, as `shown`: the first ones, and how many more there are.

    Args:
        lines: without line breaks of their own; those are escaped, too.
        limit: how many are named.

    Example:
        >>> print(listing("abc", limit=1))
        a
          … and 2 more
    """
    every = [shown(line) for line in lines]
    return "\n  ".join(every[:limit] + ([f"… and {len(every) - limit} more"] if len(every) > limit else []))
