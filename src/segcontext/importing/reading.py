"""Weight files of others: their tensors and the plain facts beside them, read without running code."""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segcontext.errors import WeightsError
from segcontext.importing.words import shown

__all__ = ["ForeignFile", "read_foreign"]

#: Under which keys training scripts keep a network's tensors.
WRAPPERS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
#: What wrappers of a network put before its tensors' names.
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.")
#: What a file may hold besides tensors and containers.
PLAIN: Final = (str, bytes, int, float, complex, bool, type(None), torch.Size, torch.dtype, torch.device)

#: Characters of a place in nested containers that a message names, the last ones.
_PLACE: Final = 300


class ForeignFile(NamedTuple):
    """What a file of others holds.

    Attributes:
        tensors: by their names there, without what wrappers put before, as they are.
        facts: what the file says of itself (OpenMMLab's ``meta``), plain values.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def read_foreign(path: str | Path) -> ForeignFile:
    """Reads a weight file of any of the known kinds; never runs code from it.

    PyTorch unpickles with its allow-list (`weights_only`), which builds tensors and containers and nothing else. What
    came out is looked through once more, since other packages may have lengthened that list.

    Args:
        path: a PyTorch file (new or old form, bare or wrapped as training scripts do) or a safetensors file.

    Returns:
        Tensors and facts.

    Raises:
        WeightsError: the file is missing or damaged, holds anything but tensors and plain containers, no tensors by
            name, or tensors without the numbers that their shapes promise.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}. Give the path of a .pth, .pt or .safetensors file.")
    with path.open("rb") as file:
        # A safetensors file begins with the length of its header, which is JSON.
        is_safetensors = file.read(9)[8:] == b"{"
    content: Any = _read_safetensors(path) if is_safetensors else _unpickle(path)
    _refuse_objects(content, path)
    tensors = _state(content)
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name. Give a file that holds a network's state dictionary.")
    _refuse_hollow(tensors, path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return ForeignFile(tensors, dict(meta) if isinstance(meta, Mapping) else {})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "segcontext" in (file.metadata() or {}):
                raise WeightsError(
                    f"{path} is a weight file of segcontext and needs no importing: use it as it is, for example with "
                    "segcontext.load_model."
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({shown(str(error))}). Take another copy of it."
        ) from error


def _unpickle(path: Path) -> Any:
    try:
        # Opened here, since torch.load goes by the ending of a path.
        with warnings.catch_warnings(), path.open("rb") as file:
            # PyTorch remarks on old pickles and TorchScript archives before it refuses them.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused, and nothing in it was run: it holds {_refused(path, str(error))}. A pickle with "
            "anything but tensors and plain containers could run code. Where you trust the file, load it yourself and "
            "save the state dictionary alone: torch.save(model.state_dict(), …)."
        ) from error
    except Exception as error:  # damaged bytes surface as nearly anything: struct, index, type and assertion errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path} was refused, and nothing in it was run: it is a TorchScript archive, which holds code. Save "
                "the state dictionary alone: torch.save(model.state_dict(), …)."
            ) from error
        raise WeightsError(f"{path} cannot be read as a weight file; is it complete? {shown(reason)}") from error


def _refused(path: Path, message: str) -> str:
    """What in a pickle is no tensor and no container, in words."""
    found: list[str] = []
    with contextlib.suppress(Exception):  # files of before PyTorch 1.6 cannot be asked
        found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    found = found or re.findall(r"GLOBAL ([\w.]+)", message)[:1]
    if found:
        return f"objects of {shown(', '.join(found))}"
    said = re.search(r"WeightsUnpickler error:\s*([^\n]+)", message) or re.search(r"([^\n]+)", message)
    return f"something else than a pickle of tensors ({shown(said[1].strip()) if said else 'unknown'})"


def _refuse_objects(content: Any, path: Path) -> None:
    """Walks through containers and refuses whatever is no tensor, container or plain value."""
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting:
        place, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += [(f"{place}[{key!r}]"[-_PLACE:], item) for key, item in value.items()]
            waiting += [(f"a key of {place or 'the file'}", key) for key in value]
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized:
                raise WeightsError(f"{path} was refused: {place} is sparse or quantised. Save it as a dense tensor.")
        elif type(value) in (list, tuple, set, frozenset):
            waiting += [(f"{place}[{index}]"[-_PLACE:], item) for index, item in enumerate(value)]
        elif not isinstance(value, PLAIN):
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise WeightsError(
                f"{path} was refused: {place or 'it'} is an object of {kind}, where only tensors and plain containers "
                "may be. Save the state dictionary alone: torch.save(model.state_dict(), …)."
            )


def _refuse_hollow(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses tensors that have fewer numbers in the file than their shapes promise: any use would fill them up."""
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if tensor.is_meta:
            raise WeightsError(f"{path} was refused: {shown(name)} {shape} is a tensor without numbers (device meta).")
        stored = tensor.untyped_storage().nbytes() // tensor.element_size()
        if tensor.numel() > stored:
            raise WeightsError(
                f"{path} was refused: {shown(name)} {shape} has {tensor.numel():,} numbers, but the file holds only "
                f"{stored:,} of them (an expanded tensor). Save a copy of it: tensor.contiguous()."
            )


def _state(content: Any) -> dict[str, Tensor]:
    """The network's tensors, out of the dictionaries that they are wrapped in, each looked into once."""
    seen: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(content, False)]
    while waiting:
        value, looked_into = waiting.pop()
        if not isinstance(value, Mapping) or (not looked_into and id(value) in seen):
            continue
        if not looked_into:
            # What is wrapped inside comes before what lies beside it.
            seen.add(id(value))
            waiting += [(value, True), *((value.get(key), False) for key in reversed(WRAPPERS))]
            continue
        state = {name: each for name, each in value.items() if isinstance(name, str) and isinstance(each, Tensor)}
        if state:
            return _unprefixed(state)
    return {}


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in state)), None)
    while prefix is not None:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in state)), None)
    return state
