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
            _score_options,
        ),
        (
            "predict",
            "RUN IMAGES [IMAGES ...] --out FOLDER [options]",
            "Segment images: index PNGs with a palette, and overlays.",
            _predict_options,
        ),
        (
            "submit",
            "RUN --data FOLDER --out FOLDER [options]",
            "Predict a test split in the form of its server: Cityscapes, PASCAL VOC, ADE20K.",
            _submit_options,
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


def _protocol_options(parser: jsonargparse.ArgumentParser) -> None:
    for name, kind, words in (
        ("mode", Literal["whole", "sliding"], "whole image or sliding window (default: whole)"),
        ("window", int | list[int], "side or [height,width] of the sliding window, in pixels; implies sliding"),
        ("overlap", float, "share of the window that neighbours have in common (default: 1/3)"),
        ("blend", Literal["uniform", "gaussian"], "weights of overlapping windows (default: uniform)"),
        ("context", Literal["window", "image"], "image: windows share EM bases of the whole image (default: window)"),
        ("thumbnail", int, "longer side of the image those are found on (default: the window's longer side)"),
        ("scales", float | list[float], "factors whose answers are averaged, such as [0.5,0.75,1] (default: [1])"),
        ("average", Literal["probabilities", "logits"], "what is averaged (default: probabilities)"),
        ("padding", Literal["none", "stride_plus_one"], "stride_plus_one pads as EMANet's authors do (default: none)"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=words)
    words = "average with the mirrored image; --flip alone is true (default: false)"
    parser.add_argument("--flip", type=bool, nargs="?", const=True, help=words)


def _model_options(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("run", type=str, metavar="RUN", help="a run folder, or a .safetensors file of segcontext")
    parser.add_argument("--which", type=Literal["best", "last"], help="weights of the run (default: best)")
    parser.add_argument("--output_stride", type=int, help="8, 16 or 32 (default: the one of the training)")
    parser.add_argument("--iterations", type=int, help="number of EM iterations (default: the one of the training)")
    parser.add_argument("--trust", type=str, metavar="PACKAGES", help="packages of which the file may name parts")
    words = "numbers of the network (default: 32; for a faster copy bf16 where the processor multiplies it)"
    parser.add_argument("--precision", type=Literal["32", "bf16"], help=words)
    words = "plain, or a faster copy of the network: folded, or compiled for sizes that come again (default: plain)"
    parser.add_argument("--speed", type=Literal["plain", "folded", "compiled"], help=words)
    parser.add_argument("--device", type=str, help="cpu, cuda, cuda:1, … (default: a GPU where there is one)")


def _score_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("--data", type=str, metavar="FOLDER", help="the data set, or demo (default: the run's own)")
    words = "its kind: auto, camvid, cityscapes, folder, … (default: the run's, else auto)"
    parser.add_argument("--dataset", type=str, help=words)
    parser.add_argument("--split", type=str, help="which images (default: the run's validation split)")
    parser.add_argument("--out", type=str, metavar="FOLDER", help="where the tables go (default: RUN/evaluation)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation there")
    parser.add_argument("--limit", type=int, help="score so many images, spread over the split (default: all)")
    parser.add_argument("--workers", type=int, help="processes that read images (default: 0, none but this one)")
    parser.add_argument("--batch", type=int, help="images of one size that share a step (default: 1)")
    parser.add_argument("--pictures", type=int, help="images to look at, from the worst to the best (default: 8)")
    words = "with --speed: ask the network as it is too, and say how far the faster copy is from it"
    parser.add_argument("--compare", action="store_true", help=words)
    parser.add_argument("--worst", type=int, help="so many of the worst images among them in any case (default: 0)")
    _measure_options(parser)
    _protocol_options(parser)


def _measure_options(parser: jsonargparse.ArgumentParser) -> None:
    # More than one way of saying it: 3 5 9 12, [3,5,9,12], or the paper's four.
    slacks = float | list[float] | Literal["paper"]
    words = "boundary F-score at these slacks, pixels from 1 up or shares of the diagonal; paper: GALD's four shares"
    parser.add_argument("--boundary", type=slacks, nargs="+", metavar="SLACKS", help=words)
    for name, kind, words in (
        ("boundary_protocol", Literal["paper", "strict"], "strict skips images without the class (default: paper)"),
        ("boundary_iou", float, "Boundary IoU of this width, pixels or a share of the diagonal, such as 0.02"),
        ("band", float, "scores inside and outside of this distance from true boundaries, pixels or a share"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=words)
    parser.add_argument("--sizes", action="store_true", help="IoU of small, medium and large objects")
    parser.add_argument("--calibration", action="store_true", help="calibration error, confidence and entropy (slower)")


def _predict_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGES", help="files, folders or globs")
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="where masks and overlays go")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    parser.add_argument("--no_overlay", action="store_true", help="write masks alone")
    parser.add_argument("--probabilities", action="store_true", help="write class probabilities too (.npz)")
    _protocol_options(parser)


def _submit_options(parser: jsonargparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("--data", type=str, metavar="FOLDER", help="the data set (default: the run's own)")
    parser.add_argument("--dataset", type=str, help="its kind: cityscapes, voc, ade20k (default: the run's, else auto)")
    parser.add_argument("--split", type=str, help="which images (default: test)")
    parser.add_argument(
        "--out", type=str, metavar="FOLDER", required=True, help="where they go; the archive lies beside that folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace predictions that are already there")
    parser.add_argument("--resume", action="store_true", help="keep them, and make the others")
    _protocol_options(parser)


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
