"""The options of ``segcontext import-weights`` and ``segcontext export-weights``."""

from __future__ import annotations

from typing import Literal

import jsonargparse

__all__ = ["export_options", "import_options"]

_LAYOUTS = "emanet, gald, openmmlab_… (emanet, pspnet, deeplabv3, deeplabv3_plus, nonlocal, psanet), torchvision_…"


def import_options(parser: jsonargparse.ArgumentParser) -> None:
    """Fills the parser of ``segcontext import-weights``."""
    parser.add_argument("file", type=str, metavar="FILE", help="a .pth, .pt or .safetensors file of others")
    parser.add_argument("--out", type=str, metavar="RUN", required=True, help="the run folder; nothing may be there")
    parser.add_argument("--dataset", type=str, help="data set that names the classes: voc, cityscapes, ade20k, …")
    parser.add_argument(
        "--align_corners", type=bool, help="of OpenMMLab's networks: true for those of 769×769 (default: by the file)"
    )


def export_options(parser: jsonargparse.ArgumentParser) -> None:
    """Fills the parser of ``segcontext export-weights``."""
    parser.add_argument("run", type=str, metavar="RUN", help="a run folder, or a .safetensors file of segcontext")
    parser.add_argument("--layout", type=str, required=True, help=f"{_LAYOUTS} (fcn, deeplabv3)")
    parser.add_argument("--out", type=str, metavar="FILE", required=True, help="a .pth, .pt or .safetensors file")
    parser.add_argument("--which", type=Literal["best", "last"], help="weights of the run (default: best)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is already there")
