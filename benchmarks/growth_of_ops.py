"""How the operations' times grow: with pixels, bases, iterations, the window, and classes, beside their plain forms.

`report.py` measures these curves and draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from em_attention import plain_em
from evaluation import dilated_counts, maps, smooth
from local_attention import by_unfold
from measuring import Case, Curve
from segcontext.metrics import boundary_tally, confusion_matrix
from segcontext.ops import em_attention, local_attention, non_local_attention, resized_argmax

Calls = Mapping[str, Callable[[], object]]
CHANNELS, BASES = 512, 64
SLACKS = (3, 5, 9, 12)


def cases(quick: bool) -> Iterable[Case]:
    """None: the other topics have them."""
    return ()


def curves(quick: bool) -> Iterable[Curve]:
    """All of them, at fewer points where it has to be quick."""
    step = 2 if quick else 1
    sides = (32, 48, 64, 96, 128)[::step]
    yield Curve("EM attention against pixels", "pixels", {side**2: partial(_em, side**2) for side in sides})
    bases = (16, 32, 64, 128, 256)[::step]
    yield Curve("EM attention against bases", "K, bases", {k: partial(_em, 4096, bases=k) for k in bases})
    iterations = (1, 2, 3, 5, 8)[::step]
    yield Curve(
        "EM attention against iterations", "T, iterations", {t: partial(_em, 4096, iterations=t) for t in iterations}
    )
    yield Curve("Local attention against pixels", "pixels", {side**2: partial(_local, side, 5) for side in sides[:-1]})
    yield Curve(
        "Local attention against its window", "k, side of the window", {k: partial(_local, 48, k) for k in (3, 5, 7)}
    )
    classes = (2, 19, 60, 171)[::step]
    yield Curve("Labels and confusion against classes", "classes", {k: partial(_labels, k) for k in classes}, rounds=3)
    yield Curve("Boundary F against classes", "classes", {k: partial(_boundaries, k) for k in (2, 11, 19)}, rounds=3)


def _quiet(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return call()

    return run


def _em(pixels: int, *, bases: int = BASES, iterations: int = 3) -> Calls:
    x, mu = torch.randn(1, pixels, CHANNELS), F.normalize(torch.randn(bases, CHANNELS), dim=1)
    half, turned = x.bfloat16(), x.mT.contiguous()
    query = torch.randn(1, CHANNELS // 2, pixels)
    calls = {
        "ours, float32": lambda: em_attention(x, mu, iterations=iterations),
        "ours, bfloat16": lambda: em_attention(half, mu, iterations=iterations),
        "plain form, float32": lambda: plain_em(turned, mu.mT.unsqueeze(0), iterations),
    }
    # It has neither bases nor iterations.
    if bases == BASES and iterations == 3 and pixels <= 96**2:
        calls["Non-local, float32"] = lambda: non_local_attention(query, query, query)
    return {name: _quiet(call) for name, call in calls.items()}


def _local(side: int, kernel_size: int) -> Calls:
    channels_last = {"memory_format": torch.channels_last}
    query, key, value = (torch.randn(1, 256, side, side).contiguous(**channels_last) for _ in range(3))
    first = [each.contiguous() for each in (query, key, value)]
    sizes = {"kernel_size": kernel_size, "dilation": 3, "scale": 0.06}
    return {
        "ours, channels-last": _quiet(lambda: local_attention(query, key, value, **sizes)),
        "ours, channels-first": _quiet(lambda: local_attention(*first, **sizes)),
        "plain PyTorch, shift by shift": _quiet(lambda: local_attention(*first, **sizes, implementation="reference")),
        "F.unfold": _quiet(lambda: by_unfold(*first, **sizes)),
    }


def _labels(classes: int) -> Calls:
    logits = smooth(0, classes, (64, 128))
    target = torch.randint(0, classes, (1, 512, 1024))

    def plain() -> Tensor:
        wide = F.interpolate(logits, (512, 1024), mode="bilinear", align_corners=True)
        return torch.bincount((target * classes + wide.argmax(1)).flatten(), minlength=classes**2)

    def ours() -> Tensor:
        return confusion_matrix(resized_argmax(logits, (512, 1024), align_corners=True), target, classes)

    return {"ours": _quiet(ours), "upsample, argmax, bincount": _quiet(plain)}


def _boundaries(classes: int) -> Calls:
    prediction, truth = maps(classes)
    return {
        "ours": lambda: boundary_tally(prediction, truth, classes, SLACKS),
        "OpenCV's dilation": lambda: dilated_counts(prediction, truth, classes, "opencv"),
    }
