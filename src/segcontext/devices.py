"""The device that a command computes on."""

from __future__ import annotations

from segcontext.errors import RecipeError

__all__ = ["usable_device"]


def usable_device(name: str | None) -> str:
    """The device of that name once it has been tried; a GPU where there is one and no name was given.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …, or `None`.

    Returns:
        The name.

    Raises:
        RecipeError: where there is no such device, or it cannot be used.

    Example:
        >>> usable_device("cpu")
        'cpu'
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    advice = "Take cpu, cuda, or cuda:1 for the second GPU; or leave --device out."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(f"'{name}' is no device. {advice}") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"The device '{name}' cannot be used: {str(error).splitlines()[0]} {advice}") from error
    return name
