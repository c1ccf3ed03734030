"""The shapes of a file's tensors, and what they say of a network's widths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

__all__ = ["Shapes"]


class Shapes(dict[str, tuple[int, ...]]):
    """The shapes of a file's tensors, by name.

    A width stands in several tensors: in a convolution, its bias and the batch norm after it. The one that most of
    them have counts, so that a tensor that is missing or misshapen is the one that is reported later, and not those
    around it.

    Args:
        shapes: by name.

    Attributes:
        asked: the tensors of the file that a width was taken from, in order.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(shapes)
        self.asked: dict[str, None] = {}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Shapes:
        """The shapes of tensors."""
        return cls({name: tuple(tensor.shape) for name, tensor in tensors.items()})

    def common(self, *places: tuple[str, int]) -> int | None:
        """The size that most of these sides have, of equally many the one named first; `None` where none is there.

        Args:
            places: names of tensors and which side of each.

        Example:
            >>> Shapes({"a": (3, 4), "b": (5,), "c": (5, 1)}).common(("a", 0), ("b", 0), ("c", 0))
            5
        """
        there = [(name, self[name][dim]) for name, dim in places if len(self.get(name, ())) > dim]
        self.asked |= dict.fromkeys(name for name, _ in there)
        return Counter(size for _, size in there).most_common(1)[0][0] if there else None

    def size(self, name: str, dim: int, default: int, *others: tuple[str, int]) -> int:
        """One side of a tensor, or as `others` have it; `default` where all are missing."""
        found = self.common((name, dim), *others)
        return default if found is None else found

    def width(self, convolution: str, default: int, *others: tuple[str, int]) -> int:
        """The output channels of a convolution, by its weight, its bias, and the batch norm after it.

        Args:
            convolution: its name, such as ``"fc0.conv"`` (the batch norm is ``fc0.bn``) or ``"dsn.0"`` (``dsn.1``).
            default: where all of them are missing.
            others: further tensors with a side of this size.
        """
        before, _, last = convolution.rpartition(".")
        norm = f"{before}.{int(last) + 1}" if last.isdigit() else f"{before}.bn"
        sides = [f"{norm}.{each}" for each in ("weight", "bias", "running_mean", "running_var")]
        places = ((f"{convolution}.{each}", 0) for each in ("weight", "bias"))
        return self.size(*next(places), default, *places, *((side, 0) for side in sides), *others)

    def holds(self, beginning: str) -> bool:
        """Whether any tensor's name begins so."""
        return any(name.startswith(beginning) for name in self)
