"""The diagnosis as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from segcontext.doctor.charts import bars, curves, dots
from segcontext.doctor.examination import Examination
from segcontext.doctor.finding import SEVERITIES, Finding
from segcontext.doctor.objects import BINS
from segcontext.doctor.style import STYLE
from segcontext.doctor.tally import Tally
from segcontext.doctor.thumbnails import Thumbnail, example_thumbnails, sample_thumbnails
from segcontext.doctor.words import number, plural, share
from segcontext.pictures import default_palette

__all__ = ["draw_page"]

_SAMPLES, _EXAMPLES, _NAMED = 12, 4, 20
_SHORT = ("recipe.yaml", "classes.txt", "command")


def draw_page(seen: Examination, findings: Sequence[Finding], mend: Mapping[str, str]) -> str:
    """Draws the page: findings with pictures, the lines that mend them, and the numbers.

    Args:
        seen: what was seen in the data set.
        findings: what is wrong, the worst first.
        mend: the lines that mend it, by the files they belong in.

    Returns:
        HTML.
    """
    survey = seen.survey
    title = f"Doctor: {survey.place}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=lead>{_verdict(findings)} {plural(len(seen.records), 'image')} of "
        f"{number(len(survey.pairs))} examined; data set <code>{escape(survey.name)}</code>, "
        f"{plural(len(survey.classes), 'class', 'classes')}.</p>",
        "<h2>Findings</h2>" if findings else "",
        *(_finding(seen, finding) for finding in findings),
        "<h2>Lines to copy</h2>",
        *(f"<h3>{escape(file)}</h3>{_lines(text)}" for file, text in mend.items()),
        "<h2>Splits</h2>",
        _splits(seen),
        _classes(seen),
        "<h2>Images</h2>",
        _images(seen),
        "<h2>Samples</h2>",
        _gallery(sample_thumbnails(seen, _SAMPLES)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>'
        + "\n".join(part for part in parts if part)
        + "</body></html>\n"
    )


def _verdict(findings: Sequence[Finding]) -> str:
    counts = [(severity, sum(finding.severity == severity for finding in findings)) for severity in SEVERITIES]
    shown = [f'<span class="{severity}">{plural(count, severity)}</span>' for severity, count in counts if count]
    return (", ".join(shown) or "Nothing is wrong") + "."


def _finding(seen: Examination, finding: Finding) -> str:
    pictures = [picture for example in finding.examples[:_EXAMPLES] for picture in example_thumbnails(seen, example)]
    listed = "".join(f"<li>{escape(str(example))}</li>" for example in finding.examples[:_NAMED])
    more = finding.count - _NAMED
    if listed and more > 0:
        listed += f"<li>and {number(more)} more</li>"
    return (
        f'<section class="card {finding.severity}"><h3><span class="{finding.severity}">{finding.severity}</span> '
        f"{escape(finding.title)} <code>{finding.code}</code></h3>"
        + (f"<p>{escape(finding.why)}</p>" if finding.why else "")
        + f"<p><b>{escape(finding.cure)}</b></p>"
        # Lists are long; they stand below.
        + "".join(f"<p>{escape(mend.file)}:</p>{_lines(mend.text)}" for mend in finding.mend if mend.file in _SHORT)
        + _gallery(pictures)
        + (f"<details><summary>Files</summary><ul>{listed}</ul></details>" if listed else "")
        + "</section>"
    )


def _lines(text: str) -> str:
    lines = text.splitlines()
    shown = "\n".join(lines[:200]) + (f"\n… {len(lines) - 200} more lines in mend/" if len(lines) > 200 else "")
    return f"<pre>{escape(shown)}</pre>"


def _gallery(pictures: Iterable[Thumbnail]) -> str:
    figures = [
        f'<figure><img src="{picture.uri}" alt=""><figcaption>{escape(picture.caption)}</figcaption></figure>'
        for picture in pictures
    ]
    return f'<div class="gallery">{"".join(figures)}</div>' if figures else ""


def _splits(seen: Examination) -> str:
    rows = []
    for split in seen.survey.splits:
        tally = seen.tallies[split.name]
        colour = tally.channels()
        rows.append(
            [
                escape(split.name),
                number(len(split.items)),
                number(tally.images),
                number(tally.masks),
                share(tally.void, tally.void + tally.labelled),
                *(" ".join(f"{value:.3f}" for value in colour[key]) for key in ("mean", "deviation")),
            ]
        )
    heads = ("split", "images", "read", "masks", "void", "mean R G B", "deviation R G B")
    return _table(heads, rows)


def _classes(seen: Examination) -> str:
    survey = seen.survey
    if not survey.classes:
        return ""
    palette = survey.palette or default_palette(len(survey.classes))
    labelled = {split.name: seen.tallies[split.name] for split in survey.splits if seen.tallies[split.name].labelled}
    rows = []
    for index, name in enumerate(survey.classes):
        red, green, blue = palette[index]
        swatch = f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'
        row = seen.whole.objects[index]
        rows.append(
            [
                f"{swatch}{index} {escape(name)}",
                *(_share_bar(tally, index) for tally in labelled.values()),
                number(int(seen.whole.presence[index])),
                number(int(row.sum())),
                _object_sizes(row.tolist()),
            ]
        )
    heads = ("class", *(f"pixels in {name}" for name in labelled), "masks", "regions", "their sizes in pixels")
    return "<h2>Classes</h2>" + _table(heads, rows)


def _share_bar(tally: Tally, index: int) -> str:
    part = int(tally.pixels[index])
    width = 100 * part / max(tally.labelled, 1)
    return f'<span class="bar" style="width:{width:.1f}px"></span> {share(part, tally.labelled)}'


def _object_sizes(row: Sequence[int]) -> str:
    """A bar for each power of two, up to the largest region."""
    last = max((place for place in range(BINS) if row[place]), default=-1)
    if last < 0:
        return "–"
    titles = [f"{2**place:,} to {2 ** (place + 1) - 1:,}: {row[place]:,}" for place in range(last + 1)]
    return bars(row[: last + 1], titles, width=7 * (last + 1)) + f" <small>1 … {2 ** (last + 1) - 1:,}</small>"


def _images(seen: Examination) -> str:
    tally = seen.whole
    if not tally.images:
        return "<p>None was read.</p>"
    sizes = ", ".join(f"{width}×{height} ({number(count)})" for (width, height), count in tally.sizes.most_common(6))
    modes = ", ".join(f"{mode} ({number(count)})" for mode, count in tally.modes.most_common())
    mask_modes = ", ".join(f"{mode} ({number(count)})" for mode, count in tally.mask_modes.most_common()) or "–"
    # Ends of the range hold the clipped pixels, beside which nothing else would be seen.
    tones = np.minimum(tally.histogram, np.quantile(tally.histogram, 0.99))
    channels = dict(zip(("#d33", "#2a2", "#36d"), tones, strict=True))
    return (
        f'<div class="row"><figure>{dots(tally.sizes)}<figcaption>width and height</figcaption></figure>'
        f"<figure>{curves(channels)}<figcaption>values of red, green and blue, 0 … 255</figcaption></figure></div>"
        f"<p>Sizes: {sizes}{' …' if len(tally.sizes) > 6 else ''}. Modes of images: {modes}. "
        f"Of masks: {mask_modes}.</p>"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
