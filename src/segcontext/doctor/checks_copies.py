"""What images that look alike tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from segcontext.doctor.examination import Examination, Record
from segcontext.doctor.finding import Example, Finding, Mend
from segcontext.doctor.mask_probe import LABELS
from segcontext.doctor.regroup import regrouped_lists
from segcontext.doctor.survey import role
from segcontext.doctor.words import number, plural, verb

__all__ = ["check_copies", "role_of"]


def check_copies(seen: Examination) -> Iterator[Finding]:
    """Looks for images that are in two splits, doubles, neighbouring frames, and masks that were copied.

    Args:
        seen: what was seen in the data set.

    Yields:
        The findings.
    """
    same = _by_digest(seen)
    leaks = _leaks(seen, same)
    alike = [match for match in seen.copies.across if match.image not in leaks]
    lists: Sequence[Mend] = []
    told = ""
    if leaks or alike:
        lists, told = regrouped_lists(seen)
    if leaks:
        yield Finding(
            "leak",
            "error",
            f"{plural(len(leaks), 'image')} {verb(len(leaks), 'are')} in two splits that must share none.",
            f"Take them out of one of the two.{told}",
            why="Scores on images that were learnt by heart say nothing.",
            count=len(leaks),
            examples=list(leaks.values()),
            mend=lists,
        )
    if alike:
        validated = sum(role_of(record) in ("val", "test") for record in seen.records)
        yield Finding(
            "near-leak",
            "warning",
            f"{plural(len(alike), 'image')} of the {number(validated)} for validation and testing "
            f"{verb(len(alike), 'look')} like one of an earlier split.",
            f"Part the data by place, day or video, never by frame.{told}",
            why="Neighbouring frames and copies make scores better than they will be on new images.",
            count=len(alike),
            examples=[
                _twins(seen, match.image, match.other, f"they differ by {match.difference:.1f} grey levels of 255")
                for match in alike
            ],
            mend=[] if leaks else lists,
        )
    yield from _doubles(seen, same)
    yield from _neighbours(seen, same)
    yield from _copied_masks(seen)


def role_of(record: Record) -> str | None:
    """What an image is for: the earliest use among its splits."""
    roles = {role(split) for split in record.pair.splits}
    return next((wanted for wanted in ("train", "val", "test") if wanted in roles), None)


def _by_digest(seen: Examination) -> Mapping[bytes, list[int]]:
    """Positions of the images by the bytes of their files."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for place, record in enumerate(seen.records):
        if record.image is not None:
            found[record.image.digest].append(place)
    return found


def _leaks(seen: Examination, same: Mapping[bytes, list[int]]) -> dict[int, Example]:
    """Images of validation or test that are images of an earlier split, byte by byte."""
    order = {"train": 0, "val": 1, "test": 2, None: -1}
    found = {}
    for places in same.values():
        for place in places:
            record = seen.records[place]
            roles = {role(split) for split in record.pair.splits} - {None}
            if len(roles) > 1:
                found[place] = record.example(f"in the splits {', '.join(record.pair.splits)}")
                continue
            own = order[role_of(record)]
            earlier = [other for other in places if 0 <= order[role_of(seen.records[other])] < own]
            # With two kinds of labels an image is there twice, and yet one file.
            twin = next((other for other in earlier if seen.records[other].pair.image != record.pair.image), None)
            if twin is not None:
                found[place] = _twins(seen, place, twin, "the same file")
    return found


def _twins(seen: Examination, place: int, other: int, remark: str, *, masks: bool = False) -> Example:
    first, second = seen.records[place].pair, seen.records[other].pair
    splits = dict.fromkeys((first.splits[0], second.splits[0]))
    names = f"{' and '.join(splits)}: {remark}"
    return Example(
        image=first.image or first.name,
        mask=first.mask if masks else None,
        other=second.image or second.name,
        other_mask=second.mask if masks else None,
        remark=names,
    )


def _doubles(seen: Examination, same: Mapping[bytes, list[int]]) -> Iterator[Finding]:
    twice, contrary = [], []
    for places in same.values():
        paths = {seen.records[place].pair.image: place for place in reversed(places)}
        first, *others = sorted(paths.values())
        for place in others:
            if role_of(seen.records[place]) != role_of(seen.records[first]):
                continue
            masks = [seen.records[each].mask for each in (first, place)]
            if all(masks) and len({mask.digest for mask in masks if mask}) > 1:
                contrary.append(_twins(seen, place, first, "the same file, other labels", masks=True))
            else:
                twice.append(_twins(seen, place, first, "the same file"))
    if contrary:
        yield Finding(
            "contrary-labels",
            "warning",
            f"{plural(len(contrary), 'image')} {verb(len(contrary), 'are')} there twice with different labels.",
            "Keep the pair that is right.",
            count=len(contrary),
            examples=contrary,
        )
    if twice:
        yield Finding(
            "duplicate",
            "warning",
            f"{plural(len(twice), 'image')} {verb(len(twice), 'are')} there twice in one split.",
            "Remove the doubles, unless they are meant to count twice.",
            count=len(twice),
            examples=twice,
        )


def _neighbours(seen: Examination, same: Mapping[bytes, list[int]]) -> Iterator[Finding]:
    """Images of one split that look alike without being equal."""
    groups: dict[tuple[int, str | None], list[int]] = defaultdict(list)
    known = {place for places in same.values() for place in places[1:]}
    for place, record in enumerate(seen.records):
        if record.image is not None and place not in known:
            groups[int(seen.copies.groups[place]), role_of(record)].append(place)
    large = sorted((places for places in groups.values() if len(places) > 1), key=len, reverse=True)
    if large:
        count = sum(map(len, large))
        different = len(seen.records) - count + len(large)
        yield Finding(
            "near-duplicate",
            "note",
            f"{plural(count, 'image')} look like others of their split; they make {plural(len(large), 'group')}.",
            "If they are frames of a video, thin them out, and keep each video within one split.",
            why=f"{number(different)} of {number(len(seen.records))} images are different.",
            count=count,
            examples=[
                _twins(seen, places[0], places[1], f"a group of {number(len(places))} images") for places in large
            ],
        )


def _copied_masks(seen: Examination) -> Iterator[Finding]:
    """Masks that are equal although their images are not."""
    masks: dict[bytes, list[int]] = defaultdict(list)
    for place, record in enumerate(seen.records):
        # Masks of a single value are often equal, and rightly so.
        if record.mask is not None and record.mask.stores == LABELS and record.mask.distinct > 1:
            masks[record.mask.digest].append(place)
    found = []
    for places in masks.values():
        groups = {int(seen.copies.groups[place]): place for place in reversed(places)}
        first, *others = sorted(groups.values())
        found += [_twins(seen, place, first, "one mask", masks=True) for place in others if seen.records[place].image]
    if found:
        yield Finding(
            "copied-mask",
            "warning",
            f"{plural(len(found), 'mask')} {verb(len(found), 'are')} equal to that of another image, "
            "which looks different.",
            "Look whether masks were saved under the wrong name.",
            count=len(found),
            examples=found,
        )
