"""Names of classes: how they are compared, and whether those of a network are those of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import cast

from torch import nn

from segcontext.data.dataset import Dataset
from segcontext.errors import DataError

__all__ = ["check_classes", "listing", "plain_names"]


def check_classes(model: nn.Module, dataset: Dataset) -> None:
    """Refuses data of other classes than the model's, or of the same in another order.

    Args:
        model: any module with `num_classes` and, where it has them, `classes`. Without names the number decides.
        dataset: what it is going to be asked about.

    Raises:
        DataError: number, names or order differ; the message says which, and what to do.
    """
    trained = tuple(cast(tuple[str, ...], getattr(model, "classes", ())))
    count = int(cast(int, getattr(model, "num_classes", len(trained))))
    given = tuple(dataset.classes)
    same, other = plain_names(trained), plain_names(given)
    if count == len(given) and (not trained or same == other):
        return
    hint = "Take the data set that the model was trained for, or name its classes as the model does."
    if sorted(same) == sorted(other):
        hint = (
            "The names are the same, but in another order: bring the data set's classes into the model's order, or "
            "take a model with theirs."
        )
    raise DataError(
        f"The model was trained on {count} classes ({listing(trained) or 'unnamed'}), but {dataset.name} has "
        f"{len(given)} ({listing(given)}). {hint}"
    )


def plain_names(names: Iterable[str]) -> list[str]:
    """Class names as they are compared: capitals, spaces and underscores make no difference.

    Args:
        names: the names.

    Returns:
        One word for each.

    Example:
        >>> plain_names(["Traffic Light", "traffic_light"])
        ['trafficlight', 'trafficlight']
    """
    return [re.sub(r"[\W_]+", "", name).casefold() for name in names]


def listing(names: Sequence[str]) -> str:
    """The first dozen class names, in one line.

    Args:
        names: the names.

    Returns:
        The line, with dots where names are left out.
    """
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
