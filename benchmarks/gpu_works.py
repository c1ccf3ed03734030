"""What `gpu_ops.py` compares: the operations' kernels with named baselines, and the least that each has to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from measuring import Case
from segcontext import ops
from segcontext.gpu.em_attention import em_attention, em_bases
from segcontext.gpu.em_output import em_output
from segcontext.gpu.gating import gate
from segcontext.gpu.local_attention import local_attention
from segcontext.gpu_check.case import far

__all__ = ["SMALL", "Sizes", "Work", "em_unit", "gating", "local"]

#: An H200: bytes/s of its memory, bfloat16 operations/s of its tensor cores (dense, as measured at best).
BYTES, OPERATIONS = 4.8e12, 790e12


@dataclass(frozen=True)
class Work:
    """A comparison, with what it has to do at least.

    Attributes:
        case: ours and the baseline.
        operations: of the tensor cores, two to a multiply-add.
        bytes: read and written, each once.
        microseconds: the goal of ours, where there is one beside the ratio.
        waits: whether the baseline waits for the host, so that it cannot be a CUDA graph.
    """

    case: Case
    operations: float
    bytes: float
    microseconds: float | None = None
    waits: bool = False

    @property
    def floor(self) -> float:
        """Seconds that no form can stay below."""
        return max(self.operations / OPERATIONS, self.bytes / BYTES)


@dataclass(frozen=True)
class Sizes:
    """Maps of the comparisons."""

    batch: int = 2
    height: int = 128
    width: int = 256
    channels: int = 512
    depth: int = 256
    bases: int = 64
    image: tuple[int, int] = (1024, 2048)
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16

    def map(self, channels: int, *, size: tuple[int, int] | None = None) -> Tensor:
        """Random values, channels last."""
        shape = (self.batch, channels, *(size or (self.height, self.width)))
        return torch.randn(shape, device=self.device).to(self.dtype, memory_format=torch.channels_last)


SMALL = Sizes(1, 6, 10, 32, 16, 4, (48, 80), "cpu", torch.float32)


def apart(found: Tensor, wanted: Tensor, most: float) -> str:
    """How far two results are apart, relatively; an error where it is too far."""
    error = far([found], [wanted])
    if not error <= most:
        raise ArithmeticError(f"Results are {error:.1e} apart, more than {most:.0e}.")
    return f"{error:.1e}"


def slack(dtype: torch.dtype) -> float:
    """What rounding explains."""
    return 2e-2 if dtype != torch.float32 else 1e-5


def em_unit(sizes: Sizes) -> Iterable[Work]:
    """The EM attention unit in prediction against its plain form, and EM against SDPA's Non-local."""
    size, count = sizes.channels, sizes.batch * sizes.height * sizes.width
    x = sizes.map(size)
    weights = [torch.randn(size, size, device=x.device).to(x.dtype) * (2 / size) ** 0.5 for _ in range(2)]
    shifts = [torch.randn(size, device=x.device).to(x.dtype) for _ in range(2)]
    bases = F.normalize(torch.randn(sizes.bases, size, device=x.device), dim=1)
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)

    def ours() -> Tensor:
        run = em_bases(pixels, bases, weight=weights[0], bias=shifts[0])
        return em_output(pixels, run.shares, run.bases.to(x.dtype), weights[1], shifts[1])

    def plain(x: Tensor, weights: list[Tensor], shifts: list[Tensor], means: Tensor) -> Tensor:
        # As the authors' code has it: channels first, two 1×1 convolutions, three steps in the map's dtype.
        batch, _, height, width = x.shape
        flat = F.conv2d(x, weights[0][..., None, None], shifts[0]).flatten(2)
        means = means.to(x.dtype).mT.expand(batch, -1, -1)
        for _ in range(3):
            z = (flat.mT @ means).softmax(2)
            means = flat @ (z / (1e-6 + z.sum(1, keepdim=True)))
            means = means / (1e-6 + means.norm(dim=1, keepdim=True))
        found = (means @ z.mT).view(batch, -1, height, width).relu()
        return (F.conv2d(found, weights[1][..., None, None], shifts[1]) + x).relu()

    def agreement() -> str:
        wide = (x[:1].double(), [each.double() for each in weights], [each.double() for each in shifts])
        wanted = plain(*wide, bases.double()).permute(0, 2, 3, 1).flatten(1, 2)
        return apart(ours()[:1], wanted, slack(x.dtype))

    work = count * size * 2 * (7 * sizes.bases + size)
    yield Work(
        Case(
            *("EM attention", f"unit, {_shape(x)}, K = {sizes.bases}"),
            *(ours, partial(plain, x.contiguous(), weights, shifts, bases), "eager, plain form", agreement, 3.5),
        ),
        *(work, 2 * x.numel() * x.element_size(), 110),
    )
    key, query = (torch.randn(sizes.batch, 1, count // sizes.batch, sizes.depth, device=x.device).to(x.dtype)
                  for _ in range(2))  # fmt: skip
    alone = partial(em_attention, pixels, bases)
    yield Work(
        Case(
            *("EM attention", f"op, {_shape(x)}, against Non-local with {sizes.depth}-channel keys"),
            *(alone, partial(F.scaled_dot_product_attention, query, key, key), "SDPA Non-local"),
            *(lambda: apart(alone().bases, ops.em_attention(pixels, bases).bases, 1e-2), 35),
        ),
        *(count * size * 14 * sizes.bases, 2 * x.numel() * x.element_size()),
    )


def unfolded(query: Tensor, key: Tensor, value: Tensor, dilation: int, scale: float) -> Tensor:
    """Local attention by F.unfold, as it is usually written."""
    batch, _, height, width = query.shape
    key, value = (
        F.unfold(each, 5, dilation=dilation, padding=2 * dilation).view(batch, each.shape[1], 25, height * width)
        for each in (key, value)
    )
    weights = (scale * (query.flatten(2).unsqueeze(2) * key).sum(1)).softmax(1)
    return (weights.unsqueeze(1) * value).sum(2).view(batch, -1, height, width)


def local(sizes: Sizes) -> Iterable[Work]:
    """LDv2's attention, forward and with backward, at the paper's dilations."""
    for dilation in (3, 6):
        maps = [sizes.map(each).requires_grad_() for each in (sizes.depth, sizes.depth, sizes.channels)]
        slope, scale = sizes.map(sizes.channels), sizes.depth**-0.5
        ours = partial(local_attention, *maps, dilation=dilation, scale=scale)
        baseline = partial(unfolded, *maps, dilation, scale)
        count, size = sizes.batch * sizes.height * sizes.width, maps[0].element_size()
        multiplied = 2 * 25 * count * (sizes.depth + sizes.channels)
        moved = count * (2 * sizes.depth + 2 * sizes.channels) * size
        name = f"k = 5, r = {dilation}, {_shape(maps[2])}, D = {sizes.depth}"

        def forward(call: Callable[[], Tensor]) -> Tensor:
            with torch.no_grad():
                return call()

        def both(call: Callable[[], Tensor], maps: list[Tensor] = maps, slope: Tensor = slope) -> tuple[Tensor, ...]:
            return torch.autograd.grad(call(), maps, slope)

        def exact(maps: list[Tensor] = maps, dilation: int = dilation, scale: float = scale) -> Tensor:
            return ops.local_attention(*(each[:1].double() for each in maps), dilation=dilation, scale=scale)

        def agreement(ours: Callable[[], Tensor] = ours, exact: Callable[[], Tensor] = exact) -> str:
            with torch.no_grad():
                return apart(ours()[:1], exact(), slack(sizes.dtype))

        def slopes(
            ours: Callable[[], Tensor] = ours,
            exact: Callable[[], Tensor] = exact,
            maps: list[Tensor] = maps,
            slope: Tensor = slope,
        ) -> str:
            found = torch.autograd.grad(ours(), maps, slope)
            wanted = torch.autograd.grad(exact(), maps, slope[:1].double())
            return ", ".join(apart(a[:1], b[:1], slack(sizes.dtype)) for a, b in zip(found, wanted, strict=True))

        yield Work(
            Case(
                *("Local attention (LDv2)", f"forward, {name}"),
                *(partial(forward, ours), partial(forward, baseline), "F.unfold", agreement, 30),
            ),
            *(multiplied, moved, 90),
        )
        yield Work(
            Case(
                *("Local attention (LDv2)", f"with backward, {name}"),
                *(partial(both, ours), partial(both, baseline), "F.unfold", slopes, 30),
            ),
            # Logits and slopes of weights once more each, three more products; each map again, and three slopes.
            *(multiplied * 3.5, moved + count * (4 * sizes.depth + 4 * sizes.channels) * size, 350),
        )


def gating(sizes: Sizes) -> Iterable[Work]:
    """LDv1's gate, forward and with backward, against a copy and against the plain form."""
    small = (max(1, sizes.height // 8), max(1, sizes.width // 8))
    x, logits = sizes.map(sizes.channels).requires_grad_(), sizes.map(sizes.channels, size=small).requires_grad_()
    slope = torch.randn_like(x)

    def plain(x: Tensor, logits: Tensor) -> Tensor:
        mask = F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=True).sigmoid()
        return mask * x + x

    def forward(call: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            return call(x, logits)

    def both(call: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(x, logits), (x, logits), slope)

    def agreement() -> str:
        return apart(forward(gate), plain(x.double(), logits.double()), slack(sizes.dtype))

    def slopes() -> str:
        wanted = torch.autograd.grad(plain(x.double(), logits.double()), (x, logits), slope.double())
        return ", ".join(apart(a, b, slack(sizes.dtype)) for a, b in zip(both(gate), wanted, strict=True))

    moved, name = x.numel() * x.element_size(), _shape(x)
    copied = partial(forward, lambda x, _: x.clone())
    for baseline, what, goal in ((copied, "a copy", 1 / 1.5), (partial(forward, plain), "eager, plain form", None)):
        case = Case("LDv1", f"forward, {name}", partial(forward, gate), baseline, what, agreement, goal)
        yield Work(case, 0, 2 * moved)
    case = Case(
        "LDv1", f"with backward, {name}", partial(both, gate), partial(both, plain), "eager, plain form", slopes
    )
    yield Work(case, 0, 5 * moved)


def _shape(x: Tensor) -> str:
    return "×".join(str(side) for side in x.shape)
