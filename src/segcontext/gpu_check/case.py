"""One thing that the kernels for a GPU have to get right, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["Case", "Finding", "Work", "far"]

Results: TypeAlias = tuple[Tensor, ...]


class Work(NamedTuple):
    """A case with its tensors.

    Attributes:
        call: does it once, in the form that `segcontext.ops.use_implementation` says.
        error: how far results are from what float64 says.
        slack: what rounding explains.
    """

    call: Callable[[], Results]
    error: Callable[[Results], float]
    slack: float


@dataclass(frozen=True)
class Case:
    """A call of an operation.

    Attributes:
        operation: its name.
        dtype: of what it is given.
        gradients: whether with those.
        what: sizes and options, in a few words.
        timed: whether it is large enough to be timed.
        make: draws the tensors, on a device.
    """

    operation: str
    dtype: torch.dtype
    gradients: bool
    what: str
    timed: bool
    make: Callable[[torch.device], Work]


class Finding(NamedTuple):
    """What came of a case.

    Attributes:
        operation: as of the case.
        dtype: its name, such as ``"bfloat16"``.
        gradients: as of the case.
        what: as of the case.
        error: how far the kernels' results are from float64's; `None` where there are none.
        agreed: whether rounding explains that.
        kernels: median milliseconds of the kernels; `None` where they were not timed.
        otherwise: of what runs without them, likewise.
        failure: why there are no results, in a few words.
    """

    operation: str
    dtype: str
    gradients: bool
    what: str
    error: float | None = None
    agreed: bool = False
    kernels: float | None = None
    otherwise: float | None = None
    failure: str | None = None

    @classmethod
    def failed(cls, case: Case, reason: str) -> Finding:
        """What is found where nothing came of a case.

        Args:
            case: the case.
            reason: in a few words.
        """
        name = str(case.dtype).removeprefix("torch.")
        return cls(case.operation, name, case.gradients, case.what, failure=reason)


def far(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest relative distance between results, in the Euclidean norm; infinite where one is no number.

    Args:
        found: of any dtype.
        wanted: as many.
    """
    worst = 0.0
    for mine, theirs in zip(found, wanted, strict=True):
        mine, theirs = mine.detach().double(), theirs.detach().double()
        error = float((mine - theirs).norm() / theirs.norm().clamp_min(1e-12))
        worst = max(worst, error if error == error else float("inf"))
    return worst
