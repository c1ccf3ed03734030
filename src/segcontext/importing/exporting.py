"""Writing a network of ours in somebody else's layout."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segcontext.errors import OutputExists, RecipeError, SegContextError, WeightsError
from segcontext.files import atomic_path
from segcontext.importing.known import layout_named
from segcontext.importing.layout import Layout, Told
from segcontext.importing.shapes import Shapes
from segcontext.importing.words import listing
from segcontext.layers import Normalize
from segcontext.model import Segmenter

__all__ = ["export_weights", "write_weights"]

_logger = logging.getLogger(__name__)

#: Attributes of modules that say nothing about what a trained network computes.
_IDLE: Final = frozenset(
    {"training", "name", "momentum", "p", "inplace", "upkeep", "gradient", "unit_update", "iterations", "padding_mode"}
    | {"num_classes", "classes", "palette", "options", "output_padding", "transposed", "track_running_stats"}
)


def export_weights(model: Segmenter, file: str | Path, *, layout: str, overwrite: bool = False) -> tuple[str, ...]:
    """Writes a network's weights as another code base names and orders them.

    Args:
        model: the network; its tensors must all have a place there.
        file: where to: ``.pth`` or ``.pt``, wrapped as that code base does it, or ``.safetensors``.
        layout: the name of a layout, such as ``"emanet"`` or ``"gald"``; see `segcontext.importing.LAYOUTS`.
        overwrite: whether a file that is there may be replaced.

    Returns:
        What is different there, in words: settings with which that code base's network computes something else with
        the same weights, tensors that its code cannot read, and settings that the file has no place for. They are
        logged, too. None for a network that was imported from there, or built likewise, and written as a PyTorch file.

    Raises:
        RecipeError: for an unknown layout or ending.
        OutputExists: the file is there and `overwrite` is False.
        WeightsError: the network has tensors that have no place there, or lacks some; they are listed.

    Note:
        Biases that only the other network has are written as zeros, with which it computes the same.

    Example:
        >>> # segcontext.export_weights(segcontext.load_model("runs/first"), "emanet.pth", layout="emanet")
    """
    differing = write_weights(model, file, layout=layout, overwrite=overwrite)
    for line in differing:
        _logger.warning("the code that %s is for has another network: %s", file, line)
    return differing


def write_weights(model: Segmenter, file: str | Path, *, layout: str, overwrite: bool = False) -> tuple[str, ...]:
    """`export_weights` without a word in the log."""
    path, target = Path(file), layout_named(layout)
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise RecipeError(f"{path} must end in .pth, .pt or .safetensors, which says how it is written.")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} is already there: choose another name, or allow overwriting it (--overwrite).")
    theirs = target.to_theirs(model.state_dict())
    wrapped = None if path.suffix == ".safetensors" else target.wrap({}, model)
    facts = wrapped.get("meta") if isinstance(wrapped, Mapping) else None
    told = target.told(facts if isinstance(facts, Mapping) else {}, path.name)
    aligned = model.align_corners if target.align_corners is None else target.align_corners
    shapes = Shapes.of(theirs)
    try:
        reference = target.build(shapes, aligned, told.options)
    except SegContextError as error:
        raise WeightsError(f"The network is no {target.title}: {str(error).rstrip('.')}.") from error
    options = target.network_options(shapes, aligned, told.options)
    wanted = target.to_theirs(reference.state_dict())
    for name, tensor in wanted.items():
        if name not in theirs and name.endswith(".bias"):
            theirs[name] = torch.zeros(tensor.shape)
    problems = [f"missing: {name} {tuple(wanted[name].shape)}" for name in wanted if name not in theirs]
    problems += [f"unexpected: {name} {tuple(theirs[name].shape)}" for name in theirs if name not in wanted]
    problems += [
        f"shape of {name}: {tuple(theirs[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in theirs and theirs[name].shape != wanted[name].shape
    ]
    if problems:
        raise WeightsError(f"The network is no {target.title}:\n  {listing(problems)}")
    reference.normalize = Normalize(options["mean"], options["std"], bgr=options["bgr"])
    # How images are padded is a matter of evaluation and not of the network.
    reference.padding = model.padding
    differing = (*_unreadable(target, shapes), *_untold(target, told, model, path), *_differences(model, reference))
    ordered = {name: theirs[name].detach().cpu().contiguous().clone() for name in wanted}
    with atomic_path(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(ordered, temporary)
        else:
            torch.save(target.wrap(ordered, model), temporary)
    return differing


def _unreadable(target: Layout, shapes: Shapes) -> tuple[str, ...]:
    """The tensors with which that code base cannot read the file, whatever its own settings."""
    lines = [
        f"its code cannot read the file: {name} has shape {shapes[name]}, there always {shape}"
        for name, shape in target.fixed.items()
        if shapes.get(name, shape) != shape
    ]
    lines += [
        f"its code cannot read the file: {name} {target.fixed[name]} is missing"
        for name in target.required
        if name not in shapes
    ]
    return tuple(lines)


def _untold(target: Layout, told: Told, model: Segmenter, path: Path) -> tuple[str, ...]:
    """What the file does not say, or says so that it cannot be imported again."""
    lines = []
    if target.align_corners is None and bool(told.align_corners) != model.align_corners:
        lines.append(
            f"align_corners is {model.align_corners}, for which a {path.suffix} file has no place: whoever reads it "
            "has to say so"
        )
    if told.problem:
        lines.append(f"segcontext does not import the file again, since {told.problem}")
    return tuple(lines)


def _differences(model: nn.Module, reference: nn.Module) -> tuple[str, ...]:
    """The settings in which two networks with the same tensors differ."""
    there = dict(reference.named_modules())
    lines = []
    for name, module in model.named_modules():
        other = there.get(name)
        if other is None:
            continue
        settings, wanted = _settings(module), _settings(other)
        lines += [
            f"{name or 'the network'}: {key} is {value}, there {wanted[key]}"
            for key, value in settings.items()
            if key in wanted and wanted[key] != value
        ]
    return tuple(lines)


def _settings(module: nn.Module) -> dict[str, Any]:
    """The plain public attributes of a module, and the statistics that images are normalised by."""
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _IDLE and isinstance(value, bool | int | float | str | tuple | list)
    }
    if isinstance(module, Normalize):
        plain |= {"mean": _rounded(module.mean), "std": _rounded(module.std)}
    return plain


def _rounded(tensor: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in tensor.flatten().tolist())
