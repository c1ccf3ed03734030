"""The commands of the command line, and their options."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jsonargparse

from segcontext.cli_costs import cost_options
from segcontext.cli_gpu import gpu_options
from segcontext.cli_help import DESCRIPTION, HelpFormatter, subparsers
from segcontext.cli_prediction import predict_options, score_options, submit_options
from segcontext.cli_weights import export_options, import_options
from segcontext.recipe import Recipe

__all__ = ["build_parser", "underscored"]


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
            "--out FOLDER [--config RECIPE] [--data FOLDER] [--KEY VALUE ...] [--resume | --overwrite]",
            "Train a network and leave a run folder with weights, scores, pictures and a report.",
            _train_options,
        ),
        (
            "recipes",
            "[WORD ...]",
            "List the recipes that come with the package, by the names that train --config takes.",
            _recipes_options,
        ),
        (
            "evaluate",
            "RUN [--data FOLDER] [--out FOLDER] [options]",
            "Score a run on labelled images: tables, confusion matrix, worst and best images.",
            score_options,
        ),
        (
            "predict",
            "RUN IMAGES [IMAGES ...] --out FOLDER [options]",
            "Segment images: index PNGs with a palette, and overlays.",
            predict_options,
        ),
        (
            "submit",
            "RUN --data FOLDER --out FOLDER [options]",
            "Predict a test split in the form of its server: Cityscapes, PASCAL VOC, ADE20K.",
            submit_options,
        ),
        (
            "doctor",
            "DATA [--out FOLDER] [options]",
            "Examine a data set before training: what is wrong with it, and the lines that mend it.",
            _doctor_options,
        ),
        (
            "convert",
            "SOURCE --to PATH [options]",
            "Turn COCO files, labelme files or masks in colours into index masks, and data sets into COCO files.",
            _convert_options,
        ),
        (
            "cost",
            "SOURCE | --model NAME | --table PAPER [--size H W] [options]",
            "Count a network's parameters, multiply-adds and memory, per part; or print a paper's table beside ours.",
            cost_options,
        ),
        (
            "check-gpu",
            "[--device DEVICE] [options]",
            "Check and time the kernels for a GPU on the one at hand; those that are right and fast run from then on.",
            gpu_options,
        ),
        (
            "import-weights",
            "FILE --out RUN [options]",
            "Bring a weight file of EMANet's or GALD's authors, OpenMMLab or torchvision into a run folder.",
            import_options,
        ),
        (
            "export-weights",
            "RUN --layout LAYOUT --out FILE [options]",
            "Write a run's weights as their code names them.",
            export_options,
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
    """Spells options as they are called: ``--output-stride`` becomes ``--output_stride``.

    Switches that also take true or false get their value, so that none takes the word after it: ``--flip`` becomes
    ``--flip=true``.

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
    switches = {name for action in known._actions if action.nargs == "?" for name in action.option_strings}
    spelt = []
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        option, equals, value = word.partition("=")
        name = f"--{option[2:].replace('-', '_')}"
        if option.startswith("--") and option not in names and name.split(".")[0] in names:
            word = f"{name}{equals}{value}"
        spelt.append(f"{word}=true" if word in switches and after.lower() not in ("true", "false") else word)
    return spelt


def _train_options(parser: jsonargparse.ArgumentParser) -> None:
    words = "a recipe: a flat YAML file of the keys below, or the name of one that segcontext recipes lists"
    parser.add_argument("--config", type=str, metavar="RECIPE", help=words)
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on where the run in that folder stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    parser.add_argument("--data", type=str, metavar="FOLDER", help="a data set's folder, or demo for the drawn scenes")
    parser.add_class_arguments(Recipe, as_group=False, skip={"data"})
    for action in parser._actions:
        if action.dest in ("aggregation", "distribution"):
            words = str(action.help).rstrip(".")
            action.help = f"{words}; another one than the recipe file's drops the file's {action.dest}_options"


def _recipes_options(parser: jsonargparse.ArgumentParser) -> None:
    words = "list those alone whose name or first line holds every word"
    parser.add_argument("words", type=str, nargs="*", metavar="WORD", help=words)


def _doctor_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("data", type=str, metavar="DATA", help="the data set's folder, or demo for the drawn scenes")
    parser.add_argument("--dataset", type=str, help="its kind: camvid, cityscapes, folder, … (default: auto)")
    words = "where page and numbers go (default: runs/doctor-NAME)"
    parser.add_argument("--out", type=str, metavar="FOLDER", help=words)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier diagnosis there")
    parser.add_argument("--limit", type=int, help="open so many images of each split only (default: all)")
    parser.add_argument(
        "--workers", type=int, help="processes that read; 0 for none but this one (default: one per core if worth it)"
    )


def _convert_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=str, metavar="SOURCE", help="a COCO file, labelme files, masks in colours, or a data set"
    )
    parser.add_argument(
        "--to", type=str, metavar="PATH", required=True, help="the folder to write, or a .json file for COCO"
    )
    for name, kind, words in (
        ("kind", Literal["auto", "coco", "labelme", "colours", "dataset"], "what the source is (default: auto)"),
        ("split", str, "sub-folder that is written, or the split that is read (default: none, train)"),
        ("images", str, "the folder of the images (default: looked for around the source)"),
        ("image_files", Literal["link", "copy", "none"], "what becomes of the images (default: link)"),
        ("classes", str, "a file with a class per line, with its colours for masks in colours"),
        ("background", str, "class of what no object covers; void leaves it unlabelled (default: background)"),
        (
            "overlap",
            Literal["smaller", "later", "void"],
            "who has a pixel of several objects (default: smaller; for labelme later)",
        ),
        ("line_width", float, "thickness of labelme's lines, in pixels (default: 10)"),
        ("unknown", Literal["error", "void", "nearest"], "colours that are no class (default: error)"),
        ("ending", str, "what masks' names hold beyond those of the images, such as _L"),
        ("segments", Literal["polygons", "rle"], "how COCO files hold regions (default: polygons)"),
        ("dataset", str, "kind of the data set: camvid, folder, … (default: auto)"),
        ("workers", int, "processes; 0 for none but this one (default: one per core if worth it)"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=words)
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")


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
