"""One optimizer step and one validated image: what Lightning's Trainer runs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from signal import SIGINT, SIGTERM
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segcontext.data import Failure
from segcontext.errors import TrainingDiverged
from segcontext.inference import predict_labels
from segcontext.losses import OHEM, LossSum, cross_entropy, valid_weight
from segcontext.metrics import ConfusionMatrix, Scores, scores
from segcontext.model import Segmenter, update_bases
from segcontext.recipe import Recipe
from segcontext.speed import Compiled
from segcontext.training.memory import validation_memory
from segcontext.training.optimization import learning_rate_factor, make_optimizer
from segcontext.types import Output

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
        # In a tuple, for it holds the network, which must be saved under its own names alone.
        self._compiled = (Compiled(model),) if recipe.compile else ()
        self.last: Step | None = None
        self.scores: Scores | None = None
        self.stop_requested = 0
        self.stop_agreed = 0
        # What there is to go on from, for the words of an error.
        self.saved_step, self.has_weights = 0, False
        self.locate: Callable[[int], Sequence[str]] = lambda step: ()
        self._failure: Failure | None = None
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

    def training_step(self, batch: Any, index: int) -> None:
        """One optimizer step over this process's share of the global batch."""
        recipe, optimizer = self.recipe, self.optimizers()
        assert not isinstance(optimizer, list)
        self._raise_together(batch if isinstance(batch, Failure) else None)
        # Dropout draws from a state that follows from the step alone, so that a resumed run draws the same.
        state = np.random.SeedSequence((recipe.seed, self.step, self.global_rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))
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
        wishes = [value.new_tensor(float(self.stop_requested == number)) for number in (SIGTERM, SIGINT)]
        value, term, interrupt = self._sum([value, *wishes])
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if not (value.isfinite() and norm.isfinite()):
            found = f"the loss is {value.item():.4g} and its gradient's norm {norm.item():.4g}"
            raise self._diverged(found, self.locate(self.step) or batch.names, recipe.lr * factor)
        if recipe.clip_gradient:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), recipe.clip_gradient, norm)
        optimizer.step()
        empty = update_bases(self.model)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self.step += 1
        self.stop_agreed = SIGTERM if term else SIGINT if interrupt else 0
        self.last = Step(float(value), recipe.lr * factor, recipe.batch, empty)

    def _diverged(self, found: str, images: Sequence[str], lr: float) -> TrainingDiverged:
        if self.saved_step:
            again = f"go on from step {self.saved_step} with --resume"
        else:
            again = "start again (--overwrite): nothing of this run was saved yet"
        anew = "train anew, or from the weights so far (--init with this folder)" if self.has_weights else "train anew"
        error = TrainingDiverged(
            f"At step {self.step} {found}; the weights are still those of the step before. Images of the step: "
            f"{', '.join(images)}. Look at these images and masks; once they are mended, {again}. Else lower lr (now "
            f"{lr:.3g}), or add warmup or clip_gradient, and {anew}."
        )
        error.shared = True
        return error

    def _loss(self, image: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one micro-batch, with the auxiliary head's, and its main part for the logs."""
        recipe = self.recipe
        network: Callable[..., Output] = self._compiled[0] if self._compiled else self.model
        output = network(image, auxiliary=True)
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

    def _raise_together(self, failure: Failure | None) -> None:
        """Ends the run on every rank where one of them could not read its data; else that one's peers would wait."""
        if self.trainer.world_size > 1:
            (failed,) = self._sum([torch.tensor(float(failure is not None), device=self.device)])
            if not failed:
                return
            found: list[Failure | None] = [None] * self.trainer.world_size
            dist.all_gather_object(found, failure)
            failure = next(item for item in found if item is not None)
        if failure is not None:
            error = failure.kind(failure.message)
            error.shared = True
            raise error

    def validation_step(self, batch: Any, index: int) -> None:
        """Adds one labelled image to the confusion matrix."""
        if isinstance(batch, Failure):
            self._failure = self._failure or batch
            return
        with validation_memory(self.recipe, batch):
            self.matrix.update(predict_labels(self.judged, batch.image[None])[0], batch.mask)

    def on_validation_start(self) -> None:
        """Sets the judged network to evaluation, which Lightning does only for its own modules."""
        self._failure = None
        self.judged.to(self.device).eval()
        self.matrix.reset()
        if self.trainer.world_size > 1:
            # Where batch norm is not synchronised each rank has statistics of its own; the first one's are saved.
            for buffer in self.judged.buffers():
                dist.broadcast(buffer, src=0)

    def on_validation_epoch_end(self) -> None:
        """Scores the matrix of all ranks."""
        self._raise_together(self._failure)
        self.scores = scores(self.matrix.compute())

    def validation_facts(self) -> dict[str, Any]:
        """The last validation as plain numbers; a class that never occurred has no IoU."""
        found = self.scores
        assert found is not None
        return {
            "miou": float(found.miou),
            "pixel_accuracy": float(found.pixel_accuracy),
            "mean_accuracy": float(found.mean_accuracy),
            "frequency_weighted_iou": float(found.frequency_weighted_iou),
            "iou": [None if math.isnan(value) else value for value in found.iou.tolist()],
        }


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
