"""Brings the docstrings, which are written for readers of the source, to what the pages' Markdown understands."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":math:`([^`]+)`")
_EXAMPLE = re.compile(r"^([ \t]*)Example:[ \t]*$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Sets equations by MathJax and examples as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites one object's docstring."""
        if obj.docstring is None:
            return
        # On one line: indentation inside an equation would end the Markdown paragraph it stands in.
        text = _ROLE.sub(lambda role: rf"\({' '.join(role[1].split())}\)", obj.docstring.value)
        obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", text)
