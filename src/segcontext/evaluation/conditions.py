"""What was scored, for the record: which weights, how the network was set, and which data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from segcontext.aggregation import EMA
from segcontext.data import Dataset, Scenes

__all__ = ["Conditions"]


class Conditions(NamedTuple):
    """What scores depend on besides the protocol.

    Attributes:
        data: the data set's folder, absolute; ``demo`` for the drawn scenes.
        weights: the weight file, absolute: of a run its ``weights/best.safetensors`` or ``weights/last.safetensors``;
            `None` where it was not said.
        output_stride: of the backbone; `None` for a network that does not tell.
        iterations: EM iterations in evaluation; `None` without EM.
        precision: ``"32"`` or ``"bf16"``.
        speed: ``"plain"``, ``"folded"`` or ``"compiled"``, see `segcontext.speed.fast_network`.
    """

    data: str | None = None
    weights: str | None = None
    output_stride: int | None = None
    iterations: int | None = None
    precision: str = "32"
    speed: str = "plain"

    @classmethod
    def of(
        cls,
        model: nn.Module,
        dataset: Dataset,
        *,
        weights: str | Path | None,
        precision: str | None,
        speed: str = "plain",
    ) -> Conditions:
        """The conditions of an evaluation.

        Args:
            model: the network.
            dataset: what it is scored on.
            weights: the file it was loaded from, where that is known.
            precision: ``"bf16"``, or ``"32"`` or `None` for 32 bits.
            speed: how it was run.

        Returns:
            What goes into ``scores.json``.
        """
        stride = getattr(getattr(model, "backbone", None), "output_stride", None)
        return cls(
            data="demo" if isinstance(dataset, Scenes) else str(dataset.root.absolute()),
            weights=None if weights is None else str(Path(weights).absolute()),
            output_stride=stride if isinstance(stride, int) else None,
            iterations=next((part.evaluation_iterations for part in model.modules() if isinstance(part, EMA)), None),
            precision=precision or "32",
            speed=speed,
        )
