"""What the test server of a data set wants to be sent."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Submission"]


class Submission(NamedTuple):
    """The files that a test server takes, one per image.

    Attributes:
        pattern: path of a prediction in the archive, with ``{stem}`` for the image's own name without folders.
        values: what the server calls each class, in the order of the class indices.
        archive: ``"zip"`` or ``"gztar"`` (``.tar.gz``).
        page: the name of the page to hand it in at.
        coloured: whether the PNGs carry the data set's palette.
    """

    pattern: str
    values: tuple[int, ...]
    archive: str
    page: str
    coloured: bool = False
