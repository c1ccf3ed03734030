"""Global aggregation: how context from the whole image reaches each pixel."""

from segcontext.aggregation.a2 import A2
from segcontext.aggregation.aspp import ASPP
from segcontext.aggregation.cgnl import CGNL
from segcontext.aggregation.downsampled import Downsampled
from segcontext.aggregation.ema import EMA
from segcontext.aggregation.identity import Identity
from segcontext.aggregation.non_local import NonLocal
from segcontext.aggregation.psa import PSA
from segcontext.aggregation.psp import PSP

__all__ = ["A2", "ASPP", "CGNL", "EMA", "PSA", "PSP", "Downsampled", "Identity", "NonLocal"]
