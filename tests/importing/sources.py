"""The source networks, written anew in plain PyTorch from their published definitions, with their tensors' names.

Independent of the package: they say block by block what the other code bases compute.
"""

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Bottleneck(nn.Module):
    """1×1, 3×3 with the stride, 1×1 to four times the width."""

    def __init__(self, inside, width, stride, dilation):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        if stride > 1 or inside != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


def make_stages(depth, inside, third, fourth):
    """Four stages of stride 1, 2, 1, 1; the dilations of the last two, as (first block, others) and one by one."""
    counts = BLOCKS[depth]
    dilations = ([1] * counts[0], [1] * counts[1], [third[0]] + [third[1]] * (counts[2] - 1), list(fourth))
    made = []
    for number, (width, stride) in enumerate(((64, 1), (128, 2), (256, 1), (512, 1))):
        blocks = []
        for place, dilation in enumerate(dilations[number]):
            blocks.append(Bottleneck(inside, width, stride if place == 0 else 1, dilation))
            inside = 4 * width
        made.append(nn.Sequential(*blocks))
    return made


def deep_stem(narrow, wide):
    return [
        *(nn.Conv2d(3, narrow, 3, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()),
        *(nn.Conv2d(narrow, narrow, 3, 1, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()),
        nn.Conv2d(narrow, wide, 3, 1, 1, bias=False),
    ]


class ConvModule(nn.Module):
    """A convolution called conv, a batch norm called bn unless there is a bias, and a ReLU."""

    def __init__(self, inside, outside, kernel=1, *, padding=None, dilation=1, groups=1, norm=True, act=True):
        super().__init__()
        padding = dilation * (kernel // 2) if padding is None else padding
        self.conv = nn.Conv2d(inside, outside, kernel, 1, padding, dilation, groups, bias=not norm)
        if norm:
            self.bn = nn.BatchNorm2d(outside)
        self.act = act

    def forward(self, x):
        x = self.conv(x)
        x = self.bn(x) if hasattr(self, "bn") else x
        return F.relu(x) if self.act else x


def em(x, bases, mass, length):
    """Three rounds of EM on pixels (B, C, N) from bases (1, C, K); how masses and lengths are divided by is given."""
    bases = bases.expand(len(x), -1, -1)
    for _ in range(3):
        z = torch.einsum("bcn,bck->bnk", x, bases).softmax(2)
        bases = torch.einsum("bcn,bnk->bck", x, z / mass(z.sum(1, keepdim=True)))
        bases = bases / length(bases.norm(dim=1, keepdim=True))
    return torch.einsum("bck,bnk->bcn", bases, z)


class EMAU(nn.Module):
    def __init__(self, channels, count):
        super().__init__()
        self.register_buffer("mu", torch.empty(1, channels, count))
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        pixels = self.conv1(x)
        found = em(pixels.flatten(2), self.mu, lambda mass: mass + 1e-6, lambda length: length + 1e-6)
        return F.relu(x + self.conv2(F.relu(found.view_as(pixels))))


class EMANet(nn.Module):
    """The EMANet authors' network at stride 8."""

    def __init__(self, depth, classes):
        super().__init__()
        stem = [nn.Sequential(*deep_stem(64, 128)), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        self.extractor = nn.Sequential(*stem, *make_stages(depth, 128, (1, 2), (2, 8, 16)))
        self.fc0 = ConvModule(2048, 512, 3)
        self.emau = EMAU(512, 64)
        self.fc1 = nn.Sequential(ConvModule(512, 256, 3), nn.Dropout2d(0.1))
        self.fc2 = nn.Conv2d(256, classes, 1)

    def forward(self, x):
        return self.fc2(self.fc1(self.emau(self.fc0(self.extractor(x))))), None


class CGNLBlock(nn.Module):
    def __init__(self, channels, inner, groups=8):
        super().__init__()
        self.t, self.p, self.g = (nn.Conv2d(channels, inner, 1, bias=False) for _ in range(3))
        self.z = nn.Conv2d(inner, channels, 1, groups=groups, bias=False)
        self.gn = nn.GroupNorm(groups, channels)

    def forward(self, x):
        drawn = []
        for t, p, g in zip(*(each(x).chunk(self.gn.num_groups, 1) for each in (self.t, self.p, self.g)), strict=True):
            drawn.append(t * (p * g).sum((1, 2, 3), keepdim=True))
        return x + self.gn(self.z(torch.cat(drawn, 1)))


def halving(channels):
    """A depthwise 3×3 convolution of stride 2, unpadded."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, 2, groups=channels), nn.BatchNorm2d(channels), nn.ReLU())


class LocalAttention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.dconv1, self.dconv2, self.dconv3 = (halving(channels) for _ in range(3))

    def forward(self, x):
        small = self.dconv3(self.dconv2(self.dconv1(x)))
        mask = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=True).sigmoid()
        return mask * x + x


class GALDBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down = halving(channels)
        self.long_relation = CGNLBlock(channels, channels // 2)
        self.local_attention = LocalAttention(channels)

    def forward(self, x):
        small = self.long_relation(self.down(x))
        x = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=True)
        return self.local_attention(x) + x


class GALDHead(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conva, self.convb = (
            nn.Sequential(nn.Conv2d(inside, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512), nn.ReLU())
            for inside in (2048, 512)
        )
        self.a2block = GALDBlock(512)
        self.bottleneck = nn.Sequential(
            *(nn.Conv2d(2560, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512), nn.ReLU()),
            nn.Conv2d(512, classes, 1),
        )

    def forward(self, x):
        return self.bottleneck(torch.cat([x, self.convb(self.a2block(self.conva(x)))], 1))


class GALDNet(nn.Module):
    """The GALD authors' network."""

    def __init__(self, depth, classes):
        super().__init__()
        self.conv1 = nn.Sequential(*deep_stem(64, 128))
        self.bn1 = nn.BatchNorm2d(128)
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(depth, 128, (2, 2), (4, 8, 16))
        self.head = GALDHead(classes)
        self.dsn = nn.Sequential(
            *(nn.Conv2d(1024, 512, 3, padding=1), nn.BatchNorm2d(512), nn.ReLU(), nn.Dropout2d(0.1)),
            nn.Conv2d(512, classes, 1),
        )

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1, ceil_mode=True)
        third = self.layer3(self.layer2(self.layer1(x)))
        return self.head(self.layer4(third)), self.dsn(third)


class ResNetV1c(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.stem = nn.Sequential(*deep_stem(32, 64), nn.BatchNorm2d(64), nn.ReLU())
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(depth, 64, (1, 2), (2, 4, 4))

    def forward(self, x):
        first = self.layer1(F.max_pool2d(self.stem(x), 3, 2, 1))
        third = self.layer3(self.layer2(first))
        return first, third, self.layer4(third)


class Head(nn.Module):
    """A head of OpenMMLab's: its classifier is called conv_seg."""

    def __init__(self, width, classes, align_corners=False):
        super().__init__()
        self.conv_seg = nn.Conv2d(width, classes, 1)
        self.align_corners = align_corners

    def resize(self, x, size, align_corners=None):
        align_corners = self.align_corners if align_corners is None else align_corners
        return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


class AuxiliaryHead(Head):
    def __init__(self, classes):
        super().__init__(256, classes)
        self.convs = nn.Sequential(ConvModule(1024, 256, 3))

    def forward(self, x):
        return self.conv_seg(self.convs(x))


class EMAModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("bases", torch.empty(1, 512, 64))

    def forward(self, x):
        floor = 1e-12
        found = em(x.flatten(2), self.bases, lambda mass: mass.clamp_min(floor), lambda size: size.clamp_min(floor))
        return found.view_as(x)


class EMAHead(Head):
    def __init__(self, classes, align_corners):
        super().__init__(256, classes, align_corners)
        self.ema_module = EMAModule()
        self.ema_in_conv = ConvModule(2048, 512, 3)
        self.ema_mid_conv = ConvModule(512, 512, norm=False, act=False)
        self.ema_out_conv = ConvModule(512, 512, act=False)
        self.bottleneck = ConvModule(512, 256, 3)
        self.conv_cat = ConvModule(2048 + 256, 256, 3)

    def forward(self, first, deep):
        x = self.ema_in_conv(deep)
        again = self.ema_out_conv(F.relu(self.ema_module(self.ema_mid_conv(x))))
        x = self.bottleneck(F.relu(x + again))
        return self.conv_seg(self.conv_cat(torch.cat([deep, x], 1)))


class PSPHead(Head):
    def __init__(self, classes, align_corners):
        super().__init__(512, classes, align_corners)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvModule(2048, 512)) for side in (1, 2, 3, 6)
        )
        self.bottleneck = ConvModule(2048 + 4 * 512, 512, 3)

    def forward(self, first, deep):
        levels = [self.resize(level(deep), deep.shape[2:]) for level in self.psp_modules]
        return self.conv_seg(self.bottleneck(torch.cat([deep, *levels], 1)))


class SeparableModule(nn.Module):
    def __init__(self, inside, outside, dilation=1):
        super().__init__()
        self.depthwise_conv = ConvModule(inside, inside, 3, dilation=dilation, groups=inside)
        self.pointwise_conv = ConvModule(inside, outside)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


class ASPPHead(Head):
    def __init__(self, classes, align_corners, separable=False):
        super().__init__(512, classes, align_corners)
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(2048, 512))
        self.aspp_modules = nn.ModuleList(
            [
                ConvModule(2048, 512),
                *(
                    SeparableModule(2048, 512, rate) if separable else ConvModule(2048, 512, 3, dilation=rate)
                    for rate in (12, 24, 36)
                ),
            ]
        )
        self.bottleneck = ConvModule(5 * 512, 512, 3)

    def context(self, deep):
        branches = [self.resize(self.image_pool(deep), deep.shape[2:]), *(each(deep) for each in self.aspp_modules)]
        return self.bottleneck(torch.cat(branches, 1))

    def forward(self, first, deep):
        return self.conv_seg(self.context(deep))


class SeparableASPPHead(ASPPHead):
    def __init__(self, classes, align_corners):
        super().__init__(classes, align_corners, separable=True)
        self.c1_bottleneck = ConvModule(256, 48)
        self.sep_bottleneck = nn.Sequential(SeparableModule(512 + 48, 512), SeparableModule(512, 512))

    def forward(self, first, deep):
        low = self.c1_bottleneck(first)
        x = self.resize(self.context(deep), low.shape[2:])
        return self.conv_seg(self.sep_bottleneck(torch.cat([x, low], 1)))


class NonLocal2d(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inner = channels // 2
        self.g, self.theta, self.phi = (ConvModule(channels, inner, norm=False, act=False) for _ in range(3))
        self.conv_out = ConvModule(inner, channels, act=False)

    def forward(self, x):
        value, query, key = (each(x).flatten(2) for each in (self.g, self.theta, self.phi))
        weights = (query.mT @ key / query.shape[1] ** 0.5).softmax(-1)
        drawn = (weights @ value.mT).mT
        return x + self.conv_out(drawn.reshape(len(x), -1, *x.shape[2:]))


class NLHead(Head):
    def __init__(self, classes, align_corners):
        super().__init__(512, classes, align_corners)
        self.convs = nn.Sequential(ConvModule(2048, 512, 3), ConvModule(512, 512, 3))
        self.nl_block = NonLocal2d(512)
        self.conv_cat = ConvModule(2048 + 512, 512, 3)

    def forward(self, first, deep):
        x = self.convs[1](self.nl_block(self.convs[0](deep)))
        return self.conv_seg(self.conv_cat(torch.cat([deep, x], 1)))


def spread(logits, side, *, collect):
    """A source × target table of logits: those of the window, and zeros beyond it."""
    batch, _, height, width = logits.shape
    half = (side - 1) // 2
    table = logits.new_zeros(batch, height, width, height, width)
    for y in range(height):
        for x in range(width):
            for i in range(side):
                for j in range(side):
                    v, u = y + i - half, x + j - half
                    if 0 <= v < height and 0 <= u < width:
                        source, target = ((v, u), (y, x)) if collect else ((y, x), (v, u))
                        table[:, source[0], source[1], target[0], target[1]] = logits[:, i * side + j, y, x]
    return table.reshape(batch, height * width, height * width)


class PSAHead(Head):
    def __init__(self, classes, align_corners, side=97):
        super().__init__(512, classes, align_corners)
        self.side = side
        self.reduce, self.reduce_p = (ConvModule(2048, 512) for _ in range(2))
        self.attention, self.attention_p = (
            nn.Sequential(ConvModule(512, 512), nn.Conv2d(512, side**2, 1, bias=False)) for _ in range(2)
        )
        # A 1×1 convolution that is padded all the same, as published.
        self.proj = ConvModule(1024, 2048, padding=1)
        self.bottleneck = ConvModule(4096, 512, 3)

    def forward(self, first, deep):
        height, width = deep.shape[2:]
        odd = height % 2 == 1 and width % 2 == 1
        small = ((height - 1) // 2 + 1, (width - 1) // 2 + 1) if odd else (height // 2, width // 2)
        drawn = []
        for reduce, attention, collect in (
            (self.reduce, self.attention, True),
            (self.reduce_p, self.attention_p, False),
        ):
            x = self.resize(reduce(deep), small, odd)
            weights = spread(attention(x), self.side, collect=collect).softmax(1)
            drawn.append((x.flatten(2) @ weights).view_as(x))
        context = self.resize(self.proj(torch.cat(drawn, 1)), deep.shape[2:], odd)
        return self.conv_seg(self.bottleneck(torch.cat([deep, context], 1)))


class OpenMMLab(nn.Module):
    """Backbone, one of the heads, and the auxiliary head on the third stage."""

    def __init__(self, depth, classes, head, **options):
        super().__init__()
        self.backbone = ResNetV1c(depth)
        self.decode_head = head(classes, options.pop("align_corners", False), **options)
        self.auxiliary_head = AuxiliaryHead(classes)

    def forward(self, x):
        first, third, deep = self.backbone(x)
        return self.decode_head(first, deep), self.auxiliary_head(third)


class Torchvision(nn.Module):
    """torchvision's own model, asked for the logits at feature resolution."""

    def __init__(self, depth, classes, name):
        super().__init__()
        build = getattr(torchvision.models.segmentation, f"{name}_resnet{depth}")
        self.model = build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)

    def forward(self, x):
        features = self.model.backbone(x)
        return self.model.classifier(features["out"]), self.model.aux_classifier(features["aux"])

    def state_dict(self, *arguments, **options):
        return self.model.state_dict(*arguments, **options)


def _openmmlab(head):
    return lambda depth, classes, **options: OpenMMLab(depth, classes, head, **options)


#: By the names of the layouts.
SOURCES = {
    "emanet": EMANet,
    "gald": GALDNet,
    "openmmlab_emanet": _openmmlab(EMAHead),
    "openmmlab_pspnet": _openmmlab(PSPHead),
    "openmmlab_deeplabv3": _openmmlab(ASPPHead),
    "openmmlab_deeplabv3_plus": _openmmlab(SeparableASPPHead),
    "openmmlab_nonlocal": _openmmlab(NLHead),
    "openmmlab_psanet": _openmmlab(PSAHead),
    "torchvision_fcn": lambda depth, classes: Torchvision(depth, classes, "fcn"),
    "torchvision_deeplabv3": lambda depth, classes: Torchvision(depth, classes, "deeplabv3"),
}


def source(name, depth=50, classes=5, **options):
    """A source network without numbers."""
    with torch.device("meta"):
        return SOURCES[name](depth, classes, **options)


@torch.no_grad()
def filled(network, images, *, sharpness=1.0):
    """Gives a network numbers: random weights, and batch norms that have seen the images, and something else."""
    torch.manual_seed(0)
    network.to_empty(device="cpu")
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name.endswith(("mu", "bases")):
            tensor.normal_().div_(tensor.norm(dim=1, keepdim=True))
        elif tensor.ndim > 1:
            tensor.uniform_(-1, 1).mul_((3 / tensor[0].numel()) ** 0.5)
        elif tensor.is_floating_point():
            tensor.uniform_(-0.3, 0.3).add_(1 if name.endswith("weight") else 0)
        else:
            tensor.fill_(7)
    for name, tensor in network.named_parameters():
        # Sharp assignments, which leave some bases next to no pixels.
        if name.endswith(("emau.conv1.weight", "ema_mid_conv.conv.weight")):
            tensor.mul_(sharpness)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(images)
    for norm in norms:
        norm.running_mean.add_(0.1 * torch.randn_like(norm.running_mean))
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.7, 1.4)).clamp_min_(0.05)
    return network.eval()
