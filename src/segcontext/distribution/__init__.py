"""Local distribution: how aggregated context is handed out to each pixel."""

from segcontext.distribution.affinity import AffinityDistribution
from segcontext.distribution.identity import Identity
from segcontext.distribution.mask import MaskDistribution

__all__ = ["AffinityDistribution", "Identity", "MaskDistribution"]
