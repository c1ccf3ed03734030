"""Building the network that a file's tensors are of, and comparing the two tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segcontext.errors import WeightsError
from segcontext.importing.layout import Layout
from segcontext.importing.shapes import Shapes
from segcontext.importing.words import listing, shown
from segcontext.model import Segmenter

__all__ = ["fitted"]

#: The steps that batch norms count. Nothing reads them, and files from before they were counted lack them.
_COUNTER = ".num_batches_tracked"


def fitted(
    layout: Layout, tensors: Mapping[str, Tensor], path: Path, *, align_corners: bool, told: Mapping[str, Any]
) -> tuple[Segmenter, dict[str, Any]]:
    """The network of a file with the file's numbers.

    Args:
        layout: what the file was recognised as.
        tensors: the file's, by their names there.
        path: of the file, for messages.
        align_corners: of the network.
        told: options that the file says, see `segcontext.importing.layout.Told`.

    Returns:
        The network and what `segcontext.build` made it with.

    Raises:
        WeightsError: no such network can be built, or tensors are missing, unexpected, of another shape or kind, or
            hold numbers that are not finite; it names the file and the tensors.
    """
    shapes = Shapes.of(tensors)
    empty = [f"{name} {shape}" for name, shape in shapes.items() if 0 in shape]
    if empty:
        raise WeightsError(f"{path} looks like {layout.title}, but has tensors without numbers:\n  {listing(empty)}")
    try:
        model = layout.build(shapes, align_corners, told)
        options = layout.network_options(shapes, align_corners, told)
    except (ValueError, TypeError, RuntimeError) as error:
        read = [f"{name} {shapes[name]}" for name in shapes.asked]
        widths = f" Its widths are those of\n  {listing(read)}" if read else ""
        reason = shown(str(error).rstrip("."))
        raise WeightsError(
            f"{path} looks like {layout.title}, but no such network can be built: {reason}.{widths}"
        ) from error
    _check(layout, model, tensors, shapes, path)
    _fill(model, layout.to_ours(_numbers(layout, tensors, path)))
    return model, options


def _check(layout: Layout, model: Segmenter, tensors: Mapping[str, Tensor], shapes: Shapes, path: Path) -> None:
    """Compares names, shapes and kinds, by the names of the file, before any number is touched."""
    wanted = layout.to_theirs(model.state_dict())
    per_class = layout.class_names() if layout.classes(shapes) is None else ()

    def expected(name: str) -> str:
        sides = [str(side) for side in wanted[name].shape]
        if name in per_class:
            sides[0] = "classes"
        return f"({', '.join(sides)}{',' if len(sides) == 1 else ''})"

    problems = {
        "missing": [
            f"missing: {name} {expected(name)}" for name in wanted if name not in shapes and not name.endswith(_COUNTER)
        ],
        "unexpected": [f"unexpected: {name} {shape}" for name, shape in shapes.items() if name not in wanted],
        "of another shape": [
            f"shape of {name}: expected {expected(name)}, found {shape}"
            for name, shape in shapes.items()
            if name in wanted and tuple(wanted[name].shape) != shape
        ],
        "of another kind": [
            f"kind of {name}: expected {_kind(wanted[name])}, found {_kind(tensor)}"
            for name, tensor in tensors.items()
            if name in wanted and not _is_kind(tensor, wanted[name])
        ],
    }
    counts = ", ".join(f"{len(lines)} {what}" for what, lines in problems.items() if lines)
    if counts:
        every = [line for lines in problems.values() for line in lines]
        raise WeightsError(f"{path} looks like {layout.title}, but does not fit it ({counts}):\n  {listing(every)}")


def _is_kind(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor's numbers may stand for those of another: floating-point ones of any precision, or counters."""
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return False
    # Scripts that make all of a file's tensors float32 do so to the counters, too.
    return tensor.is_floating_point() or not wanted.is_floating_point()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _numbers(layout: Layout, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors with floats as float32, all of them finite."""
    found, broken = {}, []
    for name, tensor in tensors.items():
        try:
            found[name] = tensor.float() if tensor.is_floating_point() else tensor
        except (RuntimeError, NotImplementedError) as error:
            raise WeightsError(f"{path}: {name} is of a kind that cannot be read: {_kind(tensor)}.") from error
        count = int((~found[name].isfinite()).sum())
        if count:
            broken.append(f"{name}: {count:,} of {tensor.numel():,}")
    if broken:
        raise WeightsError(
            f"{path} looks like {layout.title}, but has numbers that are not finite in float32 (nan or inf):\n  "
            f"{listing(broken)}"
        )
    return found


def _fill(model: Segmenter, tensors: Mapping[str, Tensor]) -> None:
    """Gives a network from the meta device its numbers."""
    model.to_empty(device="cpu")
    missing = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items() if name not in tensors}
    model.load_state_dict({**tensors, **missing})
