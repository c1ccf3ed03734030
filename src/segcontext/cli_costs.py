"""The options of ``segcontext cost``."""

from __future__ import annotations

from typing import Any, Literal

import jsonargparse

__all__ = ["cost_options"]


def cost_options(parser: jsonargparse.ArgumentParser) -> None:
    """Fills the parser of ``segcontext cost``."""
    parser.add_argument(
        "source", type=str, metavar="SOURCE", nargs="?", help="a recipe, a run folder, or a .safetensors file"
    )
    for name, kind, words in (
        ("model", str, "instead of a source, a named network: emanet, galdnet_v2, … or segmenter"),
        ("backbone", str, "its backbone (default: the source's, or resnet50s)"),
        ("output_stride", int, "8, 16 or 32 (default: the source's, or 8)"),
        ("options", dict[str, Any], "further options of the network, such as '{aggregation: a2}'"),
        ("num_classes", int, "classes, where no run says how many (default: 21)"),
        ("batch", int, "number of images (default: 1)"),
        ("table", Literal["emanet", "gald"], "a paper's cost table beside ours: EMANet's Table 1, GALD's Table IV"),
        ("format", Literal["text", "markdown", "json", "csv"], "how it is written (default: text)"),
        ("device", str, "for the latency: cpu, cuda, cuda:1, … (default: a GPU where there is one)"),
        ("rounds", int, "how often it is timed (default: 10)"),
        ("trust", str, "packages of which a run's file may name parts"),
    ):
        metavar = "PACKAGES" if name == "trust" else None
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=words)
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="height and width of the images, or one side (default: 513; the recipe's crop; the run's)",
    )
    parser.add_argument("--latency", action="store_true", help="measure the latency too; builds and runs the network")
