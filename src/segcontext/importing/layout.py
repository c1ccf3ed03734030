"""How a code base lays out the tensors of one of its networks, and what network of ours that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segcontext.errors import WeightsError
from segcontext.importing.shapes import Shapes
from segcontext.importing.words import listing
from segcontext.model import Segmenter
from segcontext.zoo import build

__all__ = ["Layout", "Told", "Turn", "leading", "unit"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Turn(NamedTuple):
    """How the numbers of one tensor are brought from their order to ours, and back."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


class Told(NamedTuple):
    """What a file says of its network besides tensors.

    Attributes:
        align_corners: of its upsampling; `None` where it does not say.
        problem: why the network cannot be rebuilt, if so.
        options: of our network, over those that the shapes give.
        notes: what was assumed, in sentences.
    """

    align_corners: bool | None = None
    problem: str | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One network of one code base.

    Args:
        name: what users call it.
        title: what it is, for messages.
        model: the named network of ours.
        marks: tensors by which it is recognised, where all are there.
        moves: their beginning of a name and ours, for all tensors.
        turns: by our name, the tensors whose numbers are in another order there.
        options: options of our network that make it theirs, from the shapes and whether corners are aligned.
        align_corners: of their upsampling; `None` where the tensors do not tell.
        told: reads what a file says of itself, from its facts and its name.
        mean: of their images in [0, 1], per RGB channel.
        std: likewise.
        bgr: whether their images go in as blue, green, red.
        padding: how they pad images at evaluation.
        training: keys of a recipe that their training had.
        wrap: how a PyTorch file of theirs wraps the tensors.
        fixed: by their name, shapes that their code has always; a file with others is nothing that it can read.
        required: those of them that it cannot do without.
    """

    name: str
    title: str
    model: str
    marks: tuple[str, ...]
    moves: tuple[tuple[str, str], ...]
    options: Callable[[Shapes, bool], dict[str, Any]]
    align_corners: bool | None
    turns: Mapping[str, Turn] = field(default_factory=dict)
    told: Callable[[Mapping[str, Any], str], Told] = lambda facts, name: Told()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    bgr: bool = False
    padding: str = "none"
    training: Mapping[str, Any] = field(default_factory=dict)
    wrap: Callable[[dict[str, Tensor], Segmenter], Any] = lambda tensors, model: tensors
    fixed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def network_options(
        self, shapes: Shapes, align_corners: bool, told: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any]:
        """Everything that `segcontext.build` needs to know for the network of a file with these shapes.

        Args:
            shapes: the file's.
            align_corners: of its upsampling.
            told: options that the file says, see `Told`.
        """
        given = {"pretrained": False, "mean": self.mean, "std": self.std, "bgr": self.bgr}
        options = {**given, "align_corners": align_corners, **self.options(shapes, align_corners)}
        for name, value in told.items():
            options[name] = {**options.get(name, {}), **value} if isinstance(value, Mapping) else value
        return options

    def build(self, shapes: Shapes, align_corners: bool, told: Mapping[str, Any] = MappingProxyType({})) -> Segmenter:
        """The network for a file with these shapes, on PyTorch's meta device, without numbers.

        Args:
            shapes: as for `network_options`.
            align_corners: as there.
            told: as there.
        """
        with torch.device("meta"):
            return build(self.model, self.classes(shapes) or 1, self.network_options(shapes, align_corners, told))

    def classes(self, shapes: Shapes) -> int | None:
        """The number of classes by the classifiers' tensors, the auxiliary head's too; `None` where all are missing."""
        return shapes.common(*((name, 0) for name in self.class_names()))

    def class_names(self) -> tuple[str, ...]:
        """Their names of the tensors that have a row per class."""
        back = self._back()
        heads = ("classifier", "auxiliary.2")
        names = (_move(f"{head}.{each}", back) for head in heads for each in ("weight", "bias"))
        return tuple(name for name in names if name is not None)

    def resembles(self, names: Iterable[str]) -> bool:
        """Whether a file with these names may be of this network although some tensors are missing, or too many.

        At least 80 % of the names must have a place here, and the file must have something of at least two thirds of
        the parts beyond backbone and auxiliary head: a backbone alone is of no network, and neither is another head on
        the same backbone.

        Args:
            names: of the file's tensors.
        """
        there = tuple(names)
        known = sum(_move(name, self.moves) is not None for name in there)
        parts = [theirs for theirs, ours in self.moves if not ours.startswith(("backbone.", "auxiliary."))]
        found = sum(any(name.startswith(part) for name in there) for part in parts)
        return 5 * known >= 4 * len(there) and 3 * found >= 2 * len(parts)

    def strangers(self, shapes: Shapes) -> int:
        """How many names a file with these shapes and its network here do not share."""
        try:
            wanted = self.to_theirs(self.build(shapes, False).state_dict())
        except (ValueError, TypeError, RuntimeError):
            return len(shapes)
        return len(wanted.keys() ^ shapes.keys())

    def to_ours(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by our names, in our order; what has no place here is left out."""
        moved = ((_move(name, self.moves), tensor) for name, tensor in tensors.items())
        return {
            name: self.turns[name].to_ours(tensor) if name in self.turns else tensor
            for name, tensor in moved
            if name is not None
        }

    def to_theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by their names, in their order.

        Raises:
            WeightsError: listing the tensors that have no place there.
        """
        back = self._back()
        names = {name: _move(name, back) for name in state}
        lost = [f"{name} {tuple(state[name].shape)}" for name, moved in names.items() if moved is None]
        if lost:
            raise WeightsError(f"The network is no {self.title}: there is no place for\n  {listing(lost)}")
        return {
            str(moved): self.turns[name].to_theirs(state[name]) if name in self.turns else state[name]
            for name, moved in names.items()
        }

    def _back(self) -> tuple[tuple[str, str], ...]:
        return tuple((ours, theirs) for theirs, ours in self.moves)


def unit(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    """The moves of a convolution with batch norm that is called ``conv`` and ``bn`` there."""
    return ((f"{theirs}.conv.", f"{ours}.0."), (f"{theirs}.bn.", f"{ours}.1."))


def leading(first: Callable[[int], int]) -> Turn:
    """The turn of a convolution over two concatenated maps, of which theirs has ours' second one first.

    Args:
        first: how many of all input channels theirs has first.
    """

    def to_ours(weight: Tensor) -> Tensor:
        return weight.roll(-first(weight.shape[1]), 1)

    def to_theirs(weight: Tensor) -> Tensor:
        return weight.roll(first(weight.shape[1]), 1)

    return Turn(to_ours, to_theirs)


def _move(name: str, moves: tuple[tuple[str, str], ...]) -> str | None:
    """The name with its longest known beginning exchanged; `None` where none is known."""
    fitting = [(len(old), old, new) for old, new in moves if name.startswith(old)]
    if not fitting:
        return None
    _, old, new = max(fitting)
    return new + name.removeprefix(old)
