"""What the names of files, folders and lists tell."""

from __future__ import annotations

from collections.abc import Iterator

from segcontext.doctor.finding import Example, Finding, Mend
from segcontext.doctor.survey import Split, Survey, role
from segcontext.doctor.words import few, number, plural, verb

__all__ = ["check_layout"]


def check_layout(survey: Survey) -> Iterator[Finding]:
    """Looks for missing and superfluous files, wrong lists and splits that cannot be used.

    Args:
        survey: what lies in the folder.

    Yields:
        The findings.
    """
    yield from survey.findings
    yield from _splits(survey)
    yield from _masks(survey)
    yield from _lists(survey)


def _splits(survey: Survey) -> Iterator[Finding]:
    for split in survey.splits:
        if not split.items and not split.problems:
            yield Finding(
                "empty-split",
                "error" if role(split.name) == "train" else "warning",
                f"The split '{split.name}' is empty.",
                "Write lists (train.txt, val.txt) that give it images, or move some there.",
            )
        elif _has_no_masks(split) and not survey.findings:
            yield Finding(
                "unlabelled-split",
                "warning" if role(split.name) == "test" else "error",
                f"The split '{split.name}' has images and no masks at all.",
                "Add its masks, or move its images out of the data set; segcontext predict takes them from anywhere.",
                why=few(split.problems, 1),
                count=len(split.items),
            )
        elif split.problems and not (split.clashes or split.wrong_lines or split.double_lines):
            yield Finding(
                "unreadable-split",
                "error",
                f"The split '{split.name}' cannot be opened.",
                "The message below says what to do.",
                why=few(split.problems, 1),
            )
        released = survey.released.get(split.name, len(split.items))
        if len(split.items) != released:
            yield Finding(
                "release-count",
                "warning",
                f"The split '{split.name}' has {number(len(split.items))} images, the release {number(released)}.",
                "Unpack the archives again; scores would not compare with published ones.",
                count=abs(len(split.items) - released),
            )
    names = [split.name for split in survey.splits if split.items]
    for wanted, alternatives in (("train", ("training", "trainaug", "trainval")), ("val", ("validation", "test"))):
        instead = next((name for name in alternatives if name in names), None)
        if wanted not in names and instead is not None:
            yield Finding(
                "split-names",
                "note",
                f"There is no split '{wanted}', but '{instead}'.",
                "Name it in the recipe.",
                mend=[Mend("recipe.yaml", f"{wanted}_split: {instead}\n")],
            )


def _has_no_masks(split: Split) -> bool:
    return bool(split.unmasked) and not split.offered


def _masks(survey: Survey) -> Iterator[Finding]:
    missing: dict[str, str | None] = {}
    for split in survey.splits:
        if not _has_no_masks(split):
            missing.update(split.unmasked)
    lossy = {image: twin for image, twin in missing.items() if twin is not None}
    absent = [image for image in missing if image not in lossy]
    if absent:
        yield Finding(
            "missing-mask",
            "error",
            f"{plural(len(absent), 'image')} of {number(len(survey.pairs))} {verb(len(absent), 'have')} no mask.",
            "Add the masks under the images' names, or move these images elsewhere.",
            why="A training stops at the first of them.",
            count=len(absent),
            examples=[Example(image=image) for image in absent],
        )
    if lossy:
        yield Finding(
            "lossy-mask",
            "error",
            f"{plural(len(lossy), 'mask')} {verb(len(lossy), 'are')} stored as JPEG or WebP.",
            "Export the labels anew as PNG. If they are lost, and were saved in colours, "
            "`segcontext convert MASKS --classes FILE --unknown nearest` guesses them.",
            why="Lossy compression invents labels along every edge, so such files are not read.",
            count=len(lossy),
            examples=[Example(image=image, mask=twin) for image, twin in lossy.items()],
        )
    alone = sorted(_alone(survey))
    if alone:
        yield Finding(
            "missing-image",
            "warning",
            f"{plural(len(alone), 'mask')} {verb(len(alone), 'have')} no image.",
            "Add the images, or remove the masks. If the names differ by an ending, rename one of the two.",
            why="They are not used.",
            count=len(alone),
            examples=[Example(mask=mask) for mask in alone],
        )


def _alone(survey: Survey) -> set[str]:
    """Masks whose image is nowhere."""
    used = {pair.mask for pair in survey.pairs}
    known = frozenset().union(*(split.known for split in survey.splits))
    return {
        mask
        for split in survey.splits
        for name, mask in split.offered.items()
        # In a folder of one's own each split has its own masks; elsewhere the splits share a folder of them.
        if mask not in used and name not in (split.known if survey.own_folder else known)
    }


def _lists(survey: Survey) -> Iterator[Finding]:
    for code, title, cure, lines in (
        (
            "list-names-no-image",
            "of the split lists {verb} no image that is there",
            "Remove them, or add the images. A line holds a name relative to images/, with or without suffix.",
            [line for split in survey.splits for line in split.wrong_lines],
        ),
        (
            "listed-twice",
            "of the split lists {verb} an image that the list names already",
            "Remove them.",
            [line for split in survey.splits for line in split.double_lines],
        ),
    ):
        if lines:
            yield Finding(
                code,
                "error",
                f"{plural(len(lines), 'line')} {title.format(verb=verb(len(lines), 'name'))}.",
                cure,
                count=len(lines),
                examples=[Example(remark=line) for line in lines],
            )
    clashes = list(dict.fromkeys(clash for split in survey.splits for clash in split.clashes))
    if clashes:
        yield Finding(
            "same-name",
            "error",
            f"{plural(len(clashes), 'pair')} of files {verb(len(clashes), 'differ')} by their suffix alone.",
            "Keep one of each pair, since images and masks are paired by their names without suffix.",
            count=len(clashes),
            examples=[Example(remark=f"{first} and {second}") for first, second in clashes],
        )
    if survey.listed:
        chosen = {item.name for split in survey.splits for item in split.items}
        left = sorted(frozenset().union(*(split.known for split in survey.splits)) - chosen)
        if left:
            yield Finding(
                "in-no-split",
                "note",
                f"{plural(len(left), 'image')} {verb(len(left), 'are')} in no split's list.",
                "Add them to a list, unless they are left out on purpose.",
                count=len(left),
                examples=[Example(remark=name) for name in left],
            )
