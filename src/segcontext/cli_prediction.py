"""The options of ``segcontext evaluate``, ``predict`` and ``submit``."""

from __future__ import annotations

from typing import Literal

import jsonargparse

__all__ = ["predict_options", "score_options", "submit_options"]


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


def score_options(parser: jsonargparse.ArgumentParser) -> None:
    """Fills the parser of ``segcontext evaluate``."""
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


def predict_options(parser: jsonargparse.ArgumentParser) -> None:
    """Fills the parser of ``segcontext predict``."""
    _model_options(parser)
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGES", help="files, folders or globs")
    parser.add_argument("--out", type=str, metavar="FOLDER", required=True, help="where masks and overlays go")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    parser.add_argument("--no_overlay", action="store_true", help="write masks alone")
    parser.add_argument("--probabilities", action="store_true", help="write class probabilities too (.npz)")
    _protocol_options(parser)


def submit_options(parser: jsonargparse.ArgumentParser) -> None:
    """Fills the parser of ``segcontext submit``."""
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
