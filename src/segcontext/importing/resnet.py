"""ResNets in checkpoints: their depth by the blocks that are there, and the names of their stages."""

from __future__ import annotations

import re
from typing import Final

from segcontext.errors import WeightsError
from segcontext.importing.layout import Shapes

__all__ = ["DEEP", "depth", "stages"]

#: Channels of the deep map of every ResNet with bottlenecks.
DEEP: Final = 2048


def stages(theirs: str, first: int = 1) -> tuple[tuple[str, str], ...]:
    """The moves of the four stages.

    Args:
        theirs: what stands before the stage's number there, such as ``"backbone.layer"``.
        first: the first stage's number there.

    Returns:
        Beginnings of names, theirs and ours.

    Example:
        >>> stages("extractor.", 4)[3]
        ('extractor.7.', 'backbone.net.layer4.')
    """
    return tuple((f"{theirs}{number + first}.", f"backbone.net.layer{number + 1}.") for number in range(4))


def depth(shapes: Shapes, theirs: str, first: int = 1) -> int:
    """50, 101 or 152, by the number of blocks.

    Args:
        shapes: the file's tensors.
        theirs: as for `stages`.
        first: as there.

    Raises:
        WeightsError: the blocks are no bottlenecks.
    """
    if f"{theirs}{first}.0.conv3.weight" not in shapes:
        raise WeightsError(
            f"The file's ResNet has no bottlenecks ({theirs}{first}.0.conv3.weight is missing). Networks on ResNet-50, "
            "101 and 152 can be imported."
        )
    counts = [_blocks(shapes, f"{theirs}{number + first}.") for number in range(4)]
    # A block that is missing is found out later, by name.
    if counts[1] > 4:
        return 152
    return 101 if counts[2] > 6 else 50


def _blocks(shapes: Shapes, prefix: str) -> int:
    numbers = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in shapes)
    return max((int(number[1]) + 1 for number in numbers if number), default=0)
