"""The EMA unit of EMANet: expectation-maximization attention inside a residual bottleneck."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Self, TypeAlias, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segcontext.errors import RecipeError, nearest
from segcontext.ops.announced import is_counted
from segcontext.ops.em_attention import BasesNorm, EMGradient, EMKernel, WithoutMass, em_attention
from segcontext.ops.em_folded import Projection
from segcontext.ops.em_residual import Residual
from segcontext.pooled_norm import PooledNorm
from segcontext.types import Context, Responsibilities

__all__ = ["EMA", "BasesUpkeep"]

BasesUpkeep: TypeAlias = Literal["moving_average", "learned", "fixed"]
Holding: TypeAlias = Literal["find", "use"]


class EMA(nn.Module):
    r"""Expectation-maximization attention unit (Li et al. 2019, §5).

    :math:`\mathrm{out} = \mathrm{ReLU}(x + \mathrm{BN}(W_2\,\mathrm{ReLU}(\tilde X)))`, with :math:`\tilde X` the
    re-estimation of :math:`W_1 x + b_1` from K bases by T iterations of EM (eqs. 12-14). ``conv1`` has no ReLU after
    it, so that its values span both signs (§5.1).

    Bases μ are kept across images by `upkeep` (§5.2): by the moving average of eq. 15, learned by back-propagation,
    or left as initialised. Under the moving average each training pass adds its final bases to a running sum, and
    `update_bases`, called once after each optimizer step, moves μ by the mean over all images that the step saw, on
    all ranks and in all micro-batches. Evaluation never changes them, and neither does activation recomputation.

    Args:
        in_channels: C.
        num_bases: K, the paper's 64.
        iterations: T in training.
        evaluation_iterations: T in evaluation; `None` takes `iterations`.
        upkeep: how bases live on between images.
        momentum: α of eq. 15, the share of the old bases that stays.
        norm: normalisation of the bases after each M step (§5.3).
        kernel: 𝒦 of the E step (§4.1).
        lam: λ of eq. 12.
        gradient: how far autograd follows the iterations; `None` means ``"none"``, and ``"all"`` for learned bases,
            which nothing else would train. See `segcontext.ops.em_attention`.
        eps: added to the masses and to the lengths of the bases.
        without_mass: what becomes of a basis with hardly any mass in an image, ``"keep"`` or ``"published"``, see
            there.
        unit_update: whether the mean of the images' bases is brought to unit length before it enters the average.

    Attributes:
        bases: μ, (K, C), float32 or wider; a buffer that casts to half precision leave wide (in bfloat16 the moving
            average would stand still), or a parameter where learned.

    Shape:
        (B, C, h, w) to (B, C, h, w).

    Raises:
        RecipeError: for an unknown option, or options that contradict each other.

    Note:
        With ``gradient="none"``, the published behaviour, ``conv1`` never receives a gradient; it is frozen here so
        that weight decay and distributed training treat it as what it is.
        Bases with hardly any mass keep their value here; the published code, and so imported weights, need
        ``without_mass="published"``. OpenMMLab's unit has ``eps=1e-12`` and ``unit_update=True`` besides.

    Example:
        >>> unit = EMA(16, num_bases=4)
        >>> unit(torch.randn(2, 16, 5, 7)).features.shape
        torch.Size([2, 16, 5, 7])
    """

    bases: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        num_bases: int = 64,
        iterations: int = 3,
        evaluation_iterations: int | None = None,
        upkeep: BasesUpkeep = "moving_average",
        momentum: float = 0.9,
        norm: BasesNorm = "l2",
        kernel: EMKernel = "exponential_inner_product",
        lam: float = 1.0,
        gradient: EMGradient | None = None,
        eps: float = 1e-6,
        without_mass: WithoutMass = "keep",
        unit_update: bool = False,
    ) -> None:
        super().__init__()
        for option, value, known in (
            ("upkeep", upkeep, get_args(BasesUpkeep)),
            ("norm", norm, get_args(BasesNorm)),
            ("kernel", kernel, get_args(EMKernel)),
            ("gradient", gradient or "none", get_args(EMGradient)),
            ("without_mass", without_mass, get_args(WithoutMass)),
        ):
            if value not in known:
                hint = nearest(str(value), known)
                raise RecipeError(f"{option} must be one of {', '.join(known)}, not {value!r}.{hint}")
        if eps <= 0:
            raise RecipeError(f"eps keeps denominators from zero and must be above it, not {eps}.")
        if not 0 <= momentum <= 1:
            raise RecipeError(f"momentum is the share of the old bases that stays, 0 to 1, not {momentum}.")
        if num_bases < 1 or min(iterations, evaluation_iterations or 0) < 0:
            raise RecipeError(
                f"num_bases must be at least 1 and iterations at least 0, not {num_bases} and "
                f"{iterations} (evaluation: {evaluation_iterations})."
            )
        if upkeep == "learned" and gradient not in (None, "all"):
            raise RecipeError(
                f"Learned bases need gradient='all', not {gradient!r}: no other choice lets a gradient reach them."
            )
        self.in_channels = self.out_channels = in_channels
        self.num_bases = num_bases
        self.iterations = iterations
        self.evaluation_iterations = iterations if evaluation_iterations is None else evaluation_iterations
        self.upkeep: BasesUpkeep = upkeep
        self.momentum = momentum
        self.norm: BasesNorm = norm
        self.kernel: EMKernel = kernel
        self.lam = lam
        self.eps = eps
        self.without_mass: WithoutMass = without_mass
        self.unit_update = unit_update
        self.gradient: EMGradient = gradient or ("all" if upkeep == "learned" else "none")

        self.conv1 = nn.Conv2d(in_channels, in_channels, 1)
        self.conv2 = nn.Sequential(nn.Conv2d(in_channels, in_channels, 1, bias=False), PooledNorm(in_channels))
        self.relu = nn.ReLU()
        # Kaiming's fan-out, as ResNets start. PyTorch's own start is √6 smaller, and with it the inner products with
        # bases of unit length stay so near each other that all bases become one; conv1 cannot learn its way out.
        for weight in (self.conv1.weight, next(self.conv2.parameters())):
            nn.init.kaiming_normal_(weight, mode="fan_out")
        if self.gradient == "none":
            self.conv1.requires_grad_(False)
        # Kaiming's fan-out over the K bases, then unit length: §5.2 with the published code's initialisation.
        bases = torch.randn(num_bases, in_channels) * math.sqrt(2 / num_bases)
        bases = bases / (bases.norm(dim=1, keepdim=True) + 1e-6)
        if upkeep == "learned":
            self.bases = nn.Parameter(bases)
        else:
            self.register_buffer("bases", bases)
        # What the current step has seen: Σμ over its images, with the image and empty-basis counts behind it. It is no
        # buffer, because distributed training overwrites every rank's buffers with those of the first.
        self._seen: Tensor | None = None
        self._holding: Holding | None = None
        self._held: Tensor | None = None

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Adds to each pixel its re-estimation from the bases.

        Args:
            x: (B, C, h, w).
            evidence: whether the responsibilities of every iteration are returned.

        Returns:
            (B, C, h, w), and `Responsibilities` where asked for.
        """
        batch, _, height, width = x.shape
        projection, residual = self._folded(x)
        pixels = (self.conv1(x) if projection is None else x).flatten(2).mT
        bases, iterations = self.bases, self.iterations if self.training else self.evaluation_iterations
        if self._holding == "use" and self._held is not None:
            bases, iterations = self._held, 0
        found = em_attention(
            pixels,
            bases,
            iterations=iterations,
            kernel=self.kernel,
            lam=self.lam,
            norm=self.norm,
            gradient=self.gradient,
            eps=self.eps,
            without_mass=self.without_mass,
            keep_history=evidence,
            projection=projection,
            residual=residual,
        )
        if self.training and not _recomputing():
            self._collect(found.bases.detach(), found.mass.detach())
        if self._holding == "find":
            self._held = found.bases.detach()
        out = found.reconstruction.mT.reshape(batch, -1, height, width)
        if residual is None:
            out = self.relu(x + self.conv2(self.relu(out)))
        if not evidence:
            return Context(out)
        assert found.history is not None
        maps = found.history.detach().mT.reshape(-1, batch, self.num_bases, height, width)
        return Context(out, Responsibilities(maps, found.bases.detach()))

    def _folded(self, x: Tensor) -> tuple[Projection | None, Residual | None]:
        """``conv1``, and what follows the reconstruction, as `em_attention` takes them; `None` where they run here.

        They run as layers where someone counts them or wants to see what goes through them.
        """
        conv1, (conv2, norm) = self.conv1, self.conv2
        watched = any(_is_watched(part) for part in (conv1, self.conv2, conv2, norm, self.relu))
        if watched or is_counted() or type(conv1) is not nn.Conv2d:
            return None, None
        projection = None if self.kernel == "euclidean" else (conv1.weight.flatten(1), conv1.bias)
        learns = torch.is_grad_enabled() and any(each.requires_grad for each in (x, *self.conv2.parameters()))
        # Elsewhere convolutions do better than products of pixels that lie apart.
        narrow = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
        if self.training or learns or not narrow or torch.compiler.is_compiling():
            return projection, None
        if type(conv2) is not nn.Conv2d or not isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm)) or norm.training:
            return projection, None
        if norm.running_var is None:
            return projection, None
        return projection, Residual.of(x.flatten(2).mT, conv2, norm)

    def _collect(self, bases: Tensor, mass: Tensor) -> None:
        counts = torch.stack([mass.new_tensor(bases.shape[0]), (mass <= 1e-6).sum().to(mass.dtype)])
        seen = torch.cat([bases.sum(0).flatten(), counts]).float()
        self._seen = seen if self._seen is None else self._seen + seen

    def hold(self, what: Holding | None) -> None:
        """Keeps the bases of one pass for later passes, so that tiles of an image share its context.

        Args:
            what: ``"find"``: each pass from now on keeps the bases that it ends with. ``"use"``: passes assign their
                pixels to the bases kept last and do not iterate; they must be of as many images. `None`: passes are
                independent again, and nothing is kept.
        """
        self._holding = what
        if what is None:
            self._held = None

    @property
    def is_holding(self) -> bool:
        """Whether passes keep bases or use kept ones, see `hold`."""
        return self._holding is not None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = self.bases
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.upkeep != "learned" and self.bases.dtype in (torch.float16, torch.bfloat16):
            # The cast made them narrower for good, so they are taken from before it.
            self.bases = kept.to(device=self.bases.device, dtype=torch.float32)
        # What was gathered for the next step goes where the bases go, and stays as wide.
        self._seen, self._held = (_moved(each, self.bases.device) for each in (self._seen, self._held))
        return self

    @torch.no_grad()
    def update_bases(self) -> int:
        """Moves the bases once, by eq. 15; call it after each optimizer step, on every rank.

        Returns:
            How many bases had no mass in the passes since the last call, over all images and ranks.

        Note:
            A collective operation where `torch.distributed` is initialised. Nothing moves where nothing was seen.
        """
        seen = self._seen
        self._seen = None
        if seen is None:
            seen = torch.zeros(self.bases.numel() + 2, device=self.bases.device)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(seen)
        total, count, empty = seen[:-2].view_as(self.bases), seen[-2], int(seen[-1])
        if self.upkeep == "moving_average" and count > 0:
            mean = total / count
            if self.unit_update:
                mean = mean / (mean.norm(dim=1, keepdim=True) + self.eps)
            moved = self.momentum * self.bases.float() + (1 - self.momentum) * mean
            # By the published formula, images that are no numbers leave bases that are none.
            self.bases.copy_(torch.where(moved.isfinite(), moved, self.bases.float()))
        return empty

    def extra_repr(self) -> str:
        """The switches, for `print(model)`."""
        return (
            f"{self.in_channels}, num_bases={self.num_bases}, iterations={self.iterations}/"
            f"{self.evaluation_iterations}, upkeep={self.upkeep}, norm={self.norm}, kernel={self.kernel}, "
            f"lam={self.lam}, gradient={self.gradient}"
        )


def _is_watched(module: nn.Module) -> bool:
    """Whether anyone wants to see what goes in or out of a module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _recomputing() -> bool:
    """Whether this forward pass runs inside a backward pass, as activation checkpointing makes it."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._current_graph_task_id() != -1


def _moved(tensor: Tensor | None, place: torch.device) -> Tensor | None:
    """The tensor at another place; from a place without numbers there is nothing to bring."""
    return None if tensor is None or (tensor.is_meta and place.type != "meta") else tensor.to(place)
