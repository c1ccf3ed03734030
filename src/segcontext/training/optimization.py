"""The optimizer by the papers' protocol: parameter groups and the poly schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from segcontext.recipe import Recipe

__all__ = ["learning_rate_factor", "make_optimizer", "parameter_groups"]

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Sorts parameters by where they stand (backbone or head) and what they are (weight, bias, norm and the rest).

    Args:
        model: has its backbone in the attribute `backbone`.
        recipe: gives the factors of the learning rate, and what decays.

    Returns:
        Groups for an optimizer. Each has `lr_scale`, by which the schedule's learning rate is multiplied, and `name`.
        Frozen parameters are in none.
    """
    backbone = {id(parameter) for parameter in model.backbone.parameters()}  # type: ignore[union-attr]
    sorted_: dict[tuple[str, str], list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            plain = name == "bias" or (name == "weight" and parameter.ndim > 1)
            # Learned EM bases, scales and the like go with the norms: to shrink them means nothing.
            kind = name if plain and not isinstance(module, _NORMS) else "norm"
            place = "backbone" if id(parameter) in backbone else "head"
            sorted_.setdefault((place, kind), []).append(parameter)
    groups = []
    for (place, kind), parameters in sorted(sorted_.items()):
        scale = (recipe.head_lr_factor if place == "head" else 1.0) * (recipe.bias_lr_factor if kind == "bias" else 1.0)
        decays = kind == "weight" or recipe.decay_norm_and_bias
        groups.append(
            {
                "name": f"{place}.{kind}",
                "params": parameters,
                "lr": recipe.lr * scale,
                "lr_scale": scale,
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
        )
    return groups


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, over the recipe's parameter groups; one kernel for all where PyTorch has one."""
    groups = parameter_groups(model, recipe)
    fused = all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=fused)


def learning_rate_factor(step: int, total: int, *, power: float = 0.9, warmup: int = 0) -> float:
    """The poly schedule, with an optional linear warm-up before it.

    Args:
        step: optimizer steps already taken.
        total: optimizer steps of the whole run.
        power: exponent, 0.9 in both papers.
        warmup: steps of the linear rise.

    Returns:
        (1 − step/total)^power, times the warm-up's share; 1 at the start and near 0 at the end.

    Example:
        >>> learning_rate_factor(0, 100), round(learning_rate_factor(50, 100), 4)
        (1.0, 0.5359)
    """
    rise = min(1.0, (step + 1) / (warmup + 1))
    return float((1 - min(step, total) / total) ** power * rise)
