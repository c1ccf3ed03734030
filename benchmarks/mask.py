"""LDv1 beside its plain form, and its gate beside copies of the features.

    python benchmarks/mask.py [--quick]

The plain form is written here as the papers' code evaluates it: the mask upsampled, its sigmoid, product, sum. Copies
are what bounds the gate: one into fresh memory as PyTorch takes it, and one into pages of 2 MiB, as the gate does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from local_attention import distance
from measuring import Case, alone
from segcontext.distribution import MaskDistribution
from segcontext.native import pages
from segcontext.ops import gated_by_mask

TOPIC = "Masks (LDv1)"
SHAPE = (1, 512, 128, 256)
SMALL = (1, 512, 16, 32)
LAYOUTS = {"channels-first": torch.contiguous_format, "channels-last": torch.channels_last}


def _copied(x: Tensor) -> Tensor:
    return pages.empty_like(x).copy_(x)


def plain_gate(x: Tensor, logits: Tensor) -> Tensor:
    """GALD eqs. 1-2, one tensor after the other."""
    mask = F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=True).sigmoid()
    return mask * x + x


def plain_module(part: MaskDistribution, x: Tensor) -> Tensor:
    """Depthwise convolutions with batch norm and ReLU, then the gate."""
    return plain_gate(x, part.shrink(x))


def our_module(part: MaskDistribution, x: Tensor) -> Tensor:
    """The same through the library."""
    return part(x, x).features


def _forward(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
    with torch.no_grad():
        return function(*given)


def _both(function: Callable[..., Tensor], weights: list[Tensor], sign: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    tensors = [each.detach().requires_grad_() for each in given]
    return torch.autograd.grad(function(*tensors), [*tensors, *weights], sign)


def _agree(ours: Callable[[], Tensor], baseline: Callable[[], Tensor]) -> str:
    """Forward alone: weights that batch norm takes the effect of have gradients of rounding errors."""
    return distance(ours, baseline, 1e-4)


def cases(quick: bool) -> Iterator[Case]:
    """512 channels at 128×256, a mask of an eighth."""
    torch.manual_seed(0)
    x, logits = torch.randn(SHAPE), torch.randn(SMALL)
    sign = torch.randn(SHAPE)
    for layout, memory_format in list(LAYOUTS.items())[: 1 if quick else None]:
        own, own_sign = (each.contiguous(memory_format=memory_format) for each in (x, sign))
        what = f"1×512×128×256, float32, {layout}"
        ours = partial(_forward, gated_by_mask, own, logits)
        other = partial(_forward, plain_gate, x, logits)
        agree = partial(_agree, ours, other)
        yield Case(TOPIC, f"gate, {what}, forward", ours, other, "plain PyTorch", agree, 6)
        for copy, name in ((own.clone, "a copy of the features"), (partial(_copied, own), "a copy into large pages")):
            yield Case(TOPIC, f"gate, {what}, forward", ours, copy, name, lambda: "–", None)
        both = partial(_both, gated_by_mask, [], own_sign, own, logits)
        plain = partial(_both, plain_gate, [], sign, x, logits)
        yield Case(TOPIC, f"gate, {what}, with backward", both, plain, "plain PyTorch", agree, 3)
        part = MaskDistribution(SHAPE[1], SHAPE[1]).eval()
        ours, other = (
            partial(_forward, partial(our_module, part), own),
            partial(_forward, partial(plain_module, part), x),
        )
        agree = partial(_agree, ours, other)
        yield Case(TOPIC, f"module, {what}, forward", ours, other, "plain PyTorch", agree, 6)
        # In evaluation's mode, frozen batch norm as in fine-tuning, so that both sides have the same weights to learn.
        weights = list(part.parameters())
        both = partial(_both, partial(our_module, part), weights, own_sign, own)
        plain = partial(_both, partial(plain_module, part), weights, sign, x)
        yield Case(TOPIC, f"module, {what}, with backward", both, plain, "plain PyTorch", agree, 3)
        # With batch norm by the statistics of the batch.
        learner = MaskDistribution(SHAPE[1], SHAPE[1])
        agree = partial(
            _agree,
            partial(_forward, partial(our_module, learner), own),
            partial(_forward, partial(plain_module, learner), x),
        )
        weights = list(learner.parameters())
        both = partial(_both, partial(our_module, learner), weights, own_sign, own)
        plain = partial(_both, partial(plain_module, learner), weights, sign, x)
        yield Case(TOPIC, f"module in training, {what}, with backward", both, plain, "plain PyTorch", agree, 3)


def main() -> None:
    alone(__doc__, cases)


if __name__ == "__main__":
    main()
