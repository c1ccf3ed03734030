"""Batch norm over all processes that leaves the network the one that was built."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segcontext.errors import RecipeError
from segcontext.pooled_norm import PooledNorm

__all__ = ["TimmSyncBatchNorm"]

_KNOWN = (_BatchNorm.forward, BatchNormAct2d.forward, PooledNorm.forward)


class TimmSyncBatchNorm(LayerSync):
    """Has every batch norm take its statistics over all processes, timm's with a fused activation too.

    Lightning's own ``sync_batchnorm=True`` leaves out the activation that MobileNet, EfficientNet and RegNet have
    inside their batch norm, and so would train another network on several GPUs than on one. Here timm's conversion
    does the exchange, and afterwards the very layers that were there come back, with what they learned meanwhile.

    Note:
        A `PooledNorm` becomes a plain synchronised batch norm: over more than one process there is always more than
        one value per channel.

    Example:
        >>> sync, net = TimmSyncBatchNorm(), nn.Sequential(nn.BatchNorm2d(3))
        >>> type(sync.apply(net)[0]).__name__, type(sync.revert(net)[0]).__name__
        ('SyncBatchNorm', 'BatchNorm2d')
    """

    def __init__(self) -> None:
        self._originals: dict[nn.Module, nn.Module] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Exchanges every batch norm for its synchronised twin, which shares its parameters and statistics.

        Args:
            model: any network; it is changed in place.

        Returns:
            The same network, or the twin where the network is itself a batch norm.

        Raises:
            RecipeError: where a batch norm computes something of its own that the exchange would lose.
        """
        return _exchange(model, self._synchronised)

    def revert(self, model: nn.Module) -> nn.Module:
        """Puts the layers back that `apply` took out, with the parameters and statistics of now.

        Args:
            model: what `apply` returned.

        Returns:
            The network of before.
        """
        model = _exchange(model, self._original)
        self._originals.clear()
        return model

    def _synchronised(self, layer: nn.Module) -> nn.Module:
        if not isinstance(layer, _BatchNorm) or isinstance(layer, nn.SyncBatchNorm):
            return layer
        if type(layer).forward not in _KNOWN:
            raise RecipeError(
                f"batch norm of the class {type(layer).__name__} computes something of its own, which synchronising "
                "it over processes would lose. Set sync_bn: false, or use a plain batch norm in its place."
            )
        twin: nn.Module = convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
        self._originals[twin] = layer
        return twin

    def _original(self, layer: nn.Module) -> nn.Module:
        original = self._originals.get(layer)
        if original is None:
            return layer
        # Moving to a device makes new buffers, so the twin's are taken over rather than the old ones trusted.
        for name, parameter in layer.named_parameters(recurse=False):
            original.register_parameter(name, parameter)
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(original, name, buffer)
        original.training = layer.training
        return original


def _exchange(model: nn.Module, exchanged: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Replaces modules wherever they stand; one that stands in several places gets one replacement."""
    replacements: dict[nn.Module, nn.Module] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module not in replacements:
            replacements[module] = exchanged(module)
        replacement = replacements[module]
        if path and replacement is not module:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, replacement)
    return replacements[model]
