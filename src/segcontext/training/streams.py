"""The loaders of a run: training from any step on, in stretches between validations, and validation by ranks."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from segcontext.data import Caught, Dataset, PositionBatches, TrainingStream, TrainTransform, training_loader
from segcontext.data.stream import outlive_signals
from segcontext.evaluation import spread
from segcontext.metrics import RankSlice
from segcontext.recipe import Recipe
from segcontext.training.state import Progress

__all__ = ["Streams", "next_validation"]


class Streams(pl.LightningDataModule):
    """Gives Lightning one epoch per stretch between two validations; the training loader lives through all of them.

    Args:
        recipe: crop, scales, batch and workers.
        train: the training split.
        val: the validation split.
        progress: the step at which the next stretch starts.
        pad_value: the mean colour, 0..255, with which small images are padded.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Dataset,
        val: Dataset,
        progress: Progress,
        *,
        pad_value: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.val = val
        self.progress = progress
        transform = TrainTransform(
            recipe.crop_size,
            scale=(recipe.scale[0], recipe.scale[1]),
            scale_step=recipe.scale_step or None,
            flip=recipe.flip,
            color_jitter=recipe.color_jitter,
            pad_value=pad_value,
        )
        self.stream = TrainingStream(train, transform, seed=recipe.seed)
        self._loader: DataLoader[Any] | None = None
        self._batches: PositionBatches | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """The stretch from the current step to the next validation."""
        assert self.trainer is not None
        recipe, world = self.recipe, self.trainer.world_size
        if self._batches is None or self._loader is None:
            self._batches = PositionBatches(
                recipe.batch // (recipe.accumulate * world),
                accumulate=recipe.accumulate,
                rank=self.trainer.global_rank,
                world=world,
            )
            self._loader = training_loader(
                self.stream,
                self._batches,
                workers=recipe.workers,
                pin_memory=self.trainer.strategy.root_device.type == "cuda",
            )
        step = self.progress.step
        self._batches.between(step, next_validation(step, recipe.val_every, self.progress.total))
        return self._loader

    def files(self, step: int) -> list[str]:
        """The images of one step's global batch, by their files where the data set has files."""
        first = step * self.recipe.batch
        indices = (self.stream.index(position) for position in range(first, first + self.recipe.batch))
        items = [self.stream.dataset.items[index] for index in indices]
        return [str(self.stream.dataset.root / item.image) if item.image else item.name for item in items]

    def val_dataloader(self) -> DataLoader[Any]:
        """This rank's share of the validation images, each at its own size, none twice."""
        assert self.trainer is not None
        images = Caught(spread(self.val, self.recipe.val_limit))
        return DataLoader(
            images,
            batch_size=None,
            sampler=RankSlice(images, rank=self.trainer.global_rank, world=self.trainer.world_size),
            num_workers=min(self.recipe.workers, 2),
            collate_fn=_as_is,
            worker_init_fn=outlive_signals,
        )


def next_validation(step: int, every: int, total: int) -> int:
    """The first step after `step` at which a validation is due.

    Args:
        step: from -1 up, below `total`.
        every: steps between validations; 0 for ten validations, evenly spread.
        total: steps of the run; it ends with a validation.
    """
    if every:
        return min((step // every + 1) * every, total)
    return -(-(10 * step // total + 1) * total // 10)


def _as_is(sample: Any) -> Any:
    return sample
