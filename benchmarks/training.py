"""A training step: channels-last, bfloat16, fused optimizer and, where asked for, compiled, beside none of these.

    python benchmarks/training.py [--quick] [--recipe camvid_cpu] [--compiled]

A step is what the Trainer runs of it: forward, loss, backward, optimizer, the bases' moving average. Data are random.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable

import torch

from measuring import Case, measure, table
from segcontext.losses import cross_entropy
from segcontext.model import update_bases
from segcontext.recipe import Recipe
from segcontext.speed import Compiled
from segcontext.training.optimization import make_optimizer, parameter_groups
from segcontext.zoo import build

CLASSES = 11


def step_of(recipe: Recipe, *, fast: bool, compiled: bool = False) -> Callable[[], float]:
    """One optimizer step of a recipe's network, and the loss before it."""
    torch.manual_seed(0)
    network = build(recipe.model, CLASSES, recipe.network()).train()
    images, masks = (
        torch.rand(recipe.batch, 3, *recipe.crop_size),
        torch.randint(CLASSES, (recipe.batch, *recipe.crop_size)),
    )
    if fast:
        network = network.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(network, recipe)
    else:
        kind = torch.optim.SGD if recipe.optimizer == "sgd" else torch.optim.AdamW
        optimizer = kind(parameter_groups(network, recipe), lr=recipe.lr)
    forward = Compiled(network) if compiled else network

    def step() -> float:
        torch.manual_seed(0)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
            output = forward(images, auxiliary=True)
        total, weight = cross_entropy(output.logits, masks)
        loss = total / weight.to(total.dtype)
        loss.backward()
        optimizer.step()
        update_bases(network)
        return loss.item()

    return step


def cases(quick: bool, recipe: str = "camvid_cpu", *, compiled: bool = False) -> Iterable[Case]:
    """The recipe's step with all that makes it faster, beside the plain one."""
    given = dataclasses.replace(Recipe.load(recipe, data="demo"), pretrained=False)
    plain, fast = step_of(given, fast=False), step_of(given, fast=True, compiled=compiled and not quick)
    height, width = given.crop_size

    def agreement() -> str:
        own, other = fast(), plain()
        assert abs(own - other) < 0.05 * other, (own, other)
        return f"loss {own:.3f} and {other:.3f}"

    yield Case(
        "Whole network, training",
        f"{recipe}: {given.batch} × {height}×{width}, a step" + (", compiled" if compiled and not quick else ""),
        fast,
        plain,
        "float32, channels-first, one kernel a parameter",
        agreement,
        rounds=5,
        memory=not quick,
        items=given.batch,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--recipe", default="camvid_cpu")
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    for line in table(measure(case) for case in cases(arguments.quick, arguments.recipe, compiled=arguments.compiled)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
