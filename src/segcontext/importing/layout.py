"""How a code base lays out the tensors of one of its networks, and what network of ours that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segcontext.errors import WeightsError
from segcontext.model import Segmenter
from segcontext.zoo import build

__all__ = ["Layout", "Shapes", "Told", "Turn", "leading", "listing", "unit"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Shapes(dict[str, tuple[int, ...]]):
    """The shapes of a file's tensors, by name."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Shapes:
        """The shapes of tensors."""
        return cls({name: tuple(tensor.shape) for name, tensor in tensors.items()})

    def size(self, name: str, dim: int, default: int) -> int:
        """One side of a tensor; `default` where it is missing, so that all that is missing is found out later."""
        shape = self.get(name, ())
        return shape[dim] if len(shape) > dim else default


class Turn(NamedTuple):
    """How the numbers of one tensor are brought from their order to ours, and back."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


class Told(NamedTuple):
    """What a file says of its network besides tensors.

    Attributes:
        align_corners: of its upsampling; `None` where it does not say.
        problem: why the network cannot be rebuilt, if so.
    """

    align_corners: bool | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One network of one code base.

    Args:
        name: what users call it.
        title: what it is, for messages.
        model: the named network of ours.
        marks: tensors by which it is recognised; all must be there.
        moves: their beginning of a name and ours, for all tensors.
        turns: by our name, the tensors whose numbers are in another order there.
        options: options of our network that make it theirs, from the shapes and whether corners are aligned.
        classifier: their classifier's weight, which has a row per class.
        align_corners: of their upsampling; `None` where the tensors do not tell.
        told: reads what a file says of itself, from its facts and its name.
        mean: of their images in [0, 1], per RGB channel.
        std: likewise.
        bgr: whether their images go in as blue, green, red.
        padding: how they pad images at evaluation.
        training: keys of a recipe that their training had.
        wrap: how a PyTorch file of theirs wraps the tensors.
    """

    name: str
    title: str
    model: str
    marks: tuple[str, ...]
    moves: tuple[tuple[str, str], ...]
    options: Callable[[Shapes, bool], dict[str, Any]]
    classifier: str
    align_corners: bool | None
    turns: Mapping[str, Turn] = field(default_factory=dict)
    told: Callable[[Mapping[str, Any], str], Told] = lambda facts, name: Told()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    bgr: bool = False
    padding: str = "none"
    training: Mapping[str, Any] = field(default_factory=dict)
    wrap: Callable[[dict[str, Tensor], Segmenter], Any] = lambda tensors, model: tensors

    def network_options(self, shapes: Shapes, align_corners: bool) -> dict[str, Any]:
        """Everything that `segcontext.build` needs to know for the network of a file with these shapes."""
        given = {"pretrained": False, "mean": self.mean, "std": self.std, "bgr": self.bgr}
        return {**given, "align_corners": align_corners, **self.options(shapes, align_corners)}

    def build(self, shapes: Shapes, align_corners: bool) -> Segmenter:
        """The network for a file with these shapes, on PyTorch's meta device, without numbers."""
        classes = shapes.size(self.classifier, 0, 1)
        with torch.device("meta"):
            return build(self.model, classes, self.network_options(shapes, align_corners))

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
        back = tuple((ours, theirs) for theirs, ours in self.moves)
        names = {name: _move(name, back) for name in state}
        lost = [f"{name} {tuple(state[name].shape)}" for name, moved in names.items() if moved is None]
        if lost:
            raise WeightsError(f"The network is no {self.title}: there is no place for\n  {listing(lost)}")
        return {
            str(moved): self.turns[name].to_theirs(state[name]) if name in self.turns else state[name]
            for name, moved in names.items()
        }


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


def listing(lines: Iterable[str], limit: int = 20) -> str:
    """Lines under each other, the first ones and how many more."""
    every = list(lines)
    return "\n  ".join(every[:limit] + ([f"… and {len(every) - limit} more"] if len(every) > limit else []))


def _move(name: str, moves: tuple[tuple[str, str], ...]) -> str | None:
    """The name with its longest known beginning exchanged; `None` where none is known."""
    fitting = [(len(old), old, new) for old, new in moves if name.startswith(old)]
    if not fitting:
        return None
    _, old, new = max(fitting)
    return new + name.removeprefix(old)
