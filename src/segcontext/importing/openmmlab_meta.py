"""What an OpenMMLab checkpoint says of itself besides its tensors, read and written.

Source: open-mmlab/mmsegmentation on GitHub (configs/_base_/models and mmseg/models: settings, and their defaults), for
the facts; the code is ours.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from segcontext.backbone_dilations import resnet_stages
from segcontext.importing.layout import IMAGENET_MEAN, IMAGENET_STD, Told
from segcontext.model import Segmenter

__all__ = ["configuration", "told"]

#: The strides and dilations of the four stages at output stride 8, 16 and 32.
_STRIDES: Final = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}
_DILATIONS: Final = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}
#: Settings that can be rebuilt with one value alone, by the part that they are of.
_FIXED: Final[Mapping[str, Mapping[str, Any]]] = {
    "backbone": {"dilations": _DILATIONS[8], "multi_grid": None, "style": "pytorch"},
    "decode_head": {
        **{"mode": "embedded_gaussian", "psa_type": "bi-direction", "compact": False, "psa_softmax": True},
        "normalization_factor": 1.0,
    },
}
#: What their classes take where a configuration leaves a setting out.
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "backbone": {"strides": _STRIDES[32], "dilations": _DILATIONS[32], "contract_dilation": False},
    "decode_head": {"align_corners": False},
    "data_preprocessor": {"bgr_to_rgb": False},
    "ASPPHead": {"dilations": (1, 6, 12, 18)},
    "DepthwiseSeparableASPPHead": {"dilations": (1, 6, 12, 18)},
}
#: Configurations are some thousand characters long, and their counts are small.
_LONGEST: Final = 1_000_000
_GREATEST: Final = 1000


class _Setting(NamedTuple):
    """A setting of a head that our part of the same kind has as an option."""

    option: str
    published: Any
    fits: Callable[[Any], bool]
    to_ours: Callable[[Any], Any] = lambda value: value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= _GREATEST


def _are_counts(value: Any, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length and all(map(_is_count, value))


_HEAD: Final[Mapping[str, _Setting]] = {
    "num_stages": _Setting("iterations", 3, _is_count),
    "use_scale": _Setting("scaled", True, lambda value: isinstance(value, bool)),
    "pool_scales": _Setting("bins", (1, 2, 3, 6), lambda value: _are_counts(value, 4)),
    "shrink_factor": _Setting("shrink", 2, _is_count),
    # The first branch is the one without dilation, and a dilation of one would make another of its kind.
    "dilations": _Setting(
        "rates",
        (1, 12, 24, 36),
        lambda value: _are_counts(value, 4) and value[0] == 1 and min(value[1:]) > 1,
        lambda value: value[1:],
    ),
}


def told(facts: Mapping[str, Any], file_name: str) -> Told:
    """What a checkpoint says of itself in the text of its configuration, which is not run, or else in its name.

    Args:
        facts: the checkpoint's ``meta``.
        file_name: such as ``pspnet_r50-d8_769x769_40k_cityscapes.pth``.

    Returns:
        Whether corners are aligned (by their names, the 769×769 configurations do so, the others do not), what is in
        the way, and options of ours for settings other than the published ones.
    """
    text = next((facts[key] for key in ("config", "cfg") if isinstance(facts.get(key), str)), "")
    parts = _parts(text)
    notes = () if parts is not None else ("the configuration in the file cannot be read, and is left out of account.",)
    parts = parts or {}
    backbone, head = parts.get("backbone", {}), parts.get("decode_head", {})
    problems = [*_stride(backbone, file_name), *_refused(parts)]
    options: dict[str, Any] = {}
    contract = backbone.get("contract_dilation", True)
    if contract is False:
        options["backbone_options"] = {"first_block": "same"}
    ours = {}
    for name, setting in _HEAD.items():
        value = head.get(name, setting.published)
        if not setting.fits(value):
            problems.append(_no_place("decode_head", name, value))
        elif value != setting.published:
            ours[setting.option] = setting.to_ours(value)
    if ours:
        options["aggregation_options"] = ours
    options |= _images(parts, problems)
    aligned = head.get("align_corners")
    if not isinstance(aligned, bool):
        crops = re.findall(r"(?<!\d)(\d{3,4})x\d{3,4}(?!\d)", file_name)
        aligned = "769" in crops if crops else None
    return Told(aligned, "; ".join(problems) or None, options, notes)


def configuration(model: Segmenter) -> str:
    """The text of a configuration with the settings of a network that its tensors do not tell, as `told` reads it.

    Args:
        model: a network that is going to be written in their layout.

    Returns:
        A text in their form. It is not complete: their code builds networks from its own files.
    """
    aggregation: Any = model.aggregation
    normalize = model.normalize
    head: dict[str, Any] = {"align_corners": model.align_corners}
    if hasattr(aggregation, "iterations"):
        head["num_stages"] = aggregation.iterations
    if hasattr(aggregation, "scale"):
        head["use_scale"] = aggregation.scale != 1.0
    if hasattr(aggregation, "rates"):
        head["dilations"] = (1, *aggregation.rates)
    for ours, theirs in (("bins", "pool_scales"), ("shrink", "shrink_factor")):
        if hasattr(aggregation, ours):
            head[theirs] = getattr(aggregation, ours)
    images: dict[str, Any] = {}
    if normalize is not None:
        order = slice(None, None, -1 if normalize.bgr else 1)
        for name in ("mean", "std"):
            images[name] = [round(255 * value, 4) for value in getattr(normalize, name).flatten().tolist()[order]]
        images["bgr_to_rgb"] = not normalize.bgr
    parts = {"data_preprocessor": images, "backbone": _backbone(model), "decode_head": head}
    lines = (
        f"    {part}=dict({', '.join(f'{name}={value!r}' for name, value in settings.items())}),\n"
        for part, settings in parts.items()
    )
    return f"model = dict(\n{''.join(lines)})\n"


def _backbone(model: Segmenter) -> dict[str, Any]:
    stride = getattr(model.backbone, "output_stride", 8)
    stages: Any = resnet_stages(getattr(model.backbone, "net", model.backbone))
    dilated = [[int(block.conv2.dilation[0]) for block in stage] for stage in stages]
    if not dilated or stride not in _STRIDES:
        return {}
    own = _DILATIONS[stride]
    contract = dilated[2][0] < own[2] or dilated[3][0] < own[3]
    settings = {"strides": _STRIDES[stride], "dilations": own, "contract_dilation": contract}
    first = own[3] // 2 if contract and own[3] > 1 else own[3]
    if dilated[3] != [first] + [own[3]] * (len(dilated[3]) - 1):
        settings["multi_grid"] = tuple(dilated[3])
    return settings


def _parts(text: str) -> dict[str, dict[str, Any]] | None:
    """The settings of the network's parts, by part; `None` where the text cannot be read.

    The text is parsed and not run. What is no plain value stands there as text.
    """
    if len(text) > _LONGEST:
        return None
    found: dict[str, dict[str, Any]] = {}
    try:
        with warnings.catch_warnings():
            # Python remarks on odd strings in what it parses.
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword):
                name, value = node.arg, node.value
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name, value = node.targets[0].id, node.value
            else:
                continue
            wanted = name in ("backbone", "decode_head", "data_preprocessor", "img_norm_cfg")
            if name is not None and wanted and isinstance(value, ast.Call) and name not in found:
                given = {each.arg: _plain(each.value) for each in value.keywords if each.arg}
                found[name] = _completed(name, given)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return found


def _plain(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return ast.unparse(node)
    return tuple(value) if isinstance(value, list) else value


def _completed(part: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings with the defaults of their classes, where the text names the class and thus is a whole one."""
    kind = given.get("type")
    if not isinstance(kind, str):
        return given
    return {**_DEFAULTS.get(part, {}), **_DEFAULTS.get(kind, {}), **given}


def _stride(backbone: Mapping[str, Any], file_name: str) -> list[str]:
    """What is in the way where it is of another output stride: by the configuration, or else by the file's name."""
    named = re.search(r"-d(16|32)(?!\d)", file_name)
    strides = backbone.get("strides")
    if (strides is None and named is None) or strides == _STRIDES[8]:
        return []
    said = named[0][1:] if strides is None and named else f"strides {_brief(strides)}"
    return [f"it is of another output stride than 8 ({said}), and only those of stride 8 (…-d8) can be rebuilt"]


def _refused(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for part, fixed in _FIXED.items():
        settings = parts.get(part, {})
        found += [
            f"{_no_place(part, name, settings[name])} ({value!r} can)"
            for name, value in fixed.items()
            if name in settings and settings[name] != value
        ]
    contract = parts.get("backbone", {}).get("contract_dilation", True)
    if not isinstance(contract, bool):
        found.append(_no_place("backbone", "contract_dilation", contract))
    mask = parts.get("decode_head", {}).get("mask_size")
    if mask is not None and not (_are_counts(mask, 2) and mask[0] == mask[1]):
        found.append(_no_place("decode_head", "mask_size", mask))
    return found


def _no_place(part: str, name: str, value: Any) -> str:
    return f"its configuration has {name}={_brief(value)} in {part}, which cannot be rebuilt"


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole numbers of thousands of digits
        text = "a huge number"
    return text if len(text) <= 80 else f"{text[:80]}…"


def _images(parts: Mapping[str, Mapping[str, Any]], problems: list[str]) -> dict[str, Any]:
    """How images are normalised, where it is not as published; here they are in [0, 1], and numbers go by RGB."""
    part = "data_preprocessor" if "data_preprocessor" in parts else "img_norm_cfg"
    said = parts.get(part, {})
    bgr = said.get("bgr_to_rgb", said.get("to_rgb", True)) is False
    options: dict[str, Any] = {"bgr": True} if bgr else {}
    for name, published in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        if name not in said:
            continue
        if not _is_colour(said[name], positive=name == "std"):
            problems.append(_no_place(part, name, said[name]))
            continue
        given = tuple(value / 255 for value in said[name][:: -1 if bgr else 1])
        if max(abs(one - other) for one, other in zip(given, published, strict=True)) > 1e-6:
            options[name] = given
    return options


def _is_colour(value: Any, *, positive: bool) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 3
        and all(type(each) in (int, float) and abs(each) < 1e6 and (each > 0 or not positive) for each in value)
    )
