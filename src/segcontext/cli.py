"""The command line: train, evaluate, predict, demo."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jsonargparse
from rich.console import Console
from rich.markup import escape

from segcontext.errors import RecipeError, SegContextError, nearest, plain
from segcontext.recipe import Recipe, read_yaml

__all__ = ["main"]

DESCRIPTION = """Context modules for semantic segmentation: train any aggregation with any distribution on a folder of
images and masks, score it, and segment new images.

  segcontext demo                                              see it all on drawn street scenes, in a few minutes
  segcontext train --data FOLDER --out runs/first              train on your own data
  segcontext train --config recipes/NAME.yaml --out runs/name  train by a recipe; any key can be overridden
  segcontext evaluate runs/first --data FOLDER                 score it
  segcontext predict runs/first photos/*.jpg --out masks       segment new images
"""


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
    parser = _parser()
    if not words:
        parser.print_help()
        return 0
    try:
        options = parser.parse_args(words, defaults=False, _skip_validation=False)
        command = options["subcommand"]
        given = _as_dict(options.get(command))
        return _COMMANDS[command](given, console)
    except SegContextError as error:
        errors.print(f"[bold red]{type(error).__name__}[/]: {escape(plain(error))}", highlight=False, soft_wrap=True)
        return 128 + number if (number := getattr(error, "signal", 0)) else 2
    except jsonargparse.ArgumentError as error:
        message = _explain(str(error), words, parser)
        errors.print(f"[bold red]Not understood[/]: {escape(message)}", highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("Stopped.")
        return 130


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog="segcontext", description=DESCRIPTION, exit_on_error=False, formatter_class=_Formatter
    )
    commands = parser.add_subcommands(required=True, title="commands", metavar="COMMAND")
    for name, summary, fill in (
        (
            "train",
            "Train a network and leave a run folder with weights, scores, pictures and a report.",
            _train_options,
        ),
        (
            "evaluate",
            "Score a run on labelled images: tables, confusion matrix, worst and best images.",
            _score_options,
        ),
        ("predict", "Segment images: index PNGs with a palette, and overlays.", _predict_options),
        ("demo", "Train, score and explain EMA with LDv2 on drawn street scenes, in a few minutes.", _demo_options),
    ):
        command = jsonargparse.ArgumentParser(description=summary, exit_on_error=False, formatter_class=_Formatter)
        fill(command)
        commands.add_subcommand(name, command, help=summary)
    return parser


class _Formatter(jsonargparse.DefaultHelpFormatter):
    """Keeps the line breaks of the description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


def _train_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=str, metavar="FILE", help="a recipe: a flat YAML file of the keys below")
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on where the run in that folder stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    parser.add_argument("--data", type=str, metavar="FOLDER", help="a data set's folder, or demo for the drawn scenes")
    parser.add_class_arguments(Recipe, as_group=False, skip={"data"})


def _protocol_options(parser: jsonargparse.ArgumentParser) -> None:
    for name, kind, words in (
        ("mode", Literal["whole", "sliding"], "whole image (the default) or sliding window"),
        ("window", list[int], "[side] or [height, width] of the sliding window, in pixels"),
        ("overlap", float, "share of the window that neighbours have in common (1/3)"),
        ("scales", list[float], "factors whose answers are averaged, such as [0.5,0.75,1,1.25,1.5,1.75]"),
        ("average", Literal["probabilities", "logits"], "what is averaged"),
        ("padding", Literal["none", "stride_plus_one"], "stride_plus_one pads as EMANet's authors do"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=words)
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")


def _model_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("run", type=str, metavar="RUN", help="a run folder, or a .safetensors file of segcontext")
    parser.add_argument("--which", type=Literal["best", "last"], help="weights of the run: best (the default) or last")
    parser.add_argument("--output_stride", type=int, help="another stride than in training")
    parser.add_argument("--iterations", type=int, help="another number of EM iterations")
    parser.add_argument("--device", type=str, help="cpu, cuda, cuda:1, …; by default a GPU where there is one")


def _score_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("--data", type=str, help="the data set's folder, or demo; by default the run's own")
    parser.add_argument("--dataset", type=str, help="its kind, where it is not recognised")
    parser.add_argument("--split", type=str, help="val by default")
    parser.add_argument("--out", type=str, metavar="FOLDER", help="where the tables go; RUN/evaluation by default")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation there")
    parser.add_argument("--limit", type=int, help="score the first images only")
    parser.add_argument("--workers", type=int, help="processes that read images")
    parser.add_argument("--precision", type=Literal["32", "bf16"], help="of the network")
    _protocol_options(parser)


def _predict_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGES", help="files, folders or globs")
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="where masks and overlays go")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    parser.add_argument("--no_overlay", action="store_true", help="write masks alone")
    parser.add_argument("--probabilities", action="store_true", help="write class probabilities too (.npz)")
    _protocol_options(parser)


def _demo_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=str, metavar="FOLDER", help="the run folder; runs/demo by default")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    parser.add_argument("--seed", type=int, help="of the scenes and the training")
    parser.add_argument("--steps", type=int, help="optimizer steps")


def _train(given: dict[str, Any], console: Console) -> int:
    from segcontext.training import train

    out, resume, overwrite = given.pop("out"), given.pop("resume", False), given.pop("overwrite", False)
    config = given.pop("config", None)
    written = Path(out) / "recipe.yaml"
    source = config or (written if resume and written.is_file() else None)
    values = read_yaml(source) if source else {}
    recipe = Recipe.from_mapping({**values, **given}, source=str(source or "the command line"))
    result = train(recipe, out, resume=resume, overwrite=overwrite, console=console)
    console.print(
        f"Best validation mIoU [bold]{100 * result.best:.2f} %[/] at step {result.best_step} of {result.step}; "
        f"{result.seconds / 60:.1f} minutes. Read {escape(str(result.folder / 'report.md'))}",
        highlight=False,
    )
    return 0


def _load(given: dict[str, Any]) -> Any:
    import torch

    from segcontext.checkpoint import load_model

    device = given.pop("device", None) or ("cuda" if torch.cuda.is_available() else "cpu")
    return load_model(
        given.pop("run"),
        which=given.pop("which", "best"),
        output_stride=given.pop("output_stride", None),
        evaluation_iterations=given.pop("iterations", None),
        device=device,
    )


def _protocol(given: dict[str, Any]) -> Any:
    from segcontext.inference import Protocol

    keys: dict[str, Any] = {
        key: given.pop(key) for key in ("mode", "overlap", "average", "padding", "flip") if key in given
    }
    if "scales" in given:
        keys["scales"] = tuple(given.pop("scales"))
    if "window" in given:
        window = given.pop("window")
        keys |= {"mode": "sliding", "window": window[0] if len(window) == 1 else tuple(window)}
    return Protocol(**keys)


def _evaluate(given: dict[str, Any], console: Console) -> int:
    from segcontext.data import open_dataset
    from segcontext.evaluation import evaluate

    run = Path(given["run"])
    values = read_yaml(run / "recipe.yaml") if (run / "recipe.yaml").is_file() else {}
    data = given.pop("data", None)
    kind = given.pop("dataset", "auto" if data else values.get("dataset", "auto"))
    split = given.pop("split", values.get("val_split", "val"))
    if data is None and "data" not in values:
        raise RecipeError("Say what to evaluate on: --data FOLDER, or --data demo.")
    out = Path(given.pop("out", run / "evaluation" if run.is_dir() else f"{run.stem}-evaluation"))
    overwrite = given.pop("overwrite", False)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        from segcontext.errors import OutputExists

        raise OutputExists(f"{out} is not empty: choose another folder (--out), or allow overwriting (--overwrite).")
    dataset = open_dataset(data or values["data"], split, dataset=kind)
    model, protocol = _load(given), _protocol(given)
    found = evaluate(
        model,
        dataset,
        protocol=protocol,
        limit=given.get("limit"),
        workers=given.get("workers", 0),
        precision="bf16" if given.get("precision") == "bf16" else None,
        console=console,
    )
    found.save(out, overwrite=overwrite)
    console.print(found.table())
    console.print(found.summary(), highlight=False)
    console.print(f"Tables and pictures: {escape(str(out))}", highlight=False)
    return 0


def _predict(given: dict[str, Any], console: Console) -> int:
    from segcontext.inference import Predictor
    from segcontext.prediction import predict_files

    model = _load(given)
    results = predict_files(
        Predictor(model, protocol=_protocol(given)),
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


def _explain(message: str, words: Sequence[str], parser: jsonargparse.ArgumentParser) -> str:
    """The parser's message in one line, with the nearest right option for a misspelt one."""
    known = {"train", "evaluate", "predict", "demo"}
    if words and words[0] in known:
        commands: Any = parser._subcommands_action
        sub = commands._name_parser_map[words[0]]
        names = [option for action in sub._actions for option in action.option_strings]
        for word in words[1:]:
            option = word.split("=")[0]
            if option.startswith("--") and option not in names and option.split(".")[0] not in names:
                return f"segcontext {words[0]} has no option {option}.{nearest(option, names)} Try --help."
    elif words and not words[0].startswith("-"):
        return f"There is no command '{words[0]}'.{nearest(words[0], known)} Try segcontext --help."
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[:3]) + " Try --help."


if __name__ == "__main__":
    sys.exit(main())
