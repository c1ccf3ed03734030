"""The options of ``segcontext check-gpu``."""

from __future__ import annotations

import jsonargparse

__all__ = ["gpu_options"]


def gpu_options(parser: jsonargparse.ArgumentParser) -> None:
    """Fills the parser of ``segcontext check-gpu``."""
    parser.add_argument("--device", type=str, help="cuda, or cuda:1 for the second GPU (default: the first)")
    parser.add_argument("--small", action="store_true", help="tiny sizes alone, and no times; nothing is kept")
    parser.add_argument(
        "--only", type=str, nargs="+", metavar="OPERATION", help="these operations alone; nothing is kept"
    )
    parser.add_argument("--rounds", type=int, help="how often each is timed (default: 15)")
    parser.add_argument("--timeout", type=float, help="seconds without an answer that a case is given (default: 300)")
