"""Networks in files that say how to build them, so that one file is enough to use a network."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segcontext.aggregation import EMA
from segcontext.assembly import segmenter
from segcontext.backbone_dilations import refuse_other_stride
from segcontext.errors import CheckpointError, RecipeError, SegContextError
from segcontext.files import atomic_path
from segcontext.layers import Normalize
from segcontext.model import Segmenter, options_at_stride
from segcontext.state_file import read_state, write_state

__all__ = ["describe", "load_model", "load_tensors", "save_model", "weight_file", "write_network"]


def save_model(
    path: str | Path, model: Segmenter, *, tensors: Mapping[str, Tensor] | None = None, **facts: Any
) -> None:
    """Writes a network to one file that `load_model` can build it from.

    Args:
        path: where to, ending in ``.safetensors``.
        model: built by `segcontext.segmenter` or a named builder.
        tensors: weights to save instead of the network's own, such as averaged ones.
        facts: plain JSON values to keep with it (step, scores, …).

    Raises:
        CheckpointError: for a network that was put together by hand, which no file could describe.
    """
    if not model.options:
        raise CheckpointError(
            "This network was put together by hand, so a file cannot say how to build it. Build it with "
            "segcontext.segmenter (dotted class paths name parts of your own), or save its state_dict yourself."
        )
    write_state(path, dict(tensors or model.state_dict()), {**describe(model), **facts}, kind="model")


def describe(model: Segmenter) -> dict[str, Any]:
    """Everything about a network but its weights, as plain JSON values."""
    normalize = model.normalize
    if not isinstance(normalize, Normalize):
        raise CheckpointError(
            f"A file cannot describe a normalize of type {type(normalize).__name__}; it can describe "
            "segcontext.layers.Normalize."
        )
    backbone: Any = model.backbone
    units = [module for module in model.modules() if isinstance(module, EMA)]
    options = {**model.options, "pretrained": False, "weights": None}
    if units:
        # It may have been changed since the network was built.
        iterations = {"evaluation_iterations": units[0].evaluation_iterations}
        options["aggregation_options"] = {**(options.get("aggregation_options") or {}), **iterations}
    return {
        "options": _plain(options),
        "num_classes": model.num_classes,
        "classes": list(model.classes),
        "palette": [list(colour) for colour in model.palette],
        "input": {
            "mean": normalize.mean.flatten().tolist(),
            "std": normalize.std.flatten().tolist(),
            "channel_order": "bgr" if normalize.bgr else "rgb",
            "range": "uint8 0..255 or float 0..1",
            "padding": model.padding,
        },
        "output_stride": backbone.output_stride,
        "iterations": {
            "training": units[0].iterations if units else None,
            "evaluation": units[0].evaluation_iterations if units else None,
        },
    }


def write_network(folder: Path, model: Segmenter) -> None:
    """Writes ``model.json``: how the network is built, its classes, its input, its stride and iterations.

    It is a copy, for people and other programs, of what every weight file of the run says of its network.
    `load_model` reads the weight file alone and never this one.

    Args:
        folder: the run folder.
        model: the network.
    """
    with atomic_path(folder / "model.json") as temporary:
        temporary.write_text(json.dumps(describe(model), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_model(
    run: str | Path,
    *,
    which: str = "best",
    output_stride: int | None = None,
    evaluation_iterations: int | None = None,
    device: str | torch.device = "cpu",
    trust: Sequence[str] = (),
) -> Segmenter:
    """Loads a trained network; never touches the network of computers, never runs code from the file.

    Args:
        run: a run folder, or a weight file of segcontext.
        which: ``"best"`` or ``"last"``, of a run folder.
        output_stride: another stride than in training (train at 16, evaluate at 8). Dilations of the context parts are
            scaled with it; what is learned and cannot be scaled is logged, see `segcontext.model.options_at_stride`.
        evaluation_iterations: another number of EM iterations.
        device: where the network goes.
        trust: packages of which a file may name classes as parts. A part from anywhere else is refused unless its
            module is imported already, since importing a module runs it.

    Returns:
        The network in evaluation mode, with `classes` and `palette`.

    Raises:
        CheckpointError: where nothing usable lies there; the message says what does.
        RecipeError: for a stride or a number of iterations that cannot be.

    Example:
        >>> # model = segcontext.load_model("runs/demo")
        >>> # model(images).logits
    """
    if evaluation_iterations is not None and evaluation_iterations < 0:
        raise RecipeError(f"evaluation_iterations must be 0 or more, not {evaluation_iterations}.")
    path = weight_file(run, which)
    tensors, info = read_state(path, kind="model")
    try:
        # Whatever the file says, nothing is fetched: the weights are in it.
        options = {**info["options"], "pretrained": False, "weights": None}
        for kind in ("aggregation", "distribution"):
            _check_trust(path, kind, str(options[kind]), trust)
        if output_stride is not None:
            dilations = (options.get("backbone_options") or {}).get("dilations")
            refuse_other_stride(dilations, options["output_stride"], output_stride)
            options["output_stride"] = output_stride
        model = segmenter(info["num_classes"], **options)
        if output_stride is not None:
            rescaled = options_at_stride(model, options, trained=info["output_stride"])
            model = model if rescaled == options else segmenter(info["num_classes"], **rescaled)
        given = info["input"]
        model.normalize = Normalize(given["mean"], given["std"], bgr=given["channel_order"] == "bgr")
        model.padding = given["padding"]
        model.classes = tuple(info["classes"])
        model.palette = tuple((r, g, b) for r, g, b in info["palette"])
    except SegContextError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a network that can be built ({error!r}).") from error
    if evaluation_iterations is not None:
        units = [module for module in model.modules() if isinstance(module, EMA)]
        if not units:
            raise CheckpointError(
                f"{path} has no EM iterations: its aggregation is {type(model.aggregation).__name__}."
            )
        for unit in units:
            unit.evaluation_iterations = evaluation_iterations
    load_tensors(model, tensors, source=str(path))
    return model.to(device).eval()


def weight_file(run: str | Path, which: str = "best") -> Path:
    """The weight file of a run folder, or the file itself where one was given."""
    path = Path(run)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"There is no run at {path}: expected a run folder or a .safetensors file.")
    if which not in ("best", "last"):
        raise CheckpointError(f"which must be best or last, not {which!r}.")
    file = path / "weights" / f"{which}.safetensors"
    if not file.is_file():
        found = sorted(item.name for item in path.iterdir())[:8]
        raise CheckpointError(
            f"{path} holds no weights/{which}.safetensors. It holds: {', '.join(found) or 'nothing'}. "
            "A run has weights from its first validation on."
        )
    return file


def load_tensors(model: Segmenter, tensors: Mapping[str, Tensor], *, source: str, skip: Sequence[str] = ()) -> None:
    """Puts tensors into a network and refuses by name what does not fit.

    Args:
        model: the network.
        tensors: by the network's names.
        source: what to call the file in errors.
        skip: prefixes of names that may stay as they are.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen tensors.
    """
    own = model.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(skip))}
    wanted = {name for name in own if not name.startswith(tuple(skip))}
    classes = given.get("classifier.weight")
    if classes is not None and len(classes) != model.num_classes:
        raise CheckpointError(
            f"{source} was trained for {len(classes)} classes, but the data have {model.num_classes}. "
            "Use the data set it was trained on; to fine-tune it, set init_classifier: false."
        )
    problems = [f"missing: {name} {tuple(own[name].shape)}" for name in sorted(wanted - set(given))]
    problems += [f"unexpected: {name} {tuple(given[name].shape)}" for name in sorted(set(given) - wanted)]
    problems += [
        f"shape of {name}: expected {tuple(own[name].shape)}, found {tuple(given[name].shape)}"
        for name in sorted(wanted & set(given))
        if own[name].shape != given[name].shape
    ]
    if problems:
        listed = "\n  ".join(problems[:12] + ([f"… and {len(problems) - 12} more"] if len(problems) > 12 else []))
        raise CheckpointError(f"{source} does not fit this network:\n  {listed}")
    model.load_state_dict({**own, **given})


def _check_trust(path: Path, kind: str, name: str, trust: Sequence[str]) -> None:
    """Refuses a part from a module that is neither imported nor trusted."""
    module = name.rpartition(".")[0]
    if module and module not in sys.modules and module.split(".")[0] not in trust:
        package = module.split(".")[0]
        raise CheckpointError(
            f"{path} names a part of another package ({kind}: {name}), and importing it would run its code. If you "
            f"trust that package, import it first or pass trust=['{package}'] (--trust {package})."
        )


def _plain(value: Any) -> Any:
    """The same value in types that JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    return str(value) if isinstance(value, Path) else value
