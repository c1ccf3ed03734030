"""Global aggregation: how context from the whole image reaches each pixel."""

from collections.abc import Mapping

from torch import nn

from segcontext.aggregation.a2 import A2
from segcontext.aggregation.aspp import ASPP
from segcontext.aggregation.cgnl import CGNL
from segcontext.aggregation.downsampled import Downsampled
from segcontext.aggregation.ema import EMA
from segcontext.aggregation.identity import Identity
from segcontext.aggregation.non_local import NonLocal
from segcontext.aggregation.psa import PSA
from segcontext.aggregation.psp import PSP

#: By the names of the recipes. A new aggregation takes its own file, an import above, and a line here.
AGGREGATIONS: Mapping[str, type[nn.Module]] = {
    "none": Identity,
    "psp": PSP,
    "aspp": ASPP,
    "non_local": NonLocal,
    "cgnl": CGNL,
    "psa": PSA,
    "a2": A2,
    "ema": EMA,
}

__all__ = ["A2", "ASPP", "CGNL", "EMA", "PSA", "PSP", "Downsampled", "Identity", "NonLocal"]
