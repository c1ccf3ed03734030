"""The core algorithms as pure functions, with the shapes in their signatures."""

from segcontext.ops.compact_attention import compact_attention
from segcontext.ops.double_attention import DoubleAttention, double_attention
from segcontext.ops.em_attention import EMAttention, em_attention, em_responsibilities
from segcontext.ops.gated_by_mask import gated_by_mask
from segcontext.ops.implementations import Implementation, use_implementation
from segcontext.ops.local_attention import local_attention
from segcontext.ops.non_local_attention import non_local_attention
from segcontext.ops.point_attention import point_attention
from segcontext.ops.resized_argmax import label_dtype, resized_argmax

__all__ = [
    "DoubleAttention",
    "EMAttention",
    "Implementation",
    "compact_attention",
    "double_attention",
    "em_attention",
    "em_responsibilities",
    "gated_by_mask",
    "label_dtype",
    "local_attention",
    "non_local_attention",
    "point_attention",
    "resized_argmax",
    "use_implementation",
]
