"""Recognising other people's weight files, and building the networks that they are of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from segcontext.data import DATASETS
from segcontext.errors import RecipeError, WeightsError, nearest
from segcontext.importing.fitting import fitted
from segcontext.importing.known import LAYOUTS
from segcontext.importing.layout import Layout, Told
from segcontext.importing.reading import read_foreign
from segcontext.importing.shapes import Shapes
from segcontext.importing.words import listing, shown
from segcontext.layers import Normalize
from segcontext.model import Segmenter

__all__ = ["Imported", "import_weights", "load", "recognise"]

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
            network, says of itself what cannot be rebuilt, or has tensors missing, unexpected, of another shape or
            kind, or with numbers that are not finite; they are listed by name.
        RecipeError: `align_corners` contradicts the network, or the data set is unknown or has other classes.

    Note:
        What neither tensors nor OpenMMLab's configuration in the file say is taken as published: three EM iterations,
            rates of 12, 24 and 36, images normalised as for ImageNet.

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
    layout = recognise(foreign.tensors, path)
    told = layout.told(foreign.facts, path.name)
    aligned, notes = _aligned(layout, told, path, align_corners)
    model, options = fitted(layout, foreign.tensors, path, align_corners=aligned, told=told.options)
    model.normalize = Normalize(options["mean"], options["std"], bgr=options["bgr"])
    model.padding = layout.padding
    _name_classes(model, foreign.facts, dataset)
    return Imported(model.eval(), layout, options, told.notes + notes)


def recognise(tensors: Mapping[str, Tensor], path: Path) -> Layout:
    """The layout that tensors are in.

    Args:
        tensors: by their names in the file.
        path: of the file, for the message.

    Returns:
        The layout all of whose marks are there. A mark itself may be what is missing: then the layout of those that the
        tensors resemble whose names differ least.

    Raises:
        WeightsError: they are in none that is known.
    """
    for layout in LAYOUTS.values():
        if all(mark in tensors for mark in layout.marks):
            return layout
    alike = [layout for layout in LAYOUTS.values() if layout.resembles(tensors)]
    if alike:
        shapes = Shapes.of(tensors)
        return min(alike, key=lambda layout: layout.strangers(shapes))
    known = "\n  ".join(f"{layout.name}: {layout.title}" for layout in LAYOUTS.values())
    there = listing((f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()), 6)
    raise WeightsError(
        f"{path} is of no network that is known. Known are\n  {known}\nThe file's {len(tensors)} tensors begin "
        f"with\n  {there}\nA backbone's weights alone go into the recipe's key 'weights'."
    )


def _aligned(layout: Layout, told: Told, path: Path, asked: bool | None) -> tuple[bool, tuple[str, ...]]:
    """Whether corners are aligned, and what was assumed for it."""
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
        model.classes = tuple(shown(name.strip()) for name in classes)
    if _is_list(palette, model.num_classes) and all(_is_list(each, 3) and all(map(_is_byte, each)) for each in palette):
        model.palette = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def _is_byte(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 255
