"""Backbone weights: fetched from the hub, read without running code, checked name by name, and loaded."""

from __future__ import annotations

import contextlib
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor, nn

from segcontext.errors import PretrainedUnavailable, WeightsError

__all__ = ["convert", "fetch", "load", "read"]

_HUB_TIMEOUT: Final = 5.0


def fetch(name: str, cfg: dict[str, Any]) -> Path:
    """The published weights as a local file, from the hub's cache or from the hub.

    Args:
        name: the backbone's name, for the message.
        cfg: timm's configuration of the pretrained model.

    Returns:
        The path of the file.

    Raises:
        PretrainedUnavailable: the hub cannot be reached, or has no weights for this model.
    """
    way_on = (
        f"Give a local weight file (weights=…, tensors named as in timm's '{name}'), "
        "or start from random weights (pretrained=False)."
    )
    repository = cfg.get("hf_hub_id")
    if not repository:
        raise PretrainedUnavailable(f"the Hugging Face hub has no weights for backbone '{name}'. {way_on}")
    file = cfg.get("hf_hub_filename") or "model.safetensors"
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # The hub's own download tries six times, 23 seconds in all, before it says that there is no network.
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # whichever HTTP library the hub client uses, its errors share no root of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PretrainedUnavailable(
            f"cannot fetch the pretrained weights of backbone '{name}' ({repository}/{file}) from "
            f"{constants.ENDPOINT}: {reason}. {way_on}"
        ) from error


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file; never runs code from it.

    Args:
        path: a ``.safetensors`` file, or a PyTorch file of tensors by name, bare or wrapped as training scripts do.

    Returns:
        The tensors by name.

    Raises:
        WeightsError: the file is missing, damaged, unsafe, or holds no tensors by name.
    """
    if not path.is_file():
        raise WeightsError(f"no weight file at '{path}'. Give the path of a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # PyTorch remarks on plain pickles and TorchScript archives just before it refuses them.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' is no file of tensors alone: it is damaged, or it holds Python objects, which could run code. "
            "It was not executed. Save the state dictionary by itself, best as .safetensors."
        ) from error
    except Exception as error:  # damaged bytes surface as nearly anything: struct, index, type and assertion errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"'{path}' cannot be read as a weight file; is it complete? {reason}") from error
    for key in ("state_dict", "model", "net"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        raise WeightsError(f"'{path}' holds no tensors by name. Give a file made by torch.save(model.state_dict(), …).")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return state


def convert(net: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Brings an original author's tensor names to timm's, where timm has a converter for the family.

    Args:
        net: timm's network, which says the family.
        state: the tensors by the names in the file.

    Returns:
        The tensors by timm's names; as they came where timm has no converter for them.
    """
    converter = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    converted: Any = state
    if converter is not None:
        # A converter that stumbles did not meet the layout it is for; the names are then checked as they are.
        with contextlib.suppress(Exception):
            converted = converter(dict(state), net)
    return {key: value for key, value in converted.items() if isinstance(value, Tensor)}


def load(net: Any, state: dict[str, Tensor], known: set[str], name: str, source: Path) -> None:
    """Fills the network; every tensor it has must be in the file, and the file may add only what timm's model has.

    Args:
        net: the network without its classifier.
        state: the file's tensors.
        known: the names that the network had with its classifier.
        name: the backbone's name, for the message.
        source: the file, for the message.

    Raises:
        WeightsError: with the tensors that are missing, unexpected, or of another shape.
    """
    heads = net.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    wanted = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    lost = [key for key in wanted if key not in state]
    foreign = [key for key in state if key not in known and not key.startswith(prefixes)]
    differing = [key for key in wanted if key in state and state[key].shape != wanted[key]]
    # Files from before batch norm counted its steps lack the counters, and nothing reads them at a fixed momentum.
    missing = [f"{key} {wanted[key]}" for key in lost if not key.endswith("num_batches_tracked")]
    unexpected = [f"{key} {tuple(state[key].shape)}" for key in foreign]
    reshaped = [f"{key} {tuple(state[key].shape)}, not {wanted[key]}" for key in differing]
    problems = [
        f"\n  {title} ({len(found)}): {'; '.join(found[:8])}{'; …' if len(found) > 8 else ''}"
        for title, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if found
    ]
    if problems:
        raise WeightsError(
            f"'{source}' does not fit backbone '{name}'.{''.join(problems)}\n"
            f"  Give a file of timm's '{name}', or name the backbone that the file is of."
        )
    net.load_state_dict({key: tensor for key, tensor in state.items() if key in wanted}, strict=False)
