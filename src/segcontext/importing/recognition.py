"""Recognising other people's weight files, and building the networks that they are of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segcontext.data import DATASETS
from segcontext.errors import RecipeError, WeightsError, nearest
from segcontext.importing.known import LAYOUTS
from segcontext.importing.layout import Layout, Shapes, listing
from segcontext.importing.reading import ForeignFile, read_foreign
from segcontext.layers import Normalize
from segcontext.model import Segmenter

__all__ = ["Imported", "import_weights", "load"]

_logger = logging.getLogger(__name__)


class Imported(NamedTuple):
    """A network of others, rebuilt.

    Attributes:
        model: the network, in evaluation mode.
        layout: what it was recognised as.
        options: what `segcontext.build` made it with.
        notes: what was assumed, in sentences.
    """

    model: Segmenter
    layout: Layout
    options: dict[str, Any]
    notes: tuple[str, ...]


def import_weights(file: str | Path, *, align_corners: bool | None = None, dataset: str | None = None) -> Segmenter:
    """Builds the network that somebody else's weight file is of, with its weights; never runs code from the file.

    Recognised by the names and shapes of their tensors: EMANet as its authors save it (ResNet-50, 101, 152), GALDNet v1
    as its authors save it, OpenMMLab's EMANet, PSPNet, DeepLabV3, DeepLabV3+, Non-local and PSANet (ResNet v1c at
    output stride 8), and torchvision's FCN and DeepLabV3. The network computes what the source network computes.

    Args:
        file: a PyTorch file, bare or wrapped as training scripts do, or a safetensors file.
        align_corners: of OpenMMLab's networks, whose tensors do not tell: True for the configurations of 769×769
            pixels, False for all others. `None` takes what the file or its name says, and False where neither does.
        dataset: the data set that names the classes, such as ``"voc"`` or ``"cityscapes"``; `None` takes what the file
            says, which only OpenMMLab's do.

    Returns:
        The network in evaluation mode. It takes RGB images, uint8 or in [0, 1], whatever the source network took.

    Raises:
        WeightsError: the file is missing, damaged or holds anything but tensors and plain containers, is of no known
            network, or has tensors missing, unexpected or of another shape; they are listed by name and shape.
        RecipeError: `align_corners` contradicts the network, or the data set is unknown or has other classes.

    Note:
        How many EM iterations a network had is not in a file: three are built, as the published settings say.

    Example:
        >>> # model = segcontext.import_weights("EMANet_r101.pth", dataset="voc")
        >>> # model(images).logits
    """
    found = load(file, align_corners=align_corners, dataset=dataset)
    for note in found.notes:
        _logger.warning("%s: %s", file, note)
    return found.model


def load(file: str | Path, *, align_corners: bool | None = None, dataset: str | None = None) -> Imported:
    """`import_weights`, with what was recognised and assumed."""
    path = Path(file)
    foreign = read_foreign(path)
    layout = _recognise(foreign, path)
    aligned, notes = _aligned(layout, foreign, path, align_corners)
    shapes = Shapes.of(foreign.tensors)
    model = layout.build(shapes, aligned)
    _check_fit(layout, model, shapes, path)
    _fill(model, layout.to_ours(foreign.tensors))
    options = layout.network_options(shapes, aligned)
    model.normalize = Normalize(layout.mean, layout.std, bgr=layout.bgr)
    model.padding = layout.padding
    _name_classes(model, foreign.facts, dataset)
    return Imported(model.eval(), layout, options, notes)


def _recognise(foreign: ForeignFile, path: Path) -> Layout:
    for layout in LAYOUTS.values():
        if all(mark in foreign.tensors for mark in layout.marks):
            return layout
    known = "\n  ".join(f"{layout.name}: {layout.title}" for layout in LAYOUTS.values())
    there = listing((f"{name} {tuple(tensor.shape)}" for name, tensor in foreign.tensors.items()), 6)
    raise WeightsError(
        f"{path} is of no network that is known. Known are\n  {known}\nThe file's {len(foreign.tensors)} tensors begin "
        f"with\n  {there}\nA backbone's weights alone go into the recipe's key 'weights'."
    )


def _aligned(layout: Layout, foreign: ForeignFile, path: Path, asked: bool | None) -> tuple[bool, tuple[str, ...]]:
    """Whether corners are aligned, and what was assumed for it."""
    told = layout.told(foreign.facts, path.name)
    if told.problem:
        raise WeightsError(f"{path} is {layout.title}, but {told.problem}.")
    if layout.align_corners is not None:
        if asked not in (None, layout.align_corners):
            raise RecipeError(
                f"{path} is {layout.title}, which upsamples with align_corners={layout.align_corners}: leave it out."
            )
        return layout.align_corners, ()
    if asked is not None:
        return asked, ()
    if told.align_corners is not None:
        return told.align_corners, ()
    return False, (
        "neither the file nor its name says whether corners are aligned in upsampling. They are taken for unaligned, "
        "as in all of OpenMMLab's configurations but those of 769×769 pixels; for these set align_corners=True.",
    )


def _check_fit(layout: Layout, model: Segmenter, shapes: Shapes, path: Path) -> None:
    """Compares the file's tensors with those that such a network has, by the names of the file."""
    wanted = Shapes.of(layout.to_theirs(model.state_dict()))
    # Files from before batch norm counted its steps lack the counters, and nothing reads them.
    missing = [name for name in wanted if name not in shapes and not name.endswith(".num_batches_tracked")]
    problems = [f"missing: {name} {wanted[name]}" for name in missing]
    problems += [f"unexpected: {name} {shapes[name]}" for name in shapes if name not in wanted]
    problems += [
        f"shape of {name}: expected {wanted[name]}, found {shape}"
        for name, shape in shapes.items()
        if wanted.get(name, shape) != shape
    ]
    if problems:
        raise WeightsError(f"{path} looks like {layout.title}, but does not fit it:\n  {listing(problems)}")


def _fill(model: Segmenter, tensors: Mapping[str, Tensor]) -> None:
    """Gives a network from the meta device its numbers."""
    model.to_empty(device="cpu")
    missing = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items() if name not in tensors}
    model.load_state_dict({**tensors, **missing})


def _name_classes(model: Segmenter, facts: Mapping[str, Any], dataset: str | None) -> None:
    if dataset is not None:
        named = {kind.name: kind for kind in DATASETS if isinstance(getattr(kind, "classes", None), tuple)}
        if dataset not in named:
            raise RecipeError(
                f"No data set '{dataset}' names classes.{nearest(dataset, named)} Known: {', '.join(named)}."
            )
        kind = named[dataset]
        if len(kind.classes) != model.num_classes:
            raise RecipeError(
                f"The file's network has {model.num_classes} classes, but {dataset} has {len(kind.classes)}: name the "
                "data set that it was trained on, or none."
            )
        model.classes, model.palette = tuple(kind.classes), tuple(kind.palette)
        return
    said = facts.get("dataset_meta") if isinstance(facts.get("dataset_meta"), Mapping) else {}
    assert isinstance(said, Mapping)
    classes = said.get("classes", facts.get("CLASSES"))
    palette = said.get("palette", facts.get("PALETTE"))
    if _is_list(classes, model.num_classes) and all(isinstance(name, str) for name in classes):
        model.classes = tuple(name.strip() for name in classes)
    if _is_list(palette, model.num_classes) and all(_is_list(each, 3) for each in palette):
        model.palette = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length
