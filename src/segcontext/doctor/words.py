"""How numbers, shares and lists are written in findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["few", "number", "plural", "share", "verb"]


def number(value: float) -> str:
    """A number with its thousands parted; small ones with two digits after the point.

    Example:
        >>> number(12000), number(0.25)
        ('12,000', '0.25')
    """
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2f}"


def share(part: float, whole: float) -> str:
    """A share in percent, with as many digits as tell it from none and all.

    Example:
        >>> share(1, 3), share(1, 100_000), share(1, 0)
        ('33.3 %', '0.001 %', '–')
    """
    if whole == 0:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent == 0 or percent >= 0.1 else f"{percent:.1g} %"


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its word.

    Example:
        >>> plural(1, "mask"), plural(2000, "mask"), plural(2, "class", "classes")
        ('1 mask', '2,000 masks', '2 classes')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def few(things: Iterable[object], most: int = 5) -> str:
    """The first of some things, in one line.

    Example:
        >>> few(range(9), 3)
        '0, 1, 2, …'
    """
    listed: Sequence[str] = [str(thing) for thing in things]
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")


def verb(count: int, many: str) -> str:
    """A verb in the form that goes with a count.

    Example:
        >>> [verb(1, word) for word in ("are", "have", "hold")], verb(2, "hold")
        (['is', 'has', 'holds'], 'hold')
    """
    return many if count != 1 else {"are": "is", "have": "has"}.get(many, f"{many}s")
