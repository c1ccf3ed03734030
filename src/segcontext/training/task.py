"""One optimizer step and one validated image: what Lightning's Trainer runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segcontext.errors import TrainingDiverged
from segcontext.losses import OHEM, LossSum, cross_entropy, valid_weight
from segcontext.metrics import ConfusionMatrix, Scores, scores
from segcontext.model import Segmenter, update_bases
from segcontext.recipe import Recipe
from segcontext.training.optimization import learning_rate_factor, make_optimizer

__all__ = ["Step", "Task"]


class Step(NamedTuple):
    """What one optimizer step leaves for the logs.

    Attributes:
        loss: main loss, the mean over the global batch.
        lr: the schedule's learning rate.
        images: images in the global batch.
        empty_bases: EM bases that had no mass, over all images.
    """

    loss: float
    lr: float
    images: int
    empty_bases: int


class Task(pl.LightningModule):
    """Trains a Segmenter by a recipe.

    A batch holds all images that this process contributes to one optimizer step; `training_step` splits it into
    micro-batches itself. Losses are divided by the weight of the whole step's pixels, over all ranks and
    micro-batches, so that neither splitting changes a gradient.

    Args:
        model: the network.
        recipe: how to train it.
        total_steps: optimizer steps of the whole run.
        class_weights: (classes,), or `None`.
        step: optimizer steps taken before, in a resumed run.
    """

    def __init__(
        self,
        model: Segmenter,
        recipe: Recipe,
        *,
        total_steps: int,
        class_weights: Tensor | None = None,
        step: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.recipe = recipe
        self.total_steps = total_steps
        self.step = step
        self.last: Step | None = None
        self.scores: Scores | None = None
        self.stop_requested = 0
        self.stop_agreed = 0
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.matrix = ConfusionMatrix(model.num_classes)
        # In a tuple, so that it is no submodule: distributed training must not look for gradients in it.
        self._averaged: tuple[AveragedModel, ...] = ()
        if recipe.weight_averaging:
            averaged = AveragedModel(model, multi_avg_fn=_moving_average(recipe.weight_averaging), use_buffers=True)
            self._averaged = (averaged.requires_grad_(False).eval(),)

    @property
    def averaged(self) -> AveragedModel | None:
        """The averaged weights, where the recipe keeps them."""
        return self._averaged[0] if self._averaged else None

    @property
    def judged(self) -> Segmenter:
        """The network that is validated: the averaged one where there is one."""
        if self.averaged is None:
            return self.model
        averaged = self.averaged.module
        assert isinstance(averaged, Segmenter)
        return averaged

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimizer."""
        return make_optimizer(self.model, self.recipe)

    def on_fit_start(self) -> None:
        """Brings the averaged weights to the device, which Lightning does not know of."""
        for averaged in self._averaged:
            averaged.to(self.device)

    def training_step(self, batch: Any, index: int) -> None:
        """One optimizer step over this process's share of the global batch."""
        recipe, optimizer = self.recipe, self.optimizers()
        assert not isinstance(optimizer, list)
        # Dropout draws from a state that follows from the step alone, so that a resumed run draws the same.
        torch.manual_seed((recipe.seed * 1_000_003 + self.step) * 1_009 + self.global_rank)
        if recipe.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        factor = learning_rate_factor(self.step, self.total_steps, power=recipe.power, warmup=recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * factor * group["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        weight = self._step_weight(batch.masks)
        value = torch.zeros((), dtype=torch.float64, device=self.device)
        images, masks = batch.images.chunk(recipe.accumulate), batch.masks.chunk(recipe.accumulate)
        for part, (image, mask) in enumerate(zip(images, masks, strict=True)):
            with self._gradients_synchronised(part == recipe.accumulate - 1):
                loss, main = self._loss(image, mask, weight)
                # Distributed training averages gradients over the ranks; the division here is over all of them.
                self.manual_backward(loss * self.trainer.world_size)
            value += main
        value, stop = self._sum([value, value.new_tensor(self.stop_requested)])
        if not value.isfinite():
            raise TrainingDiverged(
                f"The loss became {value.item()} at step {self.step}; the weights are still those of the step before. "
                f"Images of the step: {', '.join(batch.names)}. Look at these images and masks; once they are mended, "
                f"go on with --resume. Else lower lr (now {recipe.lr * factor:.3g}), or add warmup or clip_gradient, "
                "and train anew, or from the weights so far (--init with this run's folder)."
            )
        if recipe.clip_gradient:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_gradient)
        optimizer.step()
        empty = update_bases(self.model)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self.step += 1
        self.stop_agreed = int(stop)
        self.last = Step(float(value), recipe.lr * factor, recipe.batch, empty)

    def _loss(self, image: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one micro-batch, with the auxiliary head's, and its main part for the logs."""
        recipe = self.recipe
        output = self.model(image, auxiliary=True)
        if recipe.loss == "ohem":
            hard = OHEM(
                threshold=recipe.ohem_threshold,
                min_kept=recipe.ohem_min_kept,
                scope=recipe.ohem_scope,
                class_weights=self.class_weights,
            )(output.logits, mask)
            (kept,) = self._sum([hard.weight])
            main = hard.total / kept.clamp_min(1e-12).to(hard.total.dtype) / recipe.accumulate
        else:
            main = self._cross_entropy(output.logits, mask).total / weight
        loss = main
        if output.auxiliary is not None:
            auxiliary = self._cross_entropy(output.upsample(output.auxiliary), mask).total / weight
            loss = main + recipe.auxiliary_weight * auxiliary
        return loss, main.detach().double()

    def _cross_entropy(self, logits: Tensor, mask: Tensor) -> LossSum:
        return cross_entropy(logits, mask, class_weights=self.class_weights)

    def _step_weight(self, masks: Tensor) -> Tensor:
        """What the losses are divided by: the weight of the step's pixels over all ranks and micro-batches."""
        if self.recipe.loss_average == "all":
            own = torch.as_tensor(masks.numel(), dtype=torch.float64, device=self.device)
        else:
            own = valid_weight(masks, class_weights=self.class_weights)
        (weight,) = self._sum([own])
        return weight.clamp_min(1e-12).float()

    def _sum(self, values: list[Tensor]) -> list[Tensor]:
        """Sums scalars over the ranks, all in one message."""
        if self.trainer.world_size == 1:
            return values
        total = self.trainer.strategy.reduce(torch.stack([value.detach() for value in values]), reduce_op="sum")
        assert isinstance(total, Tensor)
        return list(total)

    @contextlib.contextmanager
    def _gradients_synchronised(self, wanted: bool) -> Iterator[None]:
        """Lets the ranks exchange gradients in the last micro-batch only."""
        wrapper = self.trainer.strategy.model
        if isinstance(wrapper, nn.parallel.DistributedDataParallel):
            wrapper.require_backward_grad_sync = wanted
        yield

    def validation_step(self, batch: Any, index: int) -> None:
        """Adds one labelled image to the confusion matrix."""
        assert batch.mask is not None
        self.matrix.update(self.judged(batch.image[None]).logits.argmax(1)[0], batch.mask)

    def on_validation_start(self) -> None:
        """Sets the judged network to evaluation, which Lightning does only for its own modules."""
        self.judged.eval()
        self.matrix.reset()
        if self.trainer.world_size > 1:
            # Where batch norm is not synchronised each rank has statistics of its own; the first one's are saved.
            for buffer in self.judged.buffers():
                dist.broadcast(buffer, src=0)

    def on_validation_epoch_end(self) -> None:
        """Scores the matrix of all ranks."""
        self.scores = scores(self.matrix.compute())


def _moving_average(decay: float) -> Any:
    """An exponential moving average that starts fast: the decay at update n is at most (1 + n)/(10 + n)."""

    @torch.no_grad()
    def average(averaged: tuple[Tensor, ...] | list[Tensor], current: Any, updates: Tensor | int) -> None:
        share = min(decay, (1 + int(updates)) / (10 + int(updates)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - share)
            else:
                old.copy_(new)

    return average
