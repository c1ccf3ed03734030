"""Every layout that is known, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from segcontext.errors import RecipeError, nearest
from segcontext.importing.authors import EMANET, GALD
from segcontext.importing.layout import Layout
from segcontext.importing.openmmlab import OPENMMLAB
from segcontext.importing.torchvision_models import TORCHVISION

__all__ = ["LAYOUTS", "layout_named"]

LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {layout.name: layout for layout in (EMANET, GALD, *OPENMMLAB, *TORCHVISION)}
)


def layout_named(name: str) -> Layout:
    """A layout by its name.

    Args:
        name: one of `LAYOUTS`.

    Raises:
        RecipeError: for an unknown name; it names the nearest right one.

    Example:
        >>> layout_named("gald").title
        'GALDNet v1 as its authors save it'
    """
    if name not in LAYOUTS:
        raise RecipeError(f"There is no layout '{name}'.{nearest(name, LAYOUTS)} Known: {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]
