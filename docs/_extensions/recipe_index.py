"""Writes docs/recipes.md from the headers of the papers' recipes: ``python docs/_extensions/recipe_index.py``."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]

#: What a header holds, in its order; the first, `Test` and `Note` may be repeated.
FIELDS = ("Paper", "Expected", "Command", "Test", "Hardware", "Note")

INTRODUCTION = """\
# Recipes of the papers

<!-- Written by docs/_extensions/recipe_index.py from the headers of recipes/*/*.yaml; do not edit. -->

One file per row that the authors trained. **Nobody ran them here: the scores are those that the papers print.**

```bash
segcontext train --config recipes/gald/table1b_cgnl_v1.yaml --data_root DATASETS --out runs/gald/table1b_cgnl_v1
segcontext evaluate runs/gald/table1b_cgnl_v1 --which last
```

- A file is complete by itself. Its header names the rows, the printed scores, the commands for training and for the
  test, and what had to be decided where the paper is silent or differs from its published code.
- `segcontext evaluate`, and `segcontext submit` where only a server has the labels, follow the recipe's
  `test_protocol`: windows, scales, flip, what is averaged, padding, stride and EM iterations. Each can be overridden,
  such as `--mode whole`, `--scales [1]`, `--flip false`.
- `--which last`: the papers test the weights of the last step. The best ones would be chosen on the images that are
  scored.
- Rows with several stages are one command: `after` names the stage before, which is trained into `RUN/before`. If
  that stage was trained already, put its run folder there and add `--resume`.
- Rows that are the same run share a file.
- `batch` is the whole step's, over all GPUs; the recipe stays the same with `--devices 8`.
"""

FOLDERS = {
    "VOCdevkit": "`VOC2012/`, with `SegmentationClassAug/` or SBD; `VOC2010/` with the labels of PASCAL Context",
    "coco": "`train2017/`, `val2017/`, `stuffthingmaps/`",
    "coco_stuff10k": "COCO-Stuff 10k, version 1.1: `images/`, `annotations/`, `imageLists/`",
    "cityscapes": "`leftImg8bit/`, `gtFine/`; for Table VII `gtCoarse/` and `leftImg8bit/train_extra/`",
    "ADEChallengeData2016": "`images/`, `annotations/`",
    "camvid": "the Cambridge release, 960×720: `701_StillsRaw_full/`, `LabeledApproved_full/`",
}

DECISIONS = """\
## What goes first

What a paper prints for a row, the recipe has; what it leaves open is that of the published code; what neither says is
decided in the file's header. Two things follow that are easily missed:

- GALD's rows on Cityscapes train on crops of 832, as §IV-B prints, and not of 769, as the published code does. That
  code is of v1; its own test takes tiles of 832.
- Where a paper says two things, that which is said of the row itself goes first. EMANet's Table 1 names stride 8, and
  its authors list Table 2 as trained at 8; §6.1 says that VOC is trained at 16. So both tables are trained at 8, and
  the ablations, of which nothing else is said, at 16.

## What all of them share

- The ImageNet weights are those of timm's deep-stem ResNets; the authors' own files are others. Images go in as RGB;
  GALD's code feeds BGR, for weights that want it.
- EMANet: crops of 513, SGD of 0.009, weight decay of 10⁻⁴ and scales from 0.5 to 2 are printed. From the published
  code: steps of 0.25 between the scales, biases at twice the rate and without weight decay, batch norm of momentum
  3·10⁻⁴, cross-entropy over all pixels of the crop, images padded to the stride plus one in tests, the 3×3
  convolution before the classifier (but for Table 1), EM iterations without gradient.
- GALD: crops, batches, rates, lengths, OHEM and an auxiliary head are printed. From the published code, which is of
  v1 on Cityscapes: weight decay of 5·10⁻⁴ on everything, scales from 0.7 to 2.1 in steps of 0.1 there, OHEM's
  threshold and least number of pixels, the auxiliary head's weight of 0.4, test tiles of 832 that overlap by a third.
  Of LDv2 there is no code.
- OHEM keeps at least 100,000 pixels in each process there, and each holds one image. Here it keeps as many times that
  over the whole step as there are images in it (`ohem_scope: global`), so the number of GPUs does not matter. With
  `--accumulate N` divide `ohem_min_kept` by N.
- Non-local and CGNL see the map at half size (GALD §III-A). Rows of one aggregation differ in the distribution alone.
- There is one dropout, 0.1, before the classifier and in the auxiliary head; GALD's published head has only the latter.
- Later stages start from the weights before them, so they fetch no ImageNet weights (`pretrained: false`).
"""

LEFT_OUT = """\
## Rows without a recipe

- Methods of others whose scores the papers take over: in EMANet's Table 1 DeepLabV3, DeepLabV3+ and PSANet, whose
  scores are those of their own papers, and all rows but "EMANet" in its Tables 2 to 4; all rows but "ours" and the two
  baselines of Table IX in GALD's Tables VI to XI.
- GALD's Table V trains nothing: it scores boundaries, on whole images at one scale. For a run of Cityscapes that is
  `segcontext evaluate RUN --which last --mode whole --scales [1] --flip false --boundary paper`, whatever the recipe's
  `test_protocol` says. The paper does not say which networks it scores.
"""

#: Where the rows stand, in the papers' order, and what they have in common.
PLACES = {
    "EMANet": {
        "Table 1": "PASCAL VOC val, ResNet-101",
        "Table 2": "PASCAL VOC test",
        "Table 3": "PASCAL Context",
        "Table 4": "COCO-Stuff 10k",
        "§6.2.2": "A², Non-local and EMA with one iteration, PASCAL VOC val, ResNet-50",
        "Fig. 3 left": "how bases are kept, PASCAL VOC val, ResNet-50",
        "Fig. 3 right": "how bases are normalised, PASCAL VOC val, ResNet-50",
        "Fig. 4": "iterations in training and in evaluation, PASCAL VOC val, ResNet-50",
    },
    "GALD": {
        "Table I(a)": "aggregations, Cityscapes val, ResNet-50",
        "Table I(b)": "aggregations with LDv1, Cityscapes val, ResNet-50",
        "Table I(c)": "arrangements of CGNL and LDv1, Cityscapes val, ResNet-50",
        "Table I(d)": "aggregations with LDv2, Cityscapes val, ResNet-50",
        "Table II(a)": "downsampling in LDv1, Cityscapes val, ResNet-50",
        "Table II(b)": "window of LDv2, Cityscapes val, ResNet-50",
        "Table II(c)": "inputs of LDv2, Cityscapes val, ResNet-50",
        "Table III": "backbone, multi-grid and multi-scale test, Cityscapes val",
        "Table IV": "cost, Cityscapes val",
        "Table VI": "Cityscapes test, fine labels",
        "Table VII": "Cityscapes test, fine and coarse labels",
        "Table VIII": "PASCAL Context",
        "Table IX": "ADE20K",
        "Table X": "CamVid",
        "Table XI": "COCO-Stuff 10k",
    },
}


class Row(NamedTuple):
    """A row of a paper and the recipe that trains it."""

    paper: str
    place: str
    row: str
    path: Path


@functools.cache
def header(path: Path) -> dict[str, list[str]]:
    """The fields of a recipe's header; lines that go on are joined.

    Args:
        path: the recipe.

    Returns:
        Field to its values, both in the order of the file.
    """
    found: dict[str, list[str]] = {}
    field = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        start = re.fullmatch(r"# (\w+): +(.+)", line)
        if start:
            field = start[1]
            found.setdefault(field, []).append(start[2])
        else:
            found[field][-1] += " " + line.removeprefix("#").strip()
    return found


@functools.cache
def keys(path: Path) -> dict[str, Any]:
    """The keys of a recipe."""
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def rows(root: Path = ROOT) -> list[Row]:
    """The papers' rows, stages left out, in the order of the page.

    Args:
        root: the repository.
    """
    found = []
    for path in sorted((root / "recipes").glob("*/*.yaml")):
        for value in header(path)["Paper"]:
            paper, place, row = value.split(", ", 2)
            if ": stage " not in row:
                found.append(Row(paper, place, row, path))
    return sorted(found, key=lambda row: (_position(row), _score(row), row.row))


def chain(path: Path) -> list[Path]:
    """A recipe and those it comes after, last stage first."""
    after = keys(path).get("after")
    return [path] if after is None else [path, *chain(path.parent / after)]


def page(root: Path = ROOT) -> str:
    """The page.

    Args:
        root: the repository.

    Returns:
        Markdown.
    """
    lines = [INTRODUCTION, *_folders(root), "", DECISIONS]
    all_rows = rows(root)
    for paper, places in PLACES.items():
        lines += [f"## {paper}", ""]
        for place, words in places.items():
            lines += [f"### {place}: {words}", ""]
            lines += ["| row | printed | recipe | command |", "|---|---|---|---|"]
            lines += [_line(row) for row in all_rows if (row.paper, row.place) == (paper, place)]
            lines.append("")
    return "\n".join([*lines, LEFT_OUT, *_others(root), ""])


def _folders(root: Path) -> list[str]:
    used: dict[str, set[str]] = {}
    for path in (root / "recipes").glob("*/*.yaml"):
        values = keys(path)
        used.setdefault(values["data"], set()).add(values["dataset"])
    lines = [
        "## Folders",
        "",
        "`--data_root` names the folder that holds these; [Data sets](datasets.md) draws each.",
        "",
    ]
    lines += ["| `data` | holds | read as |", "|---|---|---|"]
    for folder in sorted(used, key=list(FOLDERS).index):
        names = ", ".join(f"`{name}`" for name in sorted(used[folder]))
        lines.append(f"| `{folder}` | {FOLDERS[folder]} | {names} |")
    return lines


def _line(row: Row) -> str:
    fields = header(row.path)
    printed = re.sub(r" \((?:as printed in the paper; )?not run here\)", "", fields["Expected"][0])
    recipe = ", after ".join(f"`{path.name}`" for path in chain(row.path))
    return f"| {row.row} | {printed} | {recipe} | `{fields['Command'][0]}` |"


def _others(root: Path) -> list[str]:
    lines = ["## Recipes of no row", "", "| recipe | for |", "|---|---|"]
    for path in sorted((root / "recipes").glob("*.yaml")):
        first = re.split(r"\n#(?:\n| [A-Z]\w+: )", path.read_text(encoding="utf-8"), maxsplit=1)[0]
        sentence = " ".join(first.replace("#", " ").split()).split(". ")[0].removesuffix(".")
        lines.append(f"| `{path.relative_to(root).as_posix()}` | {sentence} |")
    return lines


def _position(row: Row) -> tuple[int, int]:
    return list(PLACES).index(row.paper), list(PLACES[row.paper]).index(row.place)


def _score(row: Row) -> float:
    """The printed score, by which tables are ordered; figures are ordered by what their rows say."""
    score = re.match(r"\d+\.\d+", header(row.path)["Expected"][0])
    return float(score[0]) if score and row.place.startswith(("Table", "§")) else 0.0


if __name__ == "__main__":
    (ROOT / "docs" / "recipes.md").write_text(page(), encoding="utf-8")
