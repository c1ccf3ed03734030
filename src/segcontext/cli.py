"""The command line: train, evaluate, predict, demo."""

from __future__ import annotations

import argparse
import itertools
import logging
import re
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import jsonargparse
from rich.console import Console
from rich.markup import escape

from segcontext.errors import OutputExists, RecipeError, SegContextError, nearest, plain
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
        # The frames of an error that came from a reader process keep that process alive.
        traceback.clear_frames(error.__traceback__)
        return 128 + number if (number := getattr(error, "signal", 0)) else 2
    except jsonargparse.ArgumentError as error:
        message = _explain(str(error), words, parser)
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


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog="segcontext",
        description=DESCRIPTION,
        exit_on_error=False,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(
        required=True, title="commands", metavar="COMMAND", description="segcontext COMMAND --help explains each."
    )
    for name, usage, summary, fill in (
        (
            "train",
            "--out FOLDER [--config FILE] [--data FOLDER] [--KEY VALUE ...] [--resume | --overwrite]",
            "Train a network and leave a run folder with weights, scores, pictures and a report.",
            _train_options,
        ),
        (
            "evaluate",
            "RUN [--data FOLDER] [--out FOLDER] [options]",
            "Score a run on labelled images: tables, confusion matrix, worst and best images.",
            _score_options,
        ),
        (
            "predict",
            "RUN IMAGES [IMAGES ...] --out FOLDER [options]",
            "Segment images: index PNGs with a palette, and overlays.",
            _predict_options,
        ),
        (
            "demo",
            "[--out FOLDER] [options]",
            "Train, score and explain EMA with LDv2 on drawn street scenes, in a few minutes.",
            _demo_options,
        ),
    ):
        command = jsonargparse.ArgumentParser(description=summary, exit_on_error=False, formatter_class=_Formatter)
        fill(command)
        commands.add_subcommand(name, command, help=summary)
        command.prog = f"segcontext {name}"
        command.usage = f"segcontext {name} {usage}"
    return parser


class _Formatter(jsonargparse.DefaultHelpFormatter):
    """Help for people: line breaks kept, defaults where there are any, no types and no markup."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())

    def _get_help_string(self, action: argparse.Action) -> str:
        words, default = (action.help or "").replace("``", "'").rstrip("."), action.default
        if action.nargs == 0 or default in (None, argparse.SUPPRESS, {}):
            return words
        return f"{words} (default: {str(default).lower() if isinstance(default, bool) else default})"

    def _format_action(self, action: argparse.Action) -> str:
        # A heading within the heading "commands".
        return super()._format_action(action).replace("  Available subcommands:\n", "")

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        # jsonargparse's --name+ appends to a list; one way of saying it is enough here.
        names = ", ".join(name for name in action.option_strings if not name.endswith("+"))
        if action.nargs == 0:
            return names
        return f"{names} {action.metavar if isinstance(action.metavar, str) else _metavar(action)}"


def _metavar(action: argparse.Action) -> str:
    """What stands for a value in the help: its choices, or the word for its type."""
    hint = getattr(action, "_typehint", None)
    options = [part for part in get_args(hint) if part is not types.NoneType]
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, options)) + "}"
    if hint is bool:
        return "{true,false}"
    if get_origin(hint) is list:
        return "[…]"
    if get_origin(hint) is dict:
        return "{…}"
    if hint in (int, float):
        return "N" if hint is int else "X"
    return "VALUE" if len(options) > 1 and str not in options else "NAME"


def _train_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=str, metavar="FILE", help="a recipe: a flat YAML file of the keys below")
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on where the run in that folder stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    parser.add_argument("--data", type=str, metavar="FOLDER", help="a data set's folder, or demo for the drawn scenes")
    parser.add_class_arguments(Recipe, as_group=False, skip={"data"})


def _protocol_options(parser: jsonargparse.ArgumentParser) -> None:
    for name, kind, words in (
        ("mode", Literal["whole", "sliding"], "whole image or sliding window (default: whole)"),
        ("window", list[int], "[side] or [height,width] of the sliding window, in pixels; implies sliding"),
        ("overlap", float, "share of the window that neighbours have in common (default: 1/3)"),
        ("scales", list[float], "factors whose answers are averaged, such as [0.5,0.75,1] (default: [1])"),
        ("average", Literal["probabilities", "logits"], "what is averaged (default: probabilities)"),
        ("padding", Literal["none", "stride_plus_one"], "stride_plus_one pads as EMANet's authors do (default: none)"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=words)
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")


def _model_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("run", type=str, metavar="RUN", help="a run folder, or a .safetensors file of segcontext")
    parser.add_argument("--which", type=Literal["best", "last"], help="weights of the run (default: best)")
    parser.add_argument("--output_stride", type=int, help="8, 16 or 32 (default: the one of the training)")
    parser.add_argument("--iterations", type=int, help="number of EM iterations (default: the one of the training)")
    parser.add_argument("--device", type=str, help="cpu, cuda, cuda:1, … (default: a GPU where there is one)")


def _score_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("--data", type=str, metavar="FOLDER", help="the data set, or demo (default: the run's own)")
    parser.add_argument("--dataset", type=str, help="its kind: auto, camvid, folder, … (default: auto)")
    parser.add_argument("--split", type=str, help="which images (default: the run's validation split)")
    parser.add_argument("--out", type=str, metavar="FOLDER", help="where the tables go (default: RUN/evaluation)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation there")
    parser.add_argument("--limit", type=int, help="score so many images, spread over the split (default: all)")
    parser.add_argument("--workers", type=int, help="processes that read images (default: 0, none but this one)")
    parser.add_argument("--precision", type=Literal["32", "bf16"], help="numbers of the network (default: 32)")
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
    parser.add_argument("--out", type=str, metavar="FOLDER", help="the run folder (default: runs/demo)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    parser.add_argument("--seed", type=int, help="of the training; the scenes stay (default: 0)")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: 320)")


def _train(given: dict[str, Any], console: Console) -> int:
    from segcontext.training import is_primary, train

    out, resume, overwrite = given.pop("out"), given.pop("resume", False), given.pop("overwrite", False)
    config = given.pop("config", None)
    written = Path(out) / "recipe.yaml"
    source = config or (written if resume and written.is_file() else None)
    values = read_yaml(source) if source else {}
    recipe = Recipe.from_mapping({**values, **given}, source=str(source or "the command line"))
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


def _load(given: dict[str, Any]) -> Any:
    from segcontext.checkpoint import load_model

    device = _device(given.pop("device", None))
    return load_model(
        given.pop("run"),
        which=given.pop("which", "best"),
        output_stride=given.pop("output_stride", None),
        evaluation_iterations=given.pop("iterations", None),
        device=device,
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
    from segcontext.checkpoint import weight_file
    from segcontext.data import open_dataset
    from segcontext.evaluation import evaluate

    run = Path(given["run"])
    # Where there is no run, whatever else is wrong follows from that.
    weight_file(run, given.get("which", "best"))
    values = read_yaml(run / "recipe.yaml") if (run / "recipe.yaml").is_file() else {}
    data = given.pop("data", None)
    kind = given.pop("dataset", "auto" if data else values.get("dataset", "auto"))
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
    """The parser's message in the user's words, with the nearest right word for a misspelt one."""
    commands: Any = parser._subcommands_action
    known = commands._name_parser_map
    command = words[0] if words else ""
    if command not in known:
        hint = "" if command.startswith("-") else nearest(command, known)
        return f"There is no command '{command}'.{hint} Try segcontext --help."
    actions = known[command]._actions
    names = [option for action in actions for option in action.option_strings]
    end = f"Try segcontext {command} --help."
    for word in words[1:]:
        option = word.split("=")[0]
        if option.startswith("--") and option not in names and option.split(".")[0] not in names:
            hint = nearest(option.lstrip("-"), [name.lstrip("-") for name in names]).replace("'", "'--", 1)
            return f"segcontext {command} has no option {option}.{hint} {end}"
    if found := re.search(r'Parser key "(\w+)"', message):
        action = next(action for action in actions if action.dest == found[1])
        shown = f"--{found[1]}" if action.option_strings else str(action.metavar)
        given = _given(shown, words)
        kind = getattr(action, "_typehint", str)
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        return f"{shown} cannot be '{given}': expected {_expected(kind)}.{nearest(given, choices)} {end}"
    if found := re.search(r"arguments are required: (.*)", message):
        missing = [dest.strip().removeprefix(f"{command}.") for dest in found[1].split(",")]
        needed = [
            action.option_strings[0] if action.option_strings else str(action.metavar)
            for action in actions
            if action.dest in missing
        ]
        return f"segcontext {command} needs {' and '.join(needed)}. {end}"
    if found := re.match(r"argument (--\w+).*: expected .*argument", message):
        return f"{found[1]} needs a value. {end}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return f"{' '.join(lines[:3]).rstrip('.')}. {end}"


def _given(option: str, words: Sequence[str]) -> str:
    """The last value that an option was given."""
    values = [after for before, after in itertools.pairwise(words) if before == option]
    values += [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    return values[-1] if values else ""


def _expected(kind: Any) -> str:
    """A type, in words."""
    plainly = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    if kind in plainly:
        return plainly[kind]
    origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, options))
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(option) for option in options)
    if origin is list:
        return "a list such as [64,128]" if options[0] is int else "a list such as [0.5,2]"
    return "a mapping such as '{key: value}'" if origin is dict else "a word"


if __name__ == "__main__":
    sys.exit(main())
