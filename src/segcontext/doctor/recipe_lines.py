"""The recipe lines that fit a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Finding
from segcontext.recipe import Recipe

__all__ = ["recipe_lines"]


def recipe_lines(seen: Examination, findings: Sequence[Finding]) -> str:
    """Lines for a recipe that trains on the data set; the defaults that fit are left out.

    Args:
        seen: what was seen in the data set.
        findings: what is wrong with it.

    Returns:
        YAML, one key per line.
    """
    survey = seen.survey
    data = survey.root.resolve().as_posix() if survey.place != "demo" else "demo"
    lines = [f"data: {_quoted(data)}\n", f"dataset: {survey.name}\n"]
    lines += [mend.text for finding in findings for mend in finding.mend if mend.file == "recipe.yaml"]
    return "".join([*lines, *_crop(seen)])


def _crop(seen: Examination) -> list[str]:
    """A smaller crop where the usual one would be padding for the most part."""
    tally = seen.tallies[seen.training] if seen.training else seen.whole
    usual = Recipe(data="").crop
    if not tally.sizes or not isinstance(usual, int):
        return []
    counts = list(tally.sizes.values())
    height = int(np.median(np.repeat([height for _, height in tally.sizes], counts)))
    width = int(np.median(np.repeat([width for width, _ in tally.sizes], counts)))
    if min(height, width) >= usual:
        return []
    crop = [min(height, usual), min(width, usual)]
    return [f"crop: {crop if crop[0] != crop[1] else crop[0]}  # half of the images are {width}×{height} or smaller\n"]


def _quoted(text: str) -> str:
    plain = text.replace("/", "").replace("_", "").replace("-", "").replace(".", "")
    return text if plain.isalnum() else "'" + text.replace("'", "''") + "'"
