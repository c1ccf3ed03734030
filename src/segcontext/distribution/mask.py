"""Local distribution by masks (GALD LDv1)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.distribution.halving_blocks import are_as_made
from segcontext.errors import RecipeError
from segcontext.layers import ConvNormAct, StridedConv2d, pixels_at_stride, resize
from segcontext.ops.folded_norm import folded_norm, has_fixed_norm
from segcontext.ops.gated_by_mask import gated_by_mask
from segcontext.ops.halved import halved, halved_beside, is_faster, obstacle_to_halved
from segcontext.ops.halved_gate import halved_gate, obstacle_to_halved_gate
from segcontext.ops.implementations import asked_for, choose
from segcontext.types import Context, Mask

__all__ = ["Downsampling", "MaskDistribution", "Residual"]

_logger = logging.getLogger(__name__)

Downsampling: TypeAlias = Literal["depthwise", "bilinear", "average"]
Residual: TypeAlias = Literal["paper", "published"]


class MaskDistribution(nn.Module):
    r"""LDv1: a mask per channel gates the aggregated features (Li et al. 2019 BMVC; GALD §III-A, eqs. 1-2).

    :math:`M = \sigma(\mathrm{upsample}(W_d X_g))`, :math:`X_\mathrm{gald} = M \odot X_g + X_g`, where W_d shrinks the
    map `ratio` times: by depthwise 3×3 convolutions of stride 2, each with batch norm and ReLU, or, in the ablation
    of Table II(a), by bilinear resizing or average pooling, which have no weights.

    Args:
        in_channels: channels of the aggregated features.
        local_channels: channels of the local features, which LDv1 does not look at.
        downsampling: the strategy.
        ratio: d, a power of two from 2 up; three depthwise convolutions give the paper's 8.
        residual: ``"paper"`` is eq. 2, which doubles X_g where the mask is one; ``"published"`` adds X_g once more, as
            the authors' block does, and so triples it.
        padding: zero padding of the depthwise convolutions. 1 works on every map; 0 is the published code's.
        align_corners: how the mask is upsampled (and resized by ``"bilinear"``); `segcontext.segmenter` hands its own
            on.

    Shape:
        aggregated (B, C, h, w), local (B, C', h, w), to (B, C, h, w).

    Raises:
        RecipeError: for an unknown strategy or a ratio that is no power of two.

    Note:
        The published code does not pad and fails on maps below 15 pixels. With ``padding=0`` such maps are
        zero-padded here just as far as the convolutions need; larger ones give the published result.
        At another output stride than in training, the ratio should change by the same factor for the masks to see as
        much of the image. Depthwise convolutions are learned one by one and cannot be taken out or put in, so
        `segcontext.load_model` leaves them and logs it; the two strategies without weights it scales.
        With depthwise convolutions the mask lies in [½, 1], not only in [0, 1]: their last ReLU, which is the
        published code's, leaves the sigmoid nothing negative.
    """

    def __init__(
        self,
        in_channels: int,
        local_channels: int,
        *,
        downsampling: Downsampling = "depthwise",
        ratio: int = 8,
        residual: Residual = "paper",
        padding: int = 1,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        if downsampling not in ("depthwise", "bilinear", "average"):
            raise RecipeError(f"downsampling must be depthwise, bilinear or average, not {downsampling!r}.")
        if ratio < 2 or ratio & (ratio - 1):
            raise RecipeError(f"ratio must be a power of two from 2 up, not {ratio}.")
        if residual not in ("paper", "published") or padding not in (0, 1):
            raise RecipeError(f"residual must be paper or published and padding 0 or 1, not {residual!r}, {padding}.")
        self.in_channels = self.out_channels = in_channels
        self.local_channels = local_channels
        self.downsampling: Downsampling = downsampling
        self.ratio = ratio
        self.residual: Residual = residual
        self.padding = padding
        self.align_corners = align_corners
        self.shrink = nn.Sequential(
            *(
                ConvNormAct(
                    in_channels, in_channels, kernel_size=3, stride=2, groups=in_channels, bias=True, padding=padding
                )
                for _ in range(ratio.bit_length() - 1 if downsampling == "depthwise" else 0)
            )
        )

    def options_at_stride(self, options: Mapping[str, Any], *, trained: int, now: int) -> dict[str, Any]:
        """The options with the ratio that keeps the masks' extent in the image, see `segcontext.model`.

        Depthwise convolutions are learned: they are left alone, and that is logged.
        """
        if self.downsampling == "depthwise":
            _logger.warning(
                "The network was trained at output stride %d and runs at %d: the masks of LDv1 come from learned "
                "convolutions, which cannot be rescaled, and reach %g times as far in the image as in training.",
                *(trained, now, now / trained),
            )
            return dict(options)
        return {**options, "ratio": max(2, pixels_at_stride(self.ratio, trained=trained, now=now))}

    def forward(self, aggregated: Tensor, local: Tensor, *, evidence: bool = False) -> Context:
        """Gates the aggregated features.

        Args:
            aggregated: X_g, (B, C, h, w).
            local: not used.
            evidence: whether the mask is returned.

        Returns:
            (B, C, h, w), and `Mask` where asked for.
        """
        size = (aggregated.shape[-2], aggregated.shape[-1])
        times = 2.0 if self.residual == "published" else 1.0
        logits: Tensor | None = None
        if self._in_one_pass(aggregated):
            kernels, shifts = zip(*(folded_norm(*list(layer.children())[:2]) for layer in self.shrink), strict=True)
            layers = torch.stack(kernels)[:, :, 0], torch.stack(shifts)
            out = halved_gate(aggregated, *layers, times=times, align_corners=self.align_corners)
        else:
            logits, features = self._downsample(aggregated)
            out = gated_by_mask(features, logits, times=times, align_corners=self.align_corners)
        if not evidence:
            return Context(out)
        logits = self._downsample(aggregated)[0] if logits is None else logits
        return Context(out, Mask(resize(logits.detach(), size, align_corners=self.align_corners).sigmoid()))

    def _in_one_pass(self, x: Tensor) -> bool:
        """Whether convolutions and gate can run as one: with fixed batch norms and padding, on planes of the CPU."""
        if self.downsampling != "depthwise" or self.padding != 1 or obstacle_to_halved_gate(x) is not None:
            return False
        as_made = are_as_made(self.shrink, 1, x)
        fixed = as_made and all(has_fixed_norm(*list(layer.children())[:2]) for layer in self.shrink)
        return fixed and _runs_natively(None)

    def _downsample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of the mask, and the features for the gate."""
        height, width = x.shape[-2:]
        if self.downsampling == "depthwise":
            least = 2 * self.ratio - 1
            # To ask for sizes would tie an exported program to maps where the answer is the same.
            if self.padding == 1 or (not torch.compiler.is_exporting() and min(height, width) >= least):
                return self._shrunk(x)
            return self._shrunk(F.pad(x, (0, max(0, least - width), 0, max(0, least - height))))[0], x
        size = (max(1, height // self.ratio), max(1, width // self.ratio))
        if self.downsampling == "average":
            return F.adaptive_avg_pool2d(x, size), x
        return resize(x, size, align_corners=self.align_corners), x

    def _shrunk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the layers make of the features, and the features; convolutions run in compiled loops where they can."""
        obstacle = obstacle_to_halved(x)
        as_made = obstacle is not None or are_as_made(self.shrink, self.padding, x)
        if not as_made or not _runs_natively(obstacle):
            plain: Tensor = self.shrink(x)
            return plain, x
        small = features = x
        for number, block in enumerate(self.shrink):
            if not is_faster(small):
                small = block(small)
                continue
            convolution, *rest = block.children()
            assert isinstance(convolution, StridedConv2d)
            weight, bias = convolution.weight, convolution.bias
            # Autocast rounds between the two.
            if has_fixed_norm(convolution, rest[0]) and not torch.is_autocast_enabled("cpu"):
                weight, bias = folded_norm(convolution, rest.pop(0))
            if number:
                small = halved(small, weight, bias, padding=self.padding)
            else:
                small, features = halved_beside(small, weight, bias, padding=self.padding)
            for part in rest:
                small = part(small)
        return small, features


def _runs_natively(obstacle: str | None) -> bool:
    """Whether LDv1's own loops are to run; where kernels of a GPU are asked for, the gate alone has some."""
    return asked_for(None) != "triton" and choose("LDv1", None, {"native": obstacle}) == "native"
