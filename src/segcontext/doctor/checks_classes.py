"""What the counts of classes and objects tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from segcontext.data import Frequencies, class_weights
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Finding, Mend
from segcontext.doctor.survey import role
from segcontext.doctor.tally import Tally
from segcontext.doctor.words import few, number, plural, share, verb

__all__ = ["check_classes", "weights_line"]

# The most frequent class has so many times the pixels of the rarest.
_IMBALANCE = 50
# Regions below 2³ pixels; where they are the majority, they are no objects.
_SPECK_BITS = 3
_FEWEST_REGIONS = 200


def check_classes(seen: Examination) -> Iterator[Finding]:
    """Looks for classes that are never seen, rare ones, and labels that crumble into specks.

    Args:
        seen: what was seen in the data set.

    Yields:
        The findings.
    """
    whole = seen.whole
    if not whole.labelled:
        return
    names = seen.survey.classes
    never = [name for name, pixels in zip(names, whole.pixels, strict=True) if not pixels]
    if never:
        yield Finding(
            "class-never-seen",
            "warning",
            f"{plural(len(never), 'class', 'classes')} {verb(len(never), 'are')} in no mask: {few(never, 12)}.",
            "Look whether the masks use the values that the classes have; if so, remove the class or label it.",
            why="It cannot be learnt, and has no score.",
            count=len(never),
        )
    for split, tally in seen.tallies.items():
        absent = [name for name, pixels in zip(names, tally.pixels, strict=True) if not pixels and name not in never]
        if absent and tally.labelled and role(split) is not None:
            yield _absent(split, absent)
    yield from _imbalance(seen)
    yield from _specks(whole, names)


def _absent(split: str, absent: list[str]) -> Finding:
    training = role(split) == "train"
    return Finding(
        "class-not-in-split",
        "warning" if training else "note",
        f"The split '{split}' does not show {plural(len(absent), 'class', 'classes')}: {few(absent, 12)}.",
        "Move some of the images that show it into this split.",
        why="It cannot be learnt." if training else "It has no score there.",
        count=len(absent),
    )


def weights_line(tally: Tally) -> str:
    r"""The recipe line that weighs the classes of a split by their median frequency.

    Args:
        tally: the split's sums, with at least one labelled pixel.

    Returns:
        The line, with a line break at its end.

    Example:
        >>> tally = Tally(2)
        >>> tally.pixels, tally.surroundings = np.array([90, 10]), np.array([100, 100])
        >>> weights_line(tally)
        'class_weights: [0.556, 5.0]  # median_frequency\n'
    """
    frequencies = Frequencies(torch.from_numpy(tally.pixels), torch.from_numpy(tally.surroundings))
    weights = class_weights(frequencies, method="median_frequency").tolist()
    return f"class_weights: {[float(f'{weight:.3g}') for weight in weights]}  # median_frequency\n"


def _imbalance(seen: Examination) -> Iterator[Finding]:
    split = seen.training
    tally = seen.tallies.get(split, seen.whole) if split else seen.whole
    shown = tally.pixels[tally.pixels > 0]
    if len(shown) < 2 or shown.max() < _IMBALANCE * shown.min():
        return
    rare = [int(index) for index in np.argsort(tally.pixels) if 0 < tally.pixels[index] * _IMBALANCE <= shown.max()]
    listed = few(f"{seen.survey.classes[index]} {share(int(tally.pixels[index]), tally.labelled)}" for index in rare)
    yield Finding(
        "imbalance",
        "note",
        f"{plural(len(rare), 'class', 'classes')} {verb(len(rare), 'are')} rare: {listed}.",
        "If they matter, weigh the classes. Weights that differ much make a training restless: "
        "class_weights: inverse_sqrt is milder than the line below.",
        why=f"The most frequent class has {number(round(shown.max() / shown.min()))} times the pixels of the rarest.",
        count=len(rare),
        mend=[Mend("recipe.yaml", weights_line(tally))],
    )


def _specks(whole: Tally, names: tuple[str, ...]) -> Iterator[Finding]:
    regions, specks = whole.objects.sum(1), whole.objects[:, :_SPECK_BITS].sum(1)
    if regions.sum() < _FEWEST_REGIONS or 2 * specks.sum() < regions.sum():
        return
    worst = [names[index] for index in np.argsort(-specks)[:5] if specks[index]]
    yield Finding(
        "specks",
        "note",
        f"{share(int(specks.sum()), int(regions.sum()))} of the regions have fewer than {2**_SPECK_BITS} pixels.",
        "Look at the masks enlarged: specks along the edges come from resizing with smoothing or from lossy files. "
        "Fine annotations have them too, and are all right.",
        why=f"Most of them are {few(worst)}.",
        count=int(specks.sum()),
    )
