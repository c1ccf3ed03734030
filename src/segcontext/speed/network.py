"""A copy of a network that predicts faster."""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from segcontext.aggregation import EMA
from segcontext.errors import RecipeError, nearest
from segcontext.speed.folding import fold_batch_norms
from segcontext.speed.processor import compiler_missing, first_line, has_bf16
from segcontext.speed.winograd import use_winograd
from segcontext.types import Output

__all__ = ["FastNetwork", "Precision", "Speed", "check_speed", "fast_network"]

#: ``"plain"``: the network as it is. ``"folded"``: batch norms folded, channels-last, bfloat16 where the processor
#: multiplies it, with PyTorch's own kernels. ``"compiled"``: the same through `torch.compile`.
Speed: TypeAlias = Literal["plain", "folded", "compiled"]

Precision: TypeAlias = Literal["32", "bf16"]

#: So many sizes of images are compiled, each by itself; further ones run uncompiled.
SIZES = 8

_logger = logging.getLogger(__name__)


class FastNetwork(nn.Module):
    """Predicts as the network that it was made from, by `fast_network`; for evaluation alone.

    Attributes:
        network: the rearranged copy.
        precision: ``"32"`` or ``"bf16"``.
        compiles: whether sizes of images that come again are compiled.
        sizes: shapes of the images that were compiled so far, with the seconds it took.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: Precision,
        compiles: bool,
        tell: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.network = network
        self.precision: Precision = precision
        self.compiles = compiles
        self.sizes: dict[tuple[Any, ...], float] = {}
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._tell = tell
        self._kernels: Callable[[Tensor], Output] | None = None

    def __getattr__(self, name: str) -> Any:
        """What the copy knows: its classes, palette, backbone, ..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def forward(self, images: Tensor, *, evidence: bool = False, auxiliary: bool = False) -> Output:
        """Segments images, without gradients.

        Args:
            images: (B, 3, H, W), uint8 or floats in [0, 1].
            evidence: as for the network; asked for it, or for `auxiliary`, the copy runs uncompiled.
            auxiliary: as for the network.

        Returns:
            The network's output.
        """
        more = {name: True for name, asked in (("evidence", evidence), ("auxiliary", auxiliary)) if asked}
        device = images.device.type
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(device, dtype=torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            # Tensors of the inference mode could not be used by graphs of any other.
            images = images.clone() if images.is_inference() else images
            images = images.contiguous(memory_format=torch.channels_last)
            if not more and self._is_compiled_now(images):
                return self._compiled(images)
            output: Output = self.network(images, **more)
            return output

    def _is_compiled_now(self, images: Tensor) -> bool:
        """Compiling takes longer than a few images, so the first of a size does not wait for it, and only a few do."""
        if not self.compiles or any(isinstance(part, EMA) and part.is_holding for part in self.network.modules()):
            return False
        size = (*images.shape, images.dtype)
        self._seen[size] += 1
        if size in self.sizes or self._seen[size] < 2:
            return size in self.sizes
        if len(self.sizes) < SIZES:
            return True
        if self._seen[size] == 2:
            _logger.warning(
                "The network has been compiled for %d sizes of images already, so images of %d×%d run uncompiled.",
                SIZES,
                *images.shape[-2:],
            )
        return False

    def _compiled(self, images: Tensor) -> Output:
        size = (*images.shape, images.dtype)
        new, started = size not in self.sizes, time.perf_counter()
        if new:
            self._tell(f"Compiling the network for images of {images.shape[-2]}×{images.shape[-1]} …")
        try:
            if self._kernels is None:
                # On GPUs the launches of a pass become one.
                graphs: dict[str, Any] = {"triton.cudagraphs": True} if images.device.type == "cuda" else {}
                self._kernels = torch.compile(self.network, dynamic=False, options=graphs)
            # Constants are laid out for the kernels once, and kernels joined; as an option the compiler ignores it.
            with torch._inductor.config.patch(freezing=images.device.type == "cpu"):
                output = self._kernels(images)
        except torch.OutOfMemoryError:
            raise
        # What goes wrong inside a compiler has no common class, and the network itself has run before.
        except Exception as error:
            if not new:
                raise
            self.compiles = False
            _logger.warning("The network runs uncompiled: the compiler failed (%s).", first_line(error))
            plain: Output = self.network(images)
            return plain
        if new:
            self.sizes[size] = time.perf_counter() - started
            self._tell(f"Compiled for images of {images.shape[-2]}×{images.shape[-1]} in {self.sizes[size]:.0f} s")
        if images.device.type == "cuda":
            # The next pass writes where this one's answer lies.
            output = output._replace(features_logits=output.features_logits.clone())
        return output


def fast_network(
    model: nn.Module,
    *,
    speed: Speed = "compiled",
    precision: Precision | None = None,
    tell: Callable[[str], None] = _logger.info,
) -> FastNetwork:
    """A copy of a network that predicts faster; the network itself stays as it is.

    Batch norms are folded into convolutions, maps are stored channels-last, convolutions and matrix products run in
    bfloat16 where the processor multiplies it, except the classifier's. Sizes of images that come a second time are
    compiled, `SIZES` of them at most. Where there is no compiler, or it fails, the copy runs uncompiled and logs it.

    Args:
        model: a `Segmenter`, or any module images → `Output`. Later changes of its weights do not reach the copy.
        speed: ``"folded"`` or ``"compiled"``.
        precision: ``"32"`` or ``"bf16"``; `None` takes bfloat16 where the processor has it.
        tell: is told when a compilation begins and how long it took.

    Returns:
        The copy, on the model's device, in evaluation mode, without gradients.

    Raises:
        RecipeError: there is no such speed or precision.
    """
    check_speed(speed, precision)
    if speed == "plain":
        raise RecipeError("A fast network is 'folded' or 'compiled'; 'plain' is the network itself.")
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    with torch.inference_mode(False), torch.no_grad():
        network = copy.deepcopy(model).eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter.grad = None
        try:
            fold_batch_norms(network, torch.zeros(1, 3, 65, 65, device=device))
        # Networks of others refuse such images in their own ways.
        except Exception as error:
            _logger.debug("no batch norm was folded: the network does not take images of 65×65 (%s)", first_line(error))
        network = network.to(memory_format=torch.channels_last)
        chosen = precision or ("bf16" if has_bf16(device) else "32")
        classifier = getattr(network, "classifier", None)
        if chosen == "bf16" and device.type == "cpu":
            use_winograd(network)
        if chosen == "bf16" and isinstance(classifier, nn.Conv2d):
            network.classifier = _Wide(classifier)
    missing = compiler_missing(device) if speed == "compiled" else None
    if missing:
        _logger.warning("The network runs uncompiled: %s.", missing)
    return FastNetwork(network, precision=chosen, compiles=speed == "compiled" and missing is None, tell=tell)


def check_speed(speed: str, precision: str | None) -> None:
    """Refuses what is no speed or no precision.

    Args:
        speed: one of `Speed`.
        precision: one of `Precision`, or `None`.

    Raises:
        RecipeError: it is not.
    """
    if speed not in get_args(Speed):
        raise RecipeError(
            f"The speed is one of {', '.join(get_args(Speed))}, not {speed!r}.{nearest(str(speed), get_args(Speed))}"
        )
    if precision is not None and precision not in get_args(Precision):
        raise RecipeError(f"The precision is None, '32' or 'bf16'; got precision={precision!r}.")


class _Wide(nn.Module):
    """A layer in float32 whatever is around it: rounded to bfloat16, logits of two classes are often equal."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide: Tensor = self.layer(x.float())
            return wide
