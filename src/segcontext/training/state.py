"""The training state: everything a resumed run needs to end at the same weights, in one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segcontext.checkpoint import load_tensors
from segcontext.errors import CheckpointError
from segcontext.state_file import StateFile, read_state, write_state
from segcontext.training.task import Task

__all__ = ["Progress", "load_state", "read_training", "save_state"]


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimizer steps taken.
        total: optimizer steps of the whole run.
        validated: the step of the last validation, -1 before the first.
        best: the best validation mIoU so far, -1 before the first.
        best_step: the step it was reached at.
        seconds: time spent training and validating, over all resumptions.
        images: which training images it is on, see `segcontext.training.folder.images_digest`.
    """

    step: int = 0
    total: int = 0
    validated: int = -1
    best: float = -1.0
    best_step: int = -1
    seconds: float = 0.0
    images: str = ""


def save_state(path: Path, task: Task, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Writes network, averaged network, optimizer and progress; the file before it stays until this one is whole.

    Args:
        path: where to.
        task: holds the network.
        optimizer: its state is a tensor or a number per parameter and name.
        progress: how far the run is.
    """
    tensors = {f"model.{name}": tensor for name, tensor in task.model.state_dict().items()}
    if task.averaged is not None:
        tensors |= {f"averaged.{name}": tensor for name, tensor in task.averaged.state_dict().items()}
    numbers: dict[str, Any] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    facts = {"progress": vars(progress), "optimizer": numbers, "classes": list(task.model.classes)}
    write_state(path, tensors, facts, kind="training")


def read_training(path: Path) -> tuple[StateFile, Progress]:
    """Reads a training state.

    Args:
        path: the file.

    Returns:
        Its contents, and how far the run was.

    Raises:
        CheckpointError: where it is missing, damaged, or not a training state.
    """
    state = read_state(path, kind="training")
    try:
        return state, Progress(**state.info["progress"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not say how far the run was ({error!r}).") from error


def load_state(state: StateFile, task: Task, *, source: str) -> None:
    """Puts a training state's networks into a task.

    Args:
        state: what `read_training` gave.
        task: a task for the same recipe.
        source: what to call the file in errors.

    Raises:
        CheckpointError: where the tensors are not this network's.
    """
    if state.info.get("classes") != list(task.model.classes):
        raise CheckpointError(
            f"{source} belongs to a run on the classes {', '.join(state.info.get('classes', []))}, but the data have "
            f"{', '.join(task.model.classes)}. Resume it on the data it was started on."
        )
    load_tensors(task.model, _under("model.", state), source=source)
    if task.averaged is not None:
        task.averaged.load_state_dict(_under("averaged.", state))


def load_optimizer(state: StateFile, optimizer: torch.optim.Optimizer) -> None:
    """Puts a training state's momenta into an optimizer of the same groups.

    Args:
        state: what `read_training` gave.
        optimizer: made by the same recipe.
    """
    entries: dict[int, dict[str, Any]] = {}
    for name, tensor in _under("optimizer.", state).items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = tensor
    for name, number in state.info["optimizer"].items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = number
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            # Files hold rows first. Fused optimizers go through memory from front to back, whatever the layout.
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _under(prefix: str, state: StateFile) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in state.tensors.items() if name.startswith(prefix)}
