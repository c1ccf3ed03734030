"""Parts a folder anew so that images that look alike stay in one split."""

from __future__ import annotations

from collections import Counter, defaultdict

from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import Mend
from segcontext.doctor.survey import role

__all__ = ["regrouped_lists"]


def regrouped_lists(seen: Examination) -> list[Mend]:
    """Writes the list of each split, with every group of images that look alike in the split that has most of them.

    Args:
        seen: what was seen in the data set.

    Returns:
        One list per split; none for data sets whose splits are published, or where not every image was opened.
    """
    survey = seen.survey
    splits = [split.name for split in survey.splits if role(split.name) is not None and split.items]
    if not survey.own_folder or len(splits) < 2 or len(seen.records) < len(survey.pairs):
        return []
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
    return [Mend(f"{split}.txt", "".join(f"{name}\n" for name in sorted(names))) for split, names in lists.items()]
