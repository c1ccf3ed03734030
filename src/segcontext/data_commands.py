"""What ``segcontext doctor`` and ``segcontext convert`` do with their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from segcontext.errors import RecipeError

__all__ = ["run_convert", "run_doctor"]

# Options that only some kinds of sources have a use for.
_BELONG_TO = {
    "overlap": ("coco", "labelme"),
    "line_width": ("labelme",),
    "unknown": ("colours",),
    "ending": ("colours",),
    "images": ("coco", "labelme", "colours"),
    "image_files": ("coco", "labelme", "colours"),
    "classes": ("coco", "labelme", "colours"),
    "background": ("coco", "labelme", "dataset"),
    "segments": ("dataset",),
    "dataset": ("dataset",),
}


def run_doctor(given: dict[str, Any], console: Console) -> int:
    """``segcontext doctor``: examines a data set; 1 where there are errors in it."""
    from segcontext.doctor import check_target, examine, print_diagnosis

    data, overwrite = given.pop("data"), given.pop("overwrite", False)
    out = Path(given.pop("out", f"runs/doctor-{Path(data).resolve().name}"))
    # Before the examination, which may take long.
    check_target(out, overwrite=overwrite)
    diagnosis = examine(data, console=console, **given)
    print_diagnosis(diagnosis, console)
    diagnosis.save(out, overwrite=overwrite)
    console.print(f"Page with pictures: {escape(str(out / 'doctor.html'))}", highlight=False, soft_wrap=True)
    return 0 if diagnosis.healthy else 1


def run_convert(given: dict[str, Any], console: Console) -> int:
    """``segcontext convert``: converts labels; 1 where some images or objects could not be converted."""
    from segcontext.convert import FolderTarget, from_coco, from_colours, from_labelme, kind_of, to_coco
    from segcontext.data import open_dataset

    source, to, split = given.pop("source"), given.pop("to"), given.pop("split", None)
    asked = given.pop("kind", "auto")
    kind = kind_of(source, to) if asked == "auto" else asked
    idle = [name for name in given if kind not in _BELONG_TO.get(name, (kind,))]
    if idle:
        raise RecipeError(
            f"--{idle[0]} is for {' and '.join(_BELONG_TO[idle[0]])}, but {source} is taken for {kind}. Leave it out, "
            "or say what the source is (--kind)."
        )
    if kind == "dataset":
        dataset = open_dataset(source, split or "train", dataset=given.pop("dataset", "auto"))
        done = to_coco(dataset, to, console=console, **given)
    else:
        target = FolderTarget(
            folder=Path(to),
            split=split or "",
            image_files=given.pop("image_files", "link"),
            overwrite=given.pop("overwrite", False),
        )
        conversions: dict[str, Any] = {"coco": from_coco, "labelme": from_labelme, "colours": from_colours}
        done = conversions[kind](source, target, console=console, **given)
    for failure in done.failures:
        console.print(
            f"[red]not converted[/]: {escape(f'{failure.name}: {failure.reason}')}", highlight=False, soft_wrap=True
        )
    console.print(
        f"{done.written} of {done.written + len(done.failures)} images with {len(done.classes)} classes converted into "
        f"{escape(str(done.path))}",
        highlight=False,
        soft_wrap=True,
    )
    if done.lost:
        console.print(f"[red]left out[/]: {escape(done.lost)}", highlight=False, soft_wrap=True)
    return 1 if done.failures or done.lost else 0
