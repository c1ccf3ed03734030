"""The stream of training samples: every draw is a function of the seed and the position in the stream."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from segcontext.data.dataset import Dataset
from segcontext.data.transforms import Crop
from segcontext.errors import RecipeError, SegContextError
from segcontext.types import Sample

__all__ = [
    "Batch",
    "Caught",
    "Drawn",
    "Failure",
    "PositionBatches",
    "TrainingStream",
    "collate",
    "outlive_signals",
    "training_loader",
]

_ORDER, _AUGMENTATION = 0, 1


class Drawn(NamedTuple):
    """One augmented training sample.

    Attributes:
        image: uint8 RGB, (3, h, w).
        mask: uint8 class indices, (h, w), 255 for void.
        name: the sample's name in the data set.
        position: its position in the stream.
    """

    image: Tensor
    mask: Tensor
    name: str
    position: int


class Batch(NamedTuple):
    """The samples that one process takes in one optimizer step, in the order of their positions.

    Attributes:
        images: uint8 RGB, (n, 3, h, w), with n = accumulate · batch.
        masks: uint8 class indices, (n, h, w), 255 for void.
        names: the samples' names.
        positions: int64, (n,).
    """

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]
    positions: Tensor


class Failure(NamedTuple):
    """What stands for a sample that could not be read, so that every process of a run learns of it at the same place.

    Attributes:
        kind: the error's class.
        message: its message.
    """

    kind: type[SegContextError]
    message: str


class Caught(torch.utils.data.Dataset[Any]):
    """The samples of another data set, with a `Failure` where reading one raised an error meant for users.

    Args:
        source: any map-style data set.
    """

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        """The sample, or the failure to read it."""
        try:
            return self.source[index]
        except SegContextError as error:
            return Failure(type(error), str(error))


class TrainingStream(torch.utils.data.Dataset[Drawn]):
    """All samples of a training, one after the other, addressed by their position from 0 on.

    Position p lies in epoch p // n of a data set of n samples. Each epoch goes through the data set once, in an order
    drawn from (seed, epoch); the augmentation is drawn from (seed, p). Which process or worker asks, and what was
    asked before, makes no difference, and no global random state is read or moved.

    Note:
        Steps may straddle two epochs: no sample is dropped at the end of one.

    Args:
        dataset: the training samples.
        transform: makes a crop of a sample, with all its draws from the generator it is given.
        seed: chooses another stream; not negative.

    Raises:
        RecipeError: if the seed is negative.
    """

    def __init__(
        self, dataset: Dataset, transform: Callable[[Sample, torch.Generator], Crop], *, seed: int = 0
    ) -> None:
        if seed < 0:
            raise RecipeError(f"seed is {seed}, expected 0 or more.")
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self._orders: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """The samples of one epoch; positions go on beyond it."""
        return len(self.dataset)

    def __getitem__(self, position: int) -> Drawn:
        """Reads and augments the sample at a position.

        Args:
            position: 0 or more, without an upper limit.

        Returns:
            The augmented sample.

        Raises:
            IndexError: if the position is negative.
            SampleError: if a file cannot be read or has no labels.
            LabelError: if a mask holds a value that is neither a class nor void.
        """
        if position < 0:
            raise IndexError(f"position {position} is negative")
        sample = self.dataset[self.index(position)]
        image, mask = self.transform(sample, _generator(self.seed, _AUGMENTATION, position))
        return Drawn(image, mask, sample.name, position)

    def index(self, position: int) -> int:
        """Which sample of the data set stands at a position.

        Args:
            position: 0 or more.

        Returns:
            0..n - 1.
        """
        epoch, place = divmod(position, len(self.dataset))
        if epoch not in self._orders:
            order: list[int] = torch.randperm(
                len(self.dataset), generator=_generator(self.seed, _ORDER, epoch)
            ).tolist()
            # Two are kept, since a step may straddle two epochs.
            self._orders = {**dict(list(self._orders.items())[-1:]), epoch: order}
        return self._orders[epoch][place]


class PositionBatches(Sampler[list[int]]):
    """The positions that one process reads at each optimizer step, for `DataLoader(batch_sampler=…)`.

    A step takes the G = accumulate · world · batch positions from step · G on. Each rank takes a contiguous
    accumulate · batch of them, and its m-th micro-batch the m-th `batch` of those. So the samples of a step are the
    same for every way of parting the same G.

    Args:
        batch: samples per process and micro-batch.
        start: the first step that is read.
        stop: the step before which reading ends.
        accumulate: micro-batches per step.
        rank: this process, 0..world - 1.
        world: number of processes.

    Raises:
        RecipeError: if a number is out of range.

    Example:
        >>> list(PositionBatches(2, stop=2, rank=1, world=2))
        [[2, 3], [6, 7]]
    """

    def __init__(
        self, batch: int, *, start: int = 0, stop: int = 0, accumulate: int = 1, rank: int = 0, world: int = 1
    ) -> None:
        for wrong, name, value, expected in (
            (batch < 1, "batch", batch, "at least 1"),
            (accumulate < 1, "accumulate", accumulate, "at least 1"),
            (world < 1, "world", world, "at least 1"),
            (not 0 <= rank < max(world, 1), "rank", rank, f"0..{world - 1}"),
        ):
            if wrong:
                raise RecipeError(f"{name} is {value}, expected {expected}.")
        self.share = accumulate * batch
        self.step_size = self.share * world
        self.rank = rank
        self.between(start, stop)

    def between(self, start: int, stop: int) -> None:
        """Reads other steps from the next pass on; a loader's workers live through the change.

        Args:
            start: the first step that is read.
            stop: the step before which reading ends.

        Raises:
            RecipeError: if they are negative or in the wrong order.
        """
        if not 0 <= start <= stop:
            raise RecipeError(f"The steps to read are {start} to {stop}, expected 0 ≤ start ≤ stop.")
        self.steps = range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            first = step * self.step_size + self.rank * self.share
            yield list(range(first, first + self.share))


def collate(samples: Sequence[Drawn | Failure]) -> Batch | Failure:
    """Stacks the samples of a step.

    Args:
        samples: crops of one size.

    Returns:
        The batch, in the same order, or the first failure.
    """
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
    images, masks, names, positions = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), tuple(names), torch.tensor(positions))


def training_loader(
    stream: TrainingStream, batches: PositionBatches, *, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Drawn]:
    """Loads the stream step by step.

    Args:
        stream: the samples.
        batches: which of them this process reads at each step.
        workers: worker processes; 0 reads in this process. The batches are the same for any number.
        pin_memory: whether batches are put into page-locked memory, from where a GPU fetches them faster.

    Returns:
        A loader of `Batch`, or of `Failure` where a sample of the step could not be read.
    """
    # Without a generator of its own, the loader would draw its workers' seed from the global random state.
    own = torch.Generator().manual_seed(0)
    return DataLoader(
        Caught(stream),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=collate,
        generator=own,
        persistent_workers=workers > 0,
        worker_init_fn=outlive_signals,
    )


def outlive_signals(worker: int) -> None:
    """Makes a process that reads deaf to SIGINT and SIGTERM, which terminals and schedulers send to the whole group.

    The training process decides when to stop, and needs its readers until then; they end when it does.

    Args:
        worker: the reader's number, which is of no use here.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _generator(seed: int, purpose: int, number: int) -> torch.Generator:
    """A generator of its own for each (seed, purpose, number), unrelated to its neighbours'."""
    state = np.random.SeedSequence((seed, purpose, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
