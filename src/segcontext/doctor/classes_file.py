"""Writes classes files that say what mask values or colours mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from segcontext.data.class_entries import VOID_NAMES
from segcontext.data.masks import Colour
from segcontext.doctor.finding import Mend

__all__ = ["BACKGROUND", "ClassLine", "classes_by_colour", "classes_file", "made_up_names", "void_lines"]

#: Names of a class that is what lies around all others.
BACKGROUND = ("background", "bg")


class ClassLine(NamedTuple):
    """A line of a classes file.

    Attributes:
        value: what masks hold for it.
        name: of the class, or a word for void.
        void: whether it is no class.
        colour: RGB, if one is given.
    """

    value: int
    name: str
    void: bool = False
    colour: Colour | None = None


def classes_file(lines: Iterable[ClassLine]) -> Mend:
    """Writes a classes file.

    The order of the classes is kept, since it gives their indices. Where their values rise, void stands between them.

    Args:
        lines: classes and void.

    Returns:
        The lines of classes.txt.

    Example:
        >>> print(classes_file([ClassLine(1, "road", colour=(9, 9, 9)), ClassLine(0, "void", void=True)]).text, end="")
        0 void
        1 road 9 9 9
    """
    lines = list(lines)
    values = [line.value for line in lines if not line.void]
    if values == sorted(values):
        lines.sort(key=lambda line: line.value)
    return Mend("classes.txt", "".join(f"{_written(line)}\n" for line in lines))


def _written(line: ClassLine) -> str:
    return " ".join(str(part) for part in (line.value, line.name, *(line.colour or ())))


def void_lines(values: Iterable[int], beside: Iterable[ClassLine] = ()) -> list[ClassLine] | None:
    """Lines that call values void.

    Args:
        values: raw values.
        beside: the lines that are there already; their names are not used again.

    Returns:
        The new lines, or `None` where there are more values than names for void.

    Example:
        >>> [line.name for line in void_lines([7, 9], [ClassLine(0, "void", void=True)])]
        ['ignore', 'unlabelled']
    """
    taken = {line.name.lower() for line in beside}
    values, names = sorted(values), [name for name in VOID_NAMES if name not in taken]
    if len(values) > len(names):
        return None
    return [ClassLine(value, name, void=True) for value, name in zip(values, names, strict=False)]


def classes_by_colour(lines: Sequence[ClassLine], colours: Mapping[Colour, int], *, rising: bool = False) -> Mend:
    """Lines for masks that hold colours.

    Classes and void keep the colours that they have. Which of the other colours belongs to which of the other names is
    not known, so the lines are to be looked through.

    Args:
        lines: the classes file as it is; made-up names follow where there are more colours.
        colours: the colours and their pixels.
        rising: whether the darkest colour is the first class; otherwise it is the most frequent one.

    Returns:
        The lines of classes.txt; classes that no colour is left for stand there as comments.

    Example:
        >>> lines = [ClassLine(0, "road"), ClassLine(1, "car", colour=(1, 1, 1)), ClassLine(2, "sky")]
        >>> print(classes_by_colour(lines, {(1, 1, 1): 1, (9, 8, 7): 3}).text, end="")
        road 9 8 7  # 75 % of the pixels
        car 1 1 1  # 25 % of the pixels
        # sky r g b: no colour is left for it
    """
    kept = {line.colour for line in lines if line.colour}
    ordered = sorted(colours) if rising else sorted(colours, key=lambda colour: -colours[colour])
    left = [colour for colour in ordered if colour not in kept]
    named: list[tuple[str, Colour | None]] = []
    for line in lines:
        if line.colour:
            named.append((line.name, line.colour))
        elif not line.void:
            named.append((line.name, left.pop(0) if left else None))
    classes = sum(not line.void for line in lines)
    named += zip(made_up_names(range(classes, classes + len(left))), left, strict=True)
    total = sum(colours.values())
    written = [
        f"{name} {colour[0]} {colour[1]} {colour[2]}  # {100 * colours.get(colour, 0) / total:.2g} % of the pixels\n"
        for name, colour in named
        if colour
    ]
    written += [f"# {name} r g b: no colour is left for it\n" for name, colour in named if not colour]
    return Mend("classes.txt", "".join(written))


def made_up_names(values: Iterable[int]) -> list[str]:
    """Names that stand where nobody has given one.

    Example:
        >>> made_up_names([0, 7])
        ['class_0', 'class_7']
    """
    return [f"class_{value}" for value in values]
