"""Training: one optimizer step after another on Lightning's Trainer, safe against stops, ending in a run folder."""

from segcontext.errors import TrainingInterrupted
from segcontext.training.run import Result, is_primary, train

__all__ = ["Result", "TrainingInterrupted", "is_primary", "train"]
