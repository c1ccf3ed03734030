"""Which samples each rank scores."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from torch.utils.data import Sampler

from segcontext.errors import ShapeError

__all__ = ["RankSlice"]


class RankSlice(Sampler[int]):
    """Deals the samples out to the ranks in turn, in order, each sample exactly once.

    Note:
        PyTorch's `DistributedSampler` repeats samples until all ranks have as many; scores would count those twice.
        Here the ranks may differ by one sample, so do nothing collective inside the loop over batches.

    Args:
        source: the data set, or anything with a length.
        rank: this process.
        world: how many processes there are.

    Example:
        >>> list(RankSlice(range(5), rank=1, world=2))
        [1, 3]
    """

    def __init__(self, source: Sized, *, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ShapeError(f"Ranks run from 0 to {world - 1} in a group of {world}, but rank {rank} was given.")
        self.indices = range(rank, len(source), world)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
