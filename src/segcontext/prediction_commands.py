"""What ``segcontext evaluate``, ``predict`` and ``submit`` do with their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from segcontext.devices import usable_device
from segcontext.errors import DatasetNotFound, OutputExists, RecipeError, memory_advice
from segcontext.recipe import Recipe
from segcontext.recipe_file import read_yaml

__all__ = ["run_evaluate", "run_predict", "run_submit"]


def _load(given: dict[str, Any]) -> Any:
    from segcontext.checkpoint import load_model

    device = usable_device(given.pop("device", None))
    with memory_advice(f"The network on {device}", "Free some of it, or take another device (--device)."):
        return load_model(
            given.pop("run"),
            which=given.pop("which", "best"),
            output_stride=given.pop("output_stride", None),
            evaluation_iterations=given.pop("iterations", None),
            device=device,
            trust=[package for package in given.pop("trust", "").split(",") if package],
        )


def _protocol(given: dict[str, Any], model: Any) -> Any:
    from segcontext.inference import Protocol

    given.setdefault("padding", model.padding)
    names = ("mode", "overlap", "blend", "context", "thumbnail", "average", "padding", "flip")
    keys: dict[str, Any] = {name: given.pop(name) for name in names if name in given}
    if "scales" in given:
        scales = given.pop("scales")
        keys["scales"] = tuple(scales) if isinstance(scales, list) else (scales,)
    if "window" in given:
        window = given.pop("window")
        if isinstance(window, list):
            window = window[0] if len(window) == 1 else tuple(window)
        keys = {"mode": "sliding", **keys, "window": window}
    elif "overlap" in keys:
        raise RecipeError("--overlap is about windows: give their size too (--window).")
    return Protocol(**keys)


def _recipe_of(run: Path) -> dict[str, Any]:
    """The recipe that a run was trained by; nothing for a weight file alone."""
    return read_yaml(run / "recipe.yaml") if (run / "recipe.yaml").is_file() else {}


def _follow_test_protocol(values: dict[str, Any], given: dict[str, Any]) -> None:
    """Adds how the run's recipe says that it is tested, less what the command line says about windows otherwise."""
    kept = dict(values.get("test_protocol") or {})
    if "mode" in given or "window" in given:
        for name in ("mode", "window", "overlap", "blend", "context", "thumbnail"):
            kept.pop(name, None)
    for name, value in kept.items():
        given.setdefault(name, value)


def _data_set(given: dict[str, Any], values: dict[str, Any], split: str) -> Any:
    """The data set that the command line names, or else the run's own."""
    from segcontext.data import open_dataset

    if "data" not in given and "data" not in values:
        raise RecipeError("Say which images: --data FOLDER.")
    own = values.get("dataset", "auto")
    if "data" in given and "dataset" not in given:
        return _recognised(given["data"], split, own=own)
    data = given.get("data") or Recipe.from_mapping(values).data_path
    return open_dataset(data, split, dataset=given.get("dataset", own))


def run_evaluate(given: dict[str, Any], console: Console) -> int:
    """``segcontext evaluate``: scores a run."""
    from segcontext.checkpoint import weight_file
    from segcontext.evaluation import compare_speed, evaluate

    run = Path(given["run"])
    # Where there is no run, whatever else is wrong follows from that.
    weights = weight_file(run, given.get("which", "best"))
    measures = _measures(given)
    values = _recipe_of(run)
    if "data" not in given and "data" not in values:
        raise RecipeError("Say what to evaluate on: --data FOLDER, or --data demo.")
    _follow_test_protocol(values, given)
    out = Path(given.pop("out", run / "evaluation" if run.is_dir() else f"{run.stem}-evaluation"))
    overwrite = given.pop("overwrite", False)
    # Before the scoring, which may take long.
    if out.exists() and not out.is_dir():
        raise OutputExists(f"{out} is a file, but a folder is needed for the scores: choose another name (--out).")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise OutputExists(f"{out} is not empty: choose another folder (--out), or allow overwriting (--overwrite).")
    speed = given.get("speed", "plain")
    if given.get("compare") and speed == "plain":
        raise RecipeError("--compare is about a faster copy of the network: say which (--speed).")
    dataset = _data_set(given, values, given.get("split", values.get("val_split", "val")))
    model = _load(given)
    protocol, precision = _protocol(given, model), given.get("precision")
    found = evaluate(
        model,
        dataset,
        protocol=protocol,
        limit=given.get("limit"),
        workers=given.get("workers", 0),
        batch=given.get("batch", 1),
        pictures=given.get("pictures", 8),
        worst=given.get("worst", 0),
        precision=precision,
        speed=speed,
        measures=measures,
        weights=weights,
        console=console,
    )
    found.save(out, overwrite=overwrite)
    for table in found.tables():
        console.print(table)
    console.print(found.summary(), highlight=False)
    if given.get("compare"):
        more: dict[str, Any] = {"protocol": protocol, "precision": precision, "limit": given.get("limit")}
        found_beside = compare_speed(model, dataset, speed=speed, console=console, **more)
        console.print(str(found_beside), highlight=False)
    console.print(f"Tables and pictures: {escape(str(out))}", highlight=False)
    return 0


def _measures(given: dict[str, Any]) -> Any:
    """What is measured besides the confusion matrix."""
    from segcontext.evaluation import Measures
    from segcontext.metrics import AREAS, BINS, PAPER_SLACKS

    slacks: list[float] = []
    for slack in given.get("boundary", ()):
        slacks += PAPER_SLACKS if slack == "paper" else slack if isinstance(slack, list) else [slack]
    if "boundary_protocol" in given and not slacks:
        raise RecipeError("--boundary_protocol says how the boundary F-score is averaged: give slacks (--boundary).")
    return Measures(
        boundary=tuple(slacks),
        boundary_protocol=given.get("boundary_protocol", "paper"),
        boundary_iou=given.get("boundary_iou"),
        sizes=AREAS if given.get("sizes") else (),
        band=given.get("band"),
        calibration=BINS if given.get("calibration") else 0,
    )


def _recognised(data: str, split: str, *, own: str) -> Any:
    """The data set at `data`: of the kind that the run was trained on, or else as its layout tells."""
    from segcontext.data import open_dataset

    if own == "auto":
        return open_dataset(data, split)
    try:
        return open_dataset(data, split, dataset=own)
    except DatasetNotFound as error:
        other = error
    try:
        return open_dataset(data, split)
    except DatasetNotFound:
        if not Path(data).is_dir():
            raise
        raise other from None


def _predictor(given: dict[str, Any], model: Any, console: Console) -> Any:
    from segcontext.inference import Predictor

    return Predictor(
        model,
        protocol=_protocol(given, model),
        precision=given.get("precision"),
        speed=given.get("speed", "plain"),
        tell=console.print,
    )


def run_predict(given: dict[str, Any], console: Console) -> int:
    """``segcontext predict``: segments image files."""
    from segcontext.prediction import predict_files

    _follow_test_protocol(_recipe_of(Path(given["run"])), given)
    model = _load(given)
    results = predict_files(
        _predictor(given, model, console),
        given["images"],
        given["out"],
        overwrite=given.get("overwrite", False),
        overlay=not given.get("no_overlay", False),
        probabilities=given.get("probabilities", False),
        console=console,
    )
    failed = [result for result in results if result.error]
    for result in failed:
        console.print(f"[red]not segmented[/]: {escape(str(result.error))}", highlight=False, soft_wrap=True)
    console.print(f"{len(results) - len(failed)} of {len(results)} images segmented into {escape(given['out'])}")
    return 1 if failed else 0


def run_submit(given: dict[str, Any], console: Console) -> int:
    """``segcontext submit``: predicts a test split in the form of its server."""
    from segcontext.checkpoint import weight_file
    from segcontext.inference.memory import prediction_memory
    from segcontext.submission import write_submission

    run = Path(given["run"])
    weight_file(run, given.get("which", "best"))
    values = _recipe_of(run)
    dataset = _data_set(given, values, given.get("split", "test"))
    _follow_test_protocol(values, given)
    model = _load(given)
    predictor = _predictor(given, model, console)
    with prediction_memory(f"Segmenting {dataset.name}", predictor.protocol, precision=predictor.precision):
        done = write_submission(
            predictor,
            dataset,
            given["out"],
            overwrite=given.get("overwrite", False),
            resume=given.get("resume", False),
            console=console,
        )
    console.print(
        f"{done.images} predictions in {escape(str(done.archive))}. Hand it in at: {escape(done.page)}.",
        highlight=False,
        soft_wrap=True,
    )
    return 0
