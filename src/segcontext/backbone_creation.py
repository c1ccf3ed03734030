"""The timm network behind a backbone: created with the stride and image sizes wanted, as far as its family has them."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any, Final

import timm

from segcontext.errors import RecipeError

__all__ = ["create", "pick"]

# What timm's families take to accept images of any size, most faithful first; the last is for those that cannot.
_ANY_SIZE: Final[tuple[dict[str, Any], ...]] = (
    {"strict_img_size": False, "always_partition": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)

# What the backbone sets itself, and whatever has timm read files, which it does not do as safely for all of them.
_RESERVED: Final = frozenset(
    {
        *("pretrained", "output_stride", "features_only", "in_chans", "num_classes", "scriptable", "exportable"),
        *("checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict"),
    }
)


def create(name: str, output_stride: int, options: dict[str, Any]) -> tuple[Any, tuple[int, int] | None]:
    """Asks timm for a network that takes images of any size and the output stride, as far as it can.

    Args:
        name: a timm model, with or without the tag of its weights.
        output_stride: 8, 16 or 32.
        options: further options of the timm model.

    Returns:
        The untrained network, and the one image size (height, width) it takes where it takes no other.

    Raises:
        RecipeError: no such model, stride or option.
    """
    if output_stride not in (8, 16, 32):
        raise RecipeError(f"output_stride must be 8, 16 or 32, not {output_stride!r}.")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.5)
        hint = f" The nearest names are: {', '.join(near)}." if near else ""
        raise RecipeError(f"backbone '{name}' is not a timm model.{hint} timm.list_models() lists all of them.")
    try:
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise RecipeError(f"timm has no backbone '{name}': {error} Leave the part after the dot out.") from error
    fixed_size: Any = cfg.input_size[-2:] if cfg is not None and cfg.fixed_input_size else None
    strides: list[dict[str, Any]] = [{}]
    if output_stride != 32:
        # timm's MobileNetV3 takes an output stride in its feature form alone.
        strides = [{"output_stride": output_stride}, {"output_stride": output_stride, "features_only": True}, {}]
    reserved = sorted(_RESERVED & set(options))
    if reserved:
        raise RecipeError(
            f"timm_options must not set {', '.join(reserved)}: the backbone sets that itself, from its own options, "
            "and reads weights from the file in `weights` alone."
        )
    refusal: Exception | None = None
    for stride, size in itertools.product(strides, _ANY_SIZE if fixed_size else ({},)):
        try:
            net = timm.create_model(name, pretrained=False, **options, **stride, **size)
        except (TypeError, AssertionError, NotImplementedError) as error:
            # timm has no list of the options that a family takes; one it does not know is refused at once.
            refusal = error
            continue
        if "features_only" not in stride and not hasattr(net, "prune_intermediate_layers"):
            raise RecipeError(f"backbone '{name}' gives no feature maps in timm {timm.__version__}. Choose another.")
        return net, None if size else fixed_size
    given = f" with the timm_options {options}" if options else ""
    raise RecipeError(f"timm cannot build backbone '{name}'{given}: {refusal}") from refusal


def pick(reductions: Sequence[int], low_stride: int) -> tuple[int, int, int]:
    """Chooses the three maps that the parts work on.

    Args:
        reductions: the stride of each of the network's maps, in order.
        low_stride: the stride wanted of the low map.

    Returns:
        The indices of the low, auxiliary and deep map.
    """
    last = len(reductions) - 1
    if len(set(reductions)) == 1:
        return max(0, len(reductions) // 4 - 1), max(0, 3 * len(reductions) // 4 - 1), last
    finest = min((stride for stride in reductions if stride >= low_stride), default=reductions[last])
    return reductions.index(finest), max(0, last - 1), last
