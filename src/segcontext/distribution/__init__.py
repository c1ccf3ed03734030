"""Local distribution: how aggregated context is handed out to each pixel."""

from collections.abc import Mapping

from torch import nn

from segcontext.distribution.affinity import AffinityDistribution
from segcontext.distribution.identity import Identity
from segcontext.distribution.mask import MaskDistribution

#: By the names of the recipes. A new distribution takes its own file, an import above, and a line here.
DISTRIBUTIONS: Mapping[str, type[nn.Module]] = {
    "none": Identity,
    "mask": MaskDistribution,
    "affinity": AffinityDistribution,
}

__all__ = ["AffinityDistribution", "Identity", "MaskDistribution"]
