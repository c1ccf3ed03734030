"""Our safetensors files: tensors and plain facts, written whole or not at all, read without running code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from segcontext.errors import CheckpointError
from segcontext.files import atomic_path

__all__ = ["FORMAT_VERSION", "StateFile", "read_state", "write_state"]

FORMAT_VERSION = 1


class StateFile(NamedTuple):
    """What a file of ours holds.

    Attributes:
        tensors: by name.
        info: everything else, as plain JSON values.
    """

    tensors: dict[str, Tensor]
    info: dict[str, Any]


def write_state(path: str | Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any], *, kind: str) -> None:
    """Writes tensors and facts as one safetensors file, whole or not at all.

    Args:
        path: where to; an older file there is replaced in one move.
        tensors: by name.
        info: plain JSON values.
        kind: what the file is, ``"model"`` or ``"training"``.
    """
    path = Path(path)
    header = {"format_version": FORMAT_VERSION, "kind": kind, **info}
    # Tensors that share storage (or are views) are written out one by one: safetensors keeps no sharing.
    data = to_safetensors(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        metadata={"segcontext": json.dumps(header)},
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_state(path: str | Path, *, kind: str) -> StateFile:
    """Reads a file that `write_state` wrote; never runs code from it.

    Args:
        path: the file.
        kind: what it must be.

    Returns:
        Tensors and facts.

    Raises:
        CheckpointError: where the file is missing, damaged, a pickle, of another kind, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no weight file at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            info = json.loads(metadata.get("segcontext", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        if _is_pickle(path):
            raise CheckpointError(
                f"{path} is a pickle, which can run code when it is opened, so it was not. Expected a .safetensors "
                "file of segcontext: take one from a run's weights folder."
            ) from error
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}). Take another copy of it."
        ) from error
    if not isinstance(info, dict) or not isinstance(info.get("format_version"), int):
        raise CheckpointError(
            f"{path} is a safetensors file of something else: it does not say which network it belongs to. Backbone "
            "weights go into the recipe's key 'weights'."
        )
    if info["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {info['format_version']}, and this segcontext reads up to {FORMAT_VERSION}: upgrade it."
        )
    if info.get("kind") != kind:
        raise CheckpointError(f"{path} holds a {info.get('kind')} state, but a {kind} state was expected.")
    return StateFile(tensors, info)


def _is_pickle(path: Path) -> bool:
    """Whether a file that is no safetensors file begins like a pickle or a zip archive of one."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    # A cut safetensors file may begin with the same bytes, its length, but a brace always follows.
    return len(start) == 9 and start[8:] != b"{" and (start[:1] == b"\x80" or start[:2] == b"PK")
