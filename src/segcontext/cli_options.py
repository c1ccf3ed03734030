"""The commands of the command line, and their options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jsonargparse

from segcontext.cli_help import HelpFormatter, subparsers
from segcontext.recipe import Recipe

__all__ = ["build_parser", "underscored"]

DESCRIPTION = """Context modules for semantic segmentation: train any aggregation with any distribution on a folder of
images and masks, score it, and segment new images.

  segcontext demo                                              see it all on drawn street scenes, in a few minutes
  segcontext train --data FOLDER --out runs/first              train on your own data
  segcontext train --config recipes/NAME.yaml --out runs/name  train by a recipe; any key can be overridden
  segcontext evaluate runs/first --data FOLDER                 score it
  segcontext predict runs/first photos/*.jpg --out masks       segment new images
"""


def build_parser(words: Sequence[str] = ()) -> jsonargparse.ArgumentParser:
    """The parser of all commands.

    Args:
        words: the words of the command line, for what only the help of one command needs.
    """
    parser = jsonargparse.ArgumentParser(
        prog="segcontext",
        description=DESCRIPTION,
        exit_on_error=False,
        formatter_class=HelpFormatter,
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
            functools.partial(_demo_options, explained=words[:1] == ["demo"]),
        ),
    ):
        command = jsonargparse.ArgumentParser(description=summary, exit_on_error=False, formatter_class=HelpFormatter)
        fill(command)
        commands.add_subcommand(name, command, help=summary)
        command.prog = f"segcontext {name}"
        command.usage = f"segcontext {name} {usage}"
    return parser


def underscored(words: Sequence[str], parser: jsonargparse.ArgumentParser) -> list[str]:
    """Spells options with underscores, as they are called: ``--output-stride`` becomes ``--output_stride``.

    Args:
        words: the words of the command line.
        parser: what `build_parser` gave.

    Returns:
        The words; those that are no option of the command in either spelling are left alone.
    """
    known = subparsers(parser).get(words[0]) if words else None
    if known is None:
        return list(words)
    names = {name for action in known._actions for name in action.option_strings}
    spelt = []
    for word in words:
        option, equals, value = word.partition("=")
        name = f"--{option[2:].replace('-', '_')}"
        if option.startswith("--") and option not in names and name.split(".")[0] in names:
            word = f"{name}{equals}{value}"
        spelt.append(word)
    return spelt


def _train_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=str, metavar="FILE", help="a recipe: a flat YAML file of the keys below")
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on where the run in that folder stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    parser.add_argument("--data", type=str, metavar="FOLDER", help="a data set's folder, or demo for the drawn scenes")
    parser.add_class_arguments(Recipe, as_group=False, skip={"data"})
    for action in parser._actions:
        if action.dest in ("aggregation", "distribution"):
            words = str(action.help).rstrip(".")
            action.help = f"{words}; another one than the recipe file's drops the file's {action.dest}_options"


def _protocol_options(parser: jsonargparse.ArgumentParser) -> None:
    for name, kind, words in (
        ("mode", Literal["whole", "sliding"], "whole image or sliding window (default: whole)"),
        ("window", int | list[int], "side or [height,width] of the sliding window, in pixels; implies sliding"),
        ("overlap", float, "share of the window that neighbours have in common (default: 1/3)"),
        ("scales", float | list[float], "factors whose answers are averaged, such as [0.5,0.75,1] (default: [1])"),
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
    parser.add_argument("--trust", type=str, metavar="PACKAGES", help="packages of which the file may name parts")
    parser.add_argument("--precision", type=Literal["32", "bf16"], help="numbers of the network (default: 32)")
    parser.add_argument("--device", type=str, help="cpu, cuda, cuda:1, … (default: a GPU where there is one)")


def _score_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("--data", type=str, metavar="FOLDER", help="the data set, or demo (default: the run's own)")
    parser.add_argument("--dataset", type=str, help="its kind: auto, camvid, folder, … (default: auto, else the run's)")
    parser.add_argument("--split", type=str, help="which images (default: the run's validation split)")
    parser.add_argument("--out", type=str, metavar="FOLDER", help="where the tables go (default: RUN/evaluation)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation there")
    parser.add_argument("--limit", type=int, help="score so many images, spread over the split (default: all)")
    parser.add_argument("--workers", type=int, help="processes that read images (default: 0, none but this one)")
    parser.add_argument("--batch", type=int, help="images of one size that share a step (default: 1)")
    _protocol_options(parser)


def _predict_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGES", help="files, folders or globs")
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="where masks and overlays go")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    parser.add_argument("--no_overlay", action="store_true", help="write masks alone")
    parser.add_argument("--probabilities", action="store_true", help="write class probabilities too (.npz)")
    _protocol_options(parser)


def _demo_options(parser: jsonargparse.ArgumentParser, *, explained: bool) -> None:
    defaults: Mapping[str, Any] = {}
    if explained:
        # Imports PyTorch, which only the help of this command has to wait for.
        from segcontext.demo import demo

        defaults = {name: parameter.default for name, parameter in inspect.signature(demo).parameters.items()}
    for name, kind, words in (
        ("out", str, "the run folder"),
        ("seed", int, "of the training; the scenes stay"),
        ("steps", int, "optimizer steps"),
    ):
        shown = f" (default: {defaults[name]})" if name in defaults else ""
        parser.add_argument(f"--{name}", type=kind, metavar="FOLDER" if kind is str else None, help=words + shown)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
