"""Weight gradients in bfloat16 on the CPU, where maps are narrower than the kernels of strided convolutions."""

import copy
import ctypes

import pytest
import torch

from segcontext.aggregation import Downsampled, Identity
from segcontext.distribution import MaskDistribution
from segcontext.layers import ConvNormAct

CHANNELS = 8
SIDES = (1, 2, 3, 4, 9, 12)
# glibc's option that fills memory as it is handed out, and the byte whose complement makes huge floats.
PERTURB, BYTE = -6, 0x80


@pytest.fixture
def dirty_memory():
    """What a kernel leaves unwritten then shows, instead of being zero by luck."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(PERTURB, BYTE)
    yield
    if set_option is not None:
        set_option(PERTURB, 0)


class Alone(torch.nn.Module):
    """A strided convolution with groups or without."""

    def __init__(self, groups):
        super().__init__()
        self.conv = ConvNormAct(CHANNELS, CHANNELS, kernel_size=3, stride=2, groups=groups)[0]

    def forward(self, x):
        return self.conv(x)


MODULES = {
    "dense": lambda: Alone(1),
    "depthwise": lambda: Alone(CHANNELS),
    "LDv1": lambda: MaskDistribution(CHANNELS, CHANNELS),
    "LDv1, unpadded": lambda: MaskDistribution(CHANNELS, CHANNELS, padding=0),
    "downsampled": lambda: Downsampled(Identity(CHANNELS), CHANNELS),
    "downsampled, unpadded": lambda: Downsampled(Identity(CHANNELS), CHANNELS, padding=0),
}


def gradients(module, x, *, lower):
    """Of the convolutions' weights, under autocast (`lower` is True) or as the module is."""
    inputs = (x, x) if isinstance(module, MaskDistribution) else (x,)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower):
        out = module(*inputs)
    out = out if isinstance(out, torch.Tensor) else out.features
    out.float().square().sum().backward()
    return {name: weight.grad.float() for name, weight in module.named_parameters() if weight.ndim == 4}


@pytest.mark.usefixtures("dirty_memory")
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("way", ["autocast", "cast"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_weight_gradients_are_those_of_float32(name, way, memory_format):
    """To within a twentieth of their norm: some roundings of 2⁻⁸ each; wrong ones are off by far more."""
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    for each in module.modules():
        if isinstance(each, ConvNormAct):
            # Where rounding moves a value across zero, a ReLU would drop all of its gradient.
            each[2] = torch.nn.Identity()
    for weight in module.parameters():
        weight.data = weight.data.bfloat16().float()
    for height in SIDES:
        for width in SIDES:
            x = torch.randn(2, CHANNELS, height, width).bfloat16().float().to(memory_format=memory_format)
            wanted = gradients(copy.deepcopy(module), x, lower=False)
            if way == "autocast":
                found = gradients(copy.deepcopy(module), x, lower=True)
            else:
                found = gradients(copy.deepcopy(module).bfloat16(), x.bfloat16(), lower=False)
            for weight, gradient in wanted.items():
                error = (found[weight] - gradient).norm()
                assert error <= 0.05 * gradient.norm() + 1e-3, (height, width, weight)
