"""The cost of a network at an input size, part by part."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _NormBase

from segcontext.costs.activations import LiveMemory, SavedMemory
from segcontext.costs.counter import OperationCounter
from segcontext.costs.scopes import Scopes, parts_of
from segcontext.costs.stand_in import without_numbers
from segcontext.costs.timing import latency
from segcontext.errors import ShapeError
from segcontext.types import Output

__all__ = ["CONVENTION", "Cost", "PartCost", "cost"]

_logger = logging.getLogger(__name__)

#: How the numbers are counted, in words for whoever reads them.
CONVENTION = (
    "One multiply-add is one multiplication with its addition, in a convolution or a matrix product; "
    "'with small' adds 1 per element for elementwise operations and sums, 2 for batch norm, 5 for softmax, "
    "4 for bilinear interpolation, the window for pooling. Buffers are the bases, not batch norms' statistics. "
    "Training memory is what is kept for the backward pass, inference memory the peak of what is alive, both without "
    "weights and input."
)


@dataclass(frozen=True)
class PartCost:
    """The cost of one part of a network, or of the whole.

    Attributes:
        part: its name.
        parameters: trained or frozen alike.
        buffers: elements kept beside the parameters that say something of their own, such as EMA's bases; statistics
            of batch norms and what is not saved (means of the input) do not count.
        multiply_adds: of convolutions and matrix products, in one forward pass in evaluation mode.
        with_small: those, and all small operations.
        training_memory: bytes of activations that one forward pass in training mode keeps for the backward pass.
        inference_memory: most bytes of activations alive at once while the part runs.
        latency: seconds; `None` where it was not measured.
        operations: by kind.
        unlisted: operations that no rule knows, which counted 1 per element of their result.
    """

    part: str
    parameters: int = 0
    buffers: int = 0
    multiply_adds: int = 0
    with_small: int = 0
    training_memory: int = 0
    inference_memory: int = 0
    latency: float | None = None
    operations: Mapping[str, int] = field(default_factory=dict)
    unlisted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What `cost` returns.

    Attributes:
        size: (H, W) of the images.
        batch: number of images.
        parts: in the order in which they run; those that cost nothing are left out.
        total: the whole network. Its inference memory is the peak, so the parts' do not add up to it.
        device: what the latency was measured on; `None` where it was not.
        classes: of the network; `None` where it does not say.
    """

    size: tuple[int, int]
    batch: int
    parts: tuple[PartCost, ...]
    total: PartCost
    device: str | None = None
    classes: int | None = None

    @property
    def unlisted(self) -> tuple[str, ...]:
        """Operations of the whole network that no rule knows."""
        return self.total.unlisted

    def part(self, name: str) -> PartCost:
        """The cost of one part; zeros for a part that the network does not have."""
        return next((each for each in self.parts if each.part == name), PartCost(name))

    def rows(self) -> list[dict[str, Any]]:
        """Every part and the whole as plain values, for tables and JSON."""
        shown = []
        for each in (*self.parts, self.total):
            row = {key: value for key, value in vars(each).items() if key not in ("operations", "unlisted")}
            row["parameters_with_buffers"] = each.parameters + each.buffers
            row |= {"operations": dict(each.operations), "unlisted": list(each.unlisted)}
            shown.append({**row, "classes": self.classes, "convention": CONVENTION})
        return shown


def cost(
    model: nn.Module,
    size: int | tuple[int, int],
    *,
    batch: int = 1,
    timed: bool = False,
    rounds: int = 10,
    warmup: int = 3,
) -> Cost:
    """Counts parameters, multiply-adds and memory of a network at an input size, per part.

    A copy without numbers is run, so even a 1024×2048 image through a ResNet-101 takes a second or two and hardly any
    memory, and the network itself is left as it is. Only a latency needs real numbers.

    Args:
        model: a `Segmenter`, or any module that takes (B, 3, H, W); then its children are its parts.
        size: (H, W) of the images in pixels, or one side of a square.
        batch: number of images; multiply-adds and memory are for all of them.
        timed: whether latency is measured too, on the network's own device.
        rounds: how often it is timed.
        warmup: runs before that are not timed.

    Returns:
        The cost.

    Raises:
        ShapeError: for a size or batch below 1.
        RecipeError: for a latency of a network without numbers, or no rounds.

    Note:
        A network that cannot run without numbers, because what it does depends on them, is copied and run with them.
        The auxiliary head runs in training alone: it has parameters and training memory, but no multiply-adds here.
        Training memory is of one forward pass in 32-bit unless the network has other weights; the loss is not in it.

    Example:
        >>> from segcontext.zoo import emanet
        >>> model = emanet(11, backbone="resnet18", pretrained=False, project_channels=None)
        >>> found = cost(model, (65, 65))
        >>> found.part("aggregation").buffers
        32768
        >>> found.part("classifier").multiply_adds == 512 * 11 * 9 * 9
        True
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width, batch) < 1:
        raise ShapeError(f"Expected a size (H, W) and a batch of at least 1, not ({height}, {width}) and {batch}.")
    dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    shape = (batch, 3, height, width)
    # Modes of the caller's, such as inference mode, would keep the graph from being built.
    try:
        with torch.inference_mode(False), FakeTensorMode() as mode:
            counted = _count(without_numbers(model, mode), torch.empty(shape, dtype=dtype))
    except RuntimeError as error:
        # Shapes that do not fit fail here again, with the message of the real run.
        _logger.debug("the network does not run without numbers: %s", error)
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        # Dropout draws numbers; the caller's random state stays as it is.
        with torch.inference_mode(False), torch.random.fork_rng([device] if device.type == "cuda" else []):
            counted = _count(copy.deepcopy(model), torch.zeros(shape, dtype=dtype, device=device))
    whole: float | None = None
    seconds: Mapping[str, float] = {}
    own = None
    if timed:
        own = next((each.device for each in model.parameters()), torch.device("cpu"))
        images = torch.zeros(shape, dtype=dtype, device=own)
        whole, seconds = latency(model, images, rounds=rounds, warmup=warmup)
    parts = _parts(model, counted, seconds)
    total = PartCost(
        "total",
        *_sizes(model),
        multiply_adds=counted.operations.products.total(),
        with_small=sum(kinds.total() for kinds in counted.operations.operations.values()),
        training_memory=counted.saved.total(),
        inference_memory=max(counted.peak.values(), default=0),
        latency=whole,
        operations=dict(sum(counted.operations.operations.values(), Counter())),
        unlisted=tuple(sorted(set().union(*counted.operations.unlisted.values()))),
    )
    classes = getattr(model, "num_classes", None)
    return Cost((height, width), batch, parts, total, None if own is None else str(own), classes)


@dataclass(frozen=True)
class _Counted:
    """What the runs of a copy have shown, by part."""

    operations: OperationCounter
    saved: Counter[str]
    peak: Counter[str]
    order: tuple[str, ...]


def _count(twin: nn.Module, images: Tensor) -> _Counted:
    """Runs a copy once as in inference and once as in training."""
    parts = parts_of(twin)
    scopes = Scopes(parts)
    counter = OperationCounter(lambda: scopes.current)
    live = LiveMemory((*twin.parameters(), *twin.buffers(), images), lambda: scopes.current)
    with scopes:
        with torch.no_grad(), live, counter:
            _forward(twin.eval(), images, scopes)
        with torch.enable_grad(), SavedMemory(twin, lambda: scopes.current) as saved:
            _forward(twin.train(), images, scopes)
    return _Counted(counter, saved.bytes, live.peak, tuple(parts))


def _forward(model: nn.Module, images: Tensor, scopes: Scopes) -> None:
    trains = model.training and getattr(model, "auxiliary", None) is not None
    output = model(images, auxiliary=True) if trains else model(images)
    if isinstance(output, Output):
        with scopes.inside("upsampling"):
            _ = output.logits


def _parts(model: nn.Module, counted: _Counted, seconds: Mapping[str, float]) -> tuple[PartCost, ...]:
    modules = parts_of(model)
    names = [*counted.order, *("upsampling", "between")]
    found = []
    for name in names:
        kinds = counted.operations.operations.get(name, Counter())
        each = PartCost(
            name,
            *(_sizes(modules[name]) if name in modules else (0, 0)),
            multiply_adds=counted.operations.products[name],
            with_small=kinds.total(),
            training_memory=counted.saved[name],
            inference_memory=counted.peak[name],
            latency=seconds.get(name),
            operations=dict(kinds),
            unlisted=tuple(sorted(counted.operations.unlisted.get(name, ()))),
        )
        if each.parameters or each.with_small or each.training_memory or each.buffers:
            found.append(each)
    return tuple(found)


def _sizes(module: nn.Module) -> tuple[int, int]:
    """Parameters, and the elements of saved buffers that are no statistics."""
    buffers = 0
    for each in module.modules():
        if not isinstance(each, _NormBase):
            unsaved = each._non_persistent_buffers_set
            buffers += sum(tensor.numel() for name, tensor in each.named_buffers(recurse=False) if name not in unsaved)
    return sum(parameter.numel() for parameter in module.parameters()), buffers
