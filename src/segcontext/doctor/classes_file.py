"""Writes classes files that say what mask values or colours mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segcontext.data.masks import Colour
from segcontext.doctor.finding import Mend

__all__ = ["classes_by_colour", "classes_by_value", "made_up_names"]

# `Folder` takes each of these for void; a classes file holds no name twice.
_VOID_NAMES = ("void", "ignore", "unlabelled", "ignored", "unlabeled")


def classes_by_value(named: Mapping[int, str], void: Iterable[int] = ()) -> Mend:
    """Lines for masks that hold numbers.

    Args:
        named: raw values and the names of their classes.
        void: raw values that are not scored.

    Returns:
        The lines of classes.txt.

    Example:
        >>> print(classes_by_value({1: "road", 2: "car"}, [0]).text, end="")
        0 void
        1 road
        2 car
    """
    lines = {value: f"{value} {name}" for value, name in named.items()}
    lines |= {value: f"{value} {name}" for value, name in zip(sorted(void), _VOID_NAMES, strict=False)}
    return Mend("classes.txt", "".join(f"{lines[value]}\n" for value in sorted(lines)))


def classes_by_colour(names: Sequence[str], colours: Mapping[Colour, int], *, rising: bool = False) -> Mend:
    """Lines for masks that hold colours.

    Which name belongs to which colour is not known, so the lines are to be looked through.

    Args:
        names: class names; made-up ones follow where there are more colours.
        colours: the colours and their pixels.
        rising: whether the darkest colour is the first class; otherwise it is the most frequent one.

    Returns:
        The lines of classes.txt.

    Example:
        >>> print(classes_by_colour(["road"], {(0, 0, 0): 1, (9, 8, 7): 3}).text, end="")
        road 9 8 7  # 75 % of the pixels
        class_1 0 0 0  # 25 % of the pixels
    """
    ordered = sorted(colours) if rising else sorted(colours, key=lambda colour: -colours[colour])
    given = [*names, *made_up_names(range(len(names), len(ordered)))][: len(ordered)]
    total = sum(colours.values())
    lines = [
        f"{name} {colour[0]} {colour[1]} {colour[2]}  # {100 * colours[colour] / total:.2g} % of the pixels\n"
        for name, colour in zip(given, ordered, strict=True)
    ]
    return Mend("classes.txt", "".join(lines))


def made_up_names(values: Iterable[int]) -> list[str]:
    """Names that stand where nobody has given one.

    Example:
        >>> made_up_names([0, 7])
        ['class_0', 'class_7']
    """
    return [f"class_{value}" for value in values]
