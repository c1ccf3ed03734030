"""Parts a folder anew so that images that look alike stay in one split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Mend
from segcontext.doctor.survey import role
from segcontext.doctor.words import number

__all__ = ["regrouped_lists"]

# A split that would keep less than that of its images is not worth the name.
_KEPT = 0.5


def regrouped_lists(seen: Examination) -> tuple[Sequence[Mend], str]:
    """Writes the list of each split, with every group of images that look alike in the split that has most of them.

    Args:
        seen: what was seen in the data set.

    Returns:
        One list per split, or none: for data sets whose splits are published, where not every image was opened, and
        where a split would lose most of its images. Then what to tell of it: what the lists do, or why there are none,
        a sentence with a space before it, or nothing.
    """
    survey = seen.survey
    splits = [split.name for split in survey.splits if role(split.name) is not None and split.items]
    if not survey.own_folder or len(splits) < 2 or len(seen.records) < len(survey.pairs):
        return [], ""
    lists = _lists(seen, splits)
    before = Counter(split for record in seen.records for split in record.pair.splits)
    for split in splits:
        if len(lists[split]) < _KEPT * before[split]:
            return [], (
                f" No lists are given: with all images that look alike in one split, '{split}' would keep "
                f"{number(len(lists[split]))} of its {number(before[split])} images. Label images of other places or "
                f"days for it, or part the frames by time and leave out those between the parts."
            )
    mends = [Mend(f"{split}.txt", "".join(f"{name}\n" for name in sorted(names))) for split, names in lists.items()]
    return mends, " The lists below do so."


def _lists(seen: Examination, splits: Sequence[str]) -> Mapping[str, Sequence[str]]:
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    for place, record in enumerate(seen.records):
        home = next((split for split in record.pair.splits if split in splits), None)
        if home is not None:
            votes[int(seen.copies.groups[place])][home] += 1
    lists: dict[str, list[str]] = {split: [] for split in splits}
    for place, record in enumerate(seen.records):
        group = votes.get(int(seen.copies.groups[place]))
        if group:
            # Of equally many the earlier split takes them, so that validation loses images rather than honesty.
            home = max(splits, key=lambda split: (group[split], -splits.index(split)))
            lists[home].append(record.pair.image.removeprefix("images/"))
    return lists
