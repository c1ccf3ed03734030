"""Memory of activations: what training keeps for the backward pass, and the peak of inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["LiveMemory", "SavedMemory"]


class SavedMemory(saved_tensors_hooks):
    """Adds up what autograd keeps for the backward pass within it, each storage once; weights and buffers are left out.

    Args:
        model: the network, whose own tensors do not count.
        scope: says which part of the network is running.

    Attributes:
        bytes: by part; a storage belongs to the part that kept it first.

    Example:
        >>> import torch
        >>> layer, x = nn.Linear(3, 4), torch.ones(2, 3)
        >>> with SavedMemory(layer) as saved:
        ...     _ = layer(x)
        >>> saved.bytes[""]
        24
    """

    def __init__(self, model: nn.Module, scope: Callable[[], str] | None = None) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        self._scope = scope or (lambda: "")
        self._own = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
        # The tensors are held, so that no address is given to a second storage.
        self._kept: dict[int, Tensor] = {}
        self.bytes: Counter[str] = Counter()

    def __enter__(self) -> SavedMemory:  # type: ignore[override]
        """Begins to watch."""
        super().__enter__()
        return self

    def _keep(self, tensor: Tensor) -> Tensor:
        address = _address(tensor)
        if address not in self._own and address not in self._kept:
            self._kept[address] = tensor.detach()
            self.bytes[self._scope()] += tensor.untyped_storage().nbytes()
        return tensor


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of every tensor that is made within it and still alive.

    Args:
        own: tensors that do not count, such as weights and the input.
        scope: says which part of the network is running.

    Attributes:
        peak: the most bytes that were alive at once, by part; without a scope all under the empty name.

    Note:
        Kernels' own workspaces are not seen, nor what the allocator keeps in reserve.

    Example:
        >>> import torch
        >>> x = torch.ones(256)
        >>> with torch.no_grad(), LiveMemory([x]) as live:
        ...     _ = ((x + 1) * 2).sum()
        >>> live.peak[""]
        2048
    """

    def __init__(self, own: Iterable[Tensor] = (), scope: Callable[[], str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scope = scope or (lambda: "")
        self._own = list(own)
        self._addresses = {_address(tensor) for tensor in self._own}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and looks at what is alive afterwards."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and _address(tensor) not in self._addresses:
                storage = tensor.untyped_storage()
                held = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._live[_address(tensor)] = (held, storage.nbytes())
        gone = [address for address, (held, _) in self._live.items() if held.expired()]  # type: ignore[no-untyped-call]
        for address in gone:
            del self._live[address]
        total, part = sum(size for _, size in self._live.values()), self._scope()
        self.peak[part] = max(self.peak[part], total)
        return result


def _address(tensor: Tensor) -> int:
    # On the meta device every storage lies at address 0, so the storage object itself tells them apart.
    return int(tensor.untyped_storage()._cdata)
