"""ResNets in checkpoints: their depth by the blocks that are there, and the names of their stages."""

from __future__ import annotations

import re
from typing import Final

from segcontext.errors import WeightsError
from segcontext.importing.shapes import Shapes

__all__ = ["DEEP", "depth", "stages"]

#: Channels of the deep map of every ResNet with bottlenecks.
DEEP: Final = 2048
#: Blocks of the four stages, by depth.
BLOCKS: Final = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


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
    """50, 101 or 152, whichever has the most similar numbers of blocks.

    Args:
        shapes: the file's tensors.
        theirs: as for `stages`.
        first: as there.

    Raises:
        WeightsError: the blocks are no bottlenecks.
    """
    stages = [_blocks(shapes, f"{theirs}{number + first}.") for number in range(4)]
    if not any("conv3" in layers for stage in stages for layers in stage.values()):
        raise WeightsError(
            f"the ResNet has no bottlenecks ({theirs}{first}.0.conv3.weight is missing); networks on ResNet-50, 101 "
            "and 152 can be imported"
        )

    def distance(deep: int) -> int:
        return sum(abs(len(stage) - count) for stage, count in zip(stages, BLOCKS[deep], strict=True))

    # A block that is missing, or one too many, is found out later, by name.
    return min(BLOCKS, key=distance)


def _blocks(shapes: Shapes, prefix: str) -> dict[str, set[str]]:
    """The layers of each block of a stage, by the block's number."""
    found: dict[str, set[str]] = {}
    for name in shapes:
        matched = re.match(rf"{re.escape(prefix)}(\d+)\.(\w+)\.", name)
        if matched:
            found.setdefault(matched[1], set()).add(matched[2])
    return found
