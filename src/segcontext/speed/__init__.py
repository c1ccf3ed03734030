"""Networks rearranged and compiled, so that they predict faster."""

from segcontext.speed.network import FastNetwork, Precision, Speed, check_speed, fast_network
from segcontext.speed.processor import has_bf16
from segcontext.speed.training import Compiled

__all__ = ["Compiled", "FastNetwork", "Precision", "Speed", "check_speed", "fast_network", "has_bf16"]
