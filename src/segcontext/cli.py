"""The command line: train, evaluate, predict, demo."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jsonargparse
from rich.console import Console
from rich.markup import escape

from segcontext.cli_help import explain
from segcontext.cli_options import build_parser as _parser
from segcontext.cli_options import underscored
from segcontext.errors import DatasetNotFound, OutputExists, RecipeError, SegContextError, plain
from segcontext.recipe import Recipe, read_yaml

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after ``segcontext``; `None` takes the process's own.

    Returns:
        The exit code: 0 done, 1 done in part, 2 for an error that the user can mend, 128 + n after signal n.
    """
    console, errors = Console(), Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    if not words:
        parser.print_help()
        return 0
    words = underscored(words, parser)
    try:
        options = parser.parse_args(words, defaults=False, _skip_validation=False)
        command = options["subcommand"]
        given = _as_dict(options.get(command))
        return _COMMANDS[command](given, console)
    except SegContextError as error:
        number = getattr(error, "signal", 0)
        if number and not _is_primary():
            # The launcher asks every process to stop, and would call the whole run failed.
            return 0
        errors.print(f"[bold red]{type(error).__name__}[/]: {escape(plain(error))}", highlight=False, soft_wrap=True)
        # The frames of an error that came from a reader process keep that process alive.
        traceback.clear_frames(error.__traceback__)
        return 128 + number if number else 2
    except jsonargparse.ArgumentError as error:
        message = explain(str(error), words, parser)
        errors.print(f"[bold red]Not understood[/]: {escape(message)}", highlight=False, soft_wrap=True)
        return 2
    except OSError as error:
        # Without a file it is nothing that the user could mend.
        if error.filename is None:
            raise
        errors.print(
            f"[bold red]Files[/]: {escape(f'{error.filename}: {error.strerror}')}. Choose another place, or mend that.",
            highlight=False,
            soft_wrap=True,
        )
        return 2
    except KeyboardInterrupt:
        errors.print("Stopped.")
        return 130


def _train(given: dict[str, Any], console: Console) -> int:
    from segcontext.training import is_primary, train

    out, resume, overwrite = given.pop("out"), given.pop("resume", False), given.pop("overwrite", False)
    config = given.pop("config", None)
    written = Path(out) / "recipe.yaml"
    source = config or (written if resume and written.is_file() else None)
    values = read_yaml(source) if source else {}
    # A run that is resumed keeps its own recipe; a change would be refused by name.
    values = {**values, **given} if source == written else _overridden(values, given)
    recipe = Recipe.from_mapping(values, source=str(source or "the command line"))
    result = train(recipe, out, resume=resume, overwrite=overwrite, console=console)
    if not is_primary():
        return 0
    console.print(
        f"Best validation mIoU [bold]{100 * result.best:.2f} %[/] at step {result.best_step} of {result.step}; "
        f"{result.seconds / 60:.1f} minutes. Read {escape(str(result.folder / 'report.md'))}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _overridden(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A recipe file's values with those of the command line, less those that go with what was replaced."""
    kept = dict(values)
    for part in ("aggregation", "distribution"):
        if part in given and given[part] != values.get(part):
            kept.pop(f"{part}_options", None)
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        # 0 asks for nothing, so the file's other one counts.
        if given.get(key):
            kept.pop(other, None)
    return {**kept, **given}


def _is_primary() -> bool:
    from segcontext.training import is_primary

    return is_primary()


def _load(given: dict[str, Any]) -> Any:
    from segcontext.checkpoint import load_model

    device = _device(given.pop("device", None))
    return load_model(
        given.pop("run"),
        which=given.pop("which", "best"),
        output_stride=given.pop("output_stride", None),
        evaluation_iterations=given.pop("iterations", None),
        device=device,
        trust=[package for package in given.pop("trust", "").split(",") if package],
    )


def _device(name: str | None) -> str:
    """The device of that name once it has been tried; a GPU where there is one and no name was given."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    advice = "Take cpu, cuda, or cuda:1 for the second GPU; or leave --device out."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(f"'{name}' is no device. {advice}") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"The device '{name}' cannot be used: {str(error).splitlines()[0]} {advice}") from error
    return name


def _protocol(given: dict[str, Any], model: Any) -> Any:
    from segcontext.inference import Protocol

    given.setdefault("padding", model.padding)
    keys: dict[str, Any] = {
        key: given.pop(key) for key in ("mode", "overlap", "average", "padding", "flip") if key in given
    }
    if "scales" in given:
        scales = given.pop("scales")
        keys["scales"] = tuple(scales) if isinstance(scales, list) else (scales,)
    if "window" in given:
        window = given.pop("window")
        if isinstance(window, list):
            window = window[0] if len(window) == 1 else tuple(window)
        keys |= {"mode": "sliding", "window": window}
    return Protocol(**keys)


def _evaluate(given: dict[str, Any], console: Console) -> int:
    from segcontext.checkpoint import weight_file
    from segcontext.data import open_dataset
    from segcontext.evaluation import evaluate

    run = Path(given["run"])
    # Where there is no run, whatever else is wrong follows from that.
    weight_file(run, given.get("which", "best"))
    values = read_yaml(run / "recipe.yaml") if (run / "recipe.yaml").is_file() else {}
    data = given.pop("data", None)
    split = given.pop("split", values.get("val_split", "val"))
    if data is None and "data" not in values:
        raise RecipeError("Say what to evaluate on: --data FOLDER, or --data demo.")
    out = Path(given.pop("out", run / "evaluation" if run.is_dir() else f"{run.stem}-evaluation"))
    overwrite = given.pop("overwrite", False)
    # Before the scoring, which may take long.
    if out.exists() and not out.is_dir():
        raise OutputExists(f"{out} is a file, but a folder is needed for the scores: choose another name (--out).")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise OutputExists(f"{out} is not empty: choose another folder (--out), or allow overwriting (--overwrite).")
    own = values.get("dataset", "auto")
    if data and "dataset" not in given:
        dataset = _recognised(data, split, otherwise=own)
    else:
        dataset = open_dataset(data or values["data"], split, dataset=given.get("dataset", own))
    model = _load(given)
    protocol = _protocol(given, model)
    found = evaluate(
        model,
        dataset,
        protocol=protocol,
        limit=given.get("limit"),
        workers=given.get("workers", 0),
        batch=given.get("batch", 1),
        precision=_precision(given),
        console=console,
    )
    found.save(out, overwrite=overwrite)
    console.print(found.table())
    console.print(found.summary(), highlight=False)
    console.print(f"Tables and pictures: {escape(str(out))}", highlight=False)
    return 0


def _recognised(data: str, split: str, *, otherwise: str) -> Any:
    """The data set at `data` as its layout tells, or else of the kind that the run was trained on."""
    from segcontext.data import open_dataset

    try:
        return open_dataset(data, split)
    except DatasetNotFound:
        if otherwise == "auto" or not Path(data).is_dir():
            raise
    return open_dataset(data, split, dataset=otherwise)


def _precision(given: dict[str, Any]) -> Literal["bf16"] | None:
    return "bf16" if given.get("precision") == "bf16" else None


def _predict(given: dict[str, Any], console: Console) -> int:
    from segcontext.inference import Predictor
    from segcontext.prediction import predict_files

    model = _load(given)
    results = predict_files(
        Predictor(model, protocol=_protocol(given, model), precision=_precision(given)),
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


def _demo(given: dict[str, Any], console: Console) -> int:
    from segcontext.demo import demo

    demo(given.pop("out", "runs/demo"), console=console, **given)
    return 0


_COMMANDS = {"train": _train, "evaluate": _evaluate, "predict": _predict, "demo": _demo}


def _as_dict(namespace: Any) -> dict[str, Any]:
    values = namespace.as_dict() if namespace else {}
    return {key: value for key, value in values.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
