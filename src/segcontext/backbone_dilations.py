"""Dilations of a ResNet's stages, block by block: output stride, multi-grid, and lists of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from segcontext.errors import RecipeError

__all__ = ["refuse_other_stride", "set_dilations"]


def refuse_other_stride(dilations: Sequence[Sequence[int] | None] | None, made_for: int, output_stride: int) -> None:
    """Refuses dilations given block by block where they would be taken to another output stride.

    Multi-grid multiplies what a stride needs and fits every one, but a list says the dilations themselves. A network
    trained with it would compute something else at another stride, without a word.

    Args:
        dilations: as `Backbone` takes them.
        made_for: the output stride that they were given for.
        output_stride: the output stride that is wanted now.

    Raises:
        RecipeError: where a stage with a list of its own is dilated differently at the two strides.

    Example:
        >>> refuse_other_stride([None, None, [1, 2], None], made_for=32, output_stride=16)
    """
    moved = [
        index + 1
        for index, given in enumerate(dilations or ())
        if given is not None and _own_dilation(index, made_for) != _own_dilation(index, output_stride)
    ]
    if moved:
        raise RecipeError(
            f"the network's dilations were given block by block for output stride {made_for}, and those of stage "
            f"{' and '.join(map(str, moved))} would be wrong at output stride {output_stride}. Keep {made_for} (give "
            "no other output_stride), or build the network anew with dilations meant for the other stride; "
            "multi_grid in place of dilations fits every stride."
        )


def set_dilations(
    net: nn.Module,
    name: str,
    output_stride: int,
    multi_grid: Sequence[int] | None,
    first_block: str,
    dilations: Sequence[Sequence[int] | None] | None,
) -> None:
    """Sets the dilations that timm has no option for; leaves the network alone where none is asked for."""
    if first_block not in ("previous", "same"):
        raise RecipeError(f"first_block must be 'previous' or 'same', not {first_block!r}.")
    if multi_grid is None and first_block == "previous" and dilations is None:
        return
    stages = resnet_stages(net)
    if not stages:
        raise RecipeError(
            f"multi_grid, first_block and dilations need a ResNet's stages; backbone '{name}' has none. "
            "Leave them out, or choose a ResNet."
        )
    if dilations is not None:
        if multi_grid is not None or first_block != "previous":
            raise RecipeError("dilations already says everything: leave out multi_grid and first_block.")
        _set_each(stages, dilations, name, output_stride)
        return
    grid = (1,) if multi_grid is None else _positive("multi_grid", multi_grid)
    if not grid:
        raise RecipeError("multi_grid is empty. Give numbers such as (1, 2, 4), or leave it out.")
    previous = 1
    for index, stage in enumerate(stages):
        dilation = _own_dilation(index, output_stride)
        for place, block in enumerate(stage):
            factor = grid[place % len(grid)] if index == len(stages) - 1 else 1
            keeps_previous = place == 0 and first_block == "previous"
            _dilate(block, (previous if keeps_previous else dilation) * factor, dilation * factor)
        previous = dilation


def _set_each(
    stages: list[list[nn.Module]], dilations: Sequence[Sequence[int] | None], name: str, output_stride: int
) -> None:
    """Sets the dilations given block by block, unless they were plainly meant for another output stride."""
    counts = [len(stage) for stage in stages]
    given = list(dilations) if _is_list(dilations) else []
    fits = [row is None or (_is_list(row) and len(row) == n) for row, n in zip(given, counts, strict=False)]
    if len(given) != len(stages) or not all(fits):
        raise RecipeError(
            f"dilations of '{name}' must be one list per stage, of {counts} numbers (null leaves a stage alone), "
            f"not {given or dilations!r}."
        )
    for number, (stage, row) in enumerate(zip(stages, given, strict=True), start=1):
        if row is None:
            continue
        greatest = max(_positive("dilations", row))
        needed = max(int(conv.dilation[0]) for block in stage for conv in _spatial(block))
        if greatest < needed:
            raise RecipeError(
                f"dilations of '{name}' has at most {greatest} in stage {number}, but output stride {output_stride} "
                f"by itself needs {needed} there: the list was meant for a greater output stride, and belongs to that "
                "one alone. Keep that stride (load_model without output_stride does), give dilations for this one, "
                "null for the stage, or multi_grid instead, which fits every stride."
            )
        for block, dilation in zip(stage, row, strict=True):
            _dilate(block, dilation, dilation)


def _own_dilation(index: int, output_stride: int) -> int:
    """What stage `index`, counted from 0, needs so that it sees as much as it would with its strides."""
    return int(max(1, 2 ** (index + 2) // output_stride))


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _positive(key: str, numbers: Sequence[int]) -> tuple[int, ...]:
    if not _is_list(numbers) or any(type(number) is not int or number < 1 for number in numbers):
        raise RecipeError(
            f"{key} takes whole numbers from 1 up, not {list(numbers) if _is_list(numbers) else numbers}."
        )
    return tuple(numbers)


def resnet_stages(net: nn.Module) -> list[list[nn.Module]]:
    """The blocks of the four stages; none where the network has no blocks with the plain 3×3 convolutions."""
    if not isinstance(net, ResNet):
        return []
    stages = [list(net.get_submodule(f"layer{number}").children()) for number in (1, 2, 3, 4)]
    plain = all(isinstance(block, BasicBlock | Bottleneck) for block in itertools.chain.from_iterable(stages))
    return stages if plain else []


def _spatial(block: Any) -> list[Any]:
    """The 3×3 convolutions on a block's main path: two of a basic block, one of a bottleneck."""
    return [conv for conv in (block.conv1, block.conv2) if conv.kernel_size[0] > 1]


def _dilate(block: Any, first: int, rest: int) -> None:
    """Gives `first` to the block's first 3×3 convolution and a 3×3 shortcut, `rest` to its second."""
    shortcut = [] if block.downsample is None else [m for m in block.downsample if isinstance(m, nn.Conv2d)]
    pairs = [
        *zip(_spatial(block), (first, rest), strict=False),
        *((m, first) for m in shortcut if m.kernel_size[0] > 1),
    ]
    for conv, dilation in pairs:
        conv.dilation = (dilation, dilation)
        padding = dilation * (conv.kernel_size[0] - 1) // 2
        conv.padding = (padding, padding)
