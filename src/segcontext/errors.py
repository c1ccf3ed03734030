"""Every error a user can meet; each message says what was expected, what came, and what to do.

```text
SegContextError(ValueError)
├── RecipeError                a recipe key or value is wrong (names the nearest right key)
├── ShapeError                 parts or tensors do not fit together
├── DataError                  something is wrong with the user's data
│   ├── DatasetNotFound        no data set where one was looked for
│   ├── SampleError            one image or mask is unreadable, or the two do not match
│   └── LabelError             a mask holds a value that is no class
├── WeightsError               a weight file cannot be used
│   ├── PretrainedUnavailable  pretrained weights cannot be fetched (no network)
│   └── CheckpointError        a run or checkpoint is damaged, unsafe, or from another format
├── OutputExists               writing would overwrite something of the user's
├── OutOfMemory                the memory of the GPU or of the machine does not suffice
├── KernelError                a fast form, asked for by name, cannot run
├── TrainingDiverged           the loss is no longer finite
└── TrainingInterrupted        the run was asked to stop, finished its step and saved
```
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "CheckpointError",
    "DataError",
    "DatasetNotFound",
    "KernelError",
    "LabelError",
    "OutOfMemory",
    "OutputExists",
    "PretrainedUnavailable",
    "RecipeError",
    "SampleError",
    "SegContextError",
    "ShapeError",
    "TrainingDiverged",
    "TrainingInterrupted",
    "WeightsError",
    "memory_advice",
    "nearest",
    "plain",
]


class SegContextError(ValueError):
    """The root of every error meant for users; the command line prints it on one screen and exits with 2.

    Attributes:
        shared: whether every process of a distributed run raises it, so that the first one's word is enough.
    """

    shared = False


class RecipeError(SegContextError):
    """A recipe key or value is wrong."""


class ShapeError(SegContextError):
    """Parts or tensors do not fit together."""


class DataError(SegContextError):
    """Something is wrong with the user's data."""


class DatasetNotFound(DataError):
    """No data set lies where one was looked for."""


class SampleError(DataError):
    """One image or mask is unreadable, or the two do not match."""


class LabelError(DataError):
    """A mask holds a value that is neither a class nor void."""


class WeightsError(SegContextError):
    """A weight file cannot be used."""


class PretrainedUnavailable(WeightsError):
    """Pretrained weights cannot be fetched."""


class CheckpointError(WeightsError):
    """A run or checkpoint is damaged, unsafe to read, or written in another format."""


class OutputExists(SegContextError):
    """Writing would overwrite something of the user's."""


class OutOfMemory(SegContextError):
    """The memory of the GPU or of the machine does not suffice."""


class KernelError(SegContextError):
    """A fast form of an operation, which was asked for by name, cannot run."""


class TrainingDiverged(SegContextError):
    """The loss is no longer finite."""


class TrainingInterrupted(SegContextError):
    """The run was asked to stop, finished its step and saved.

    Attributes:
        signal: the number of the signal that asked.
    """

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.signal = number


#: What they say, each in its way: CUDA and MPS, the CPU on Linux and on Windows, cuDNN and cuBLAS.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


@contextmanager
def memory_advice(doing: str, advice: str) -> Iterator[None]:
    """Words the several errors by which PyTorch and NumPy say that memory does not suffice; others pass.

    Args:
        doing: what is done inside, as the beginning of a sentence: ``"Training with crops of 769×769 pixels"``.
        advice: what to change, in whole sentences.

    Raises:
        OutOfMemory: in place of theirs.

    Example:
        >>> with memory_advice("Holding a list of everything", "Take a part of it."):
        ...     raise MemoryError
        Traceback (most recent call last):
        segcontext.errors.OutOfMemory: Holding a list of everything takes more memory than there is. Take a part of it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        message = str(error)
        if not (isinstance(error, MemoryError) or any(word in message for word in _OUT_OF_MEMORY)):
            raise
        asked = re.search(r"(?:ried|Unable) to allocate ([\d.]+) ?(bytes|[KMGTPE]iB)", message)
        wanted = f": another {_bytes(asked[1], asked[2])} could not be had" if asked else ""
        place = "the GPU has" if "CUDA" in message or "CUBLAS" in message or "CUDNN" in message else "there is"
        raise OutOfMemory(f"{doing} takes more memory than {place}{wanted}. {advice}") from error


def _bytes(number: str, unit: str) -> str:
    if unit != "bytes":
        return f"{number} {unit}"
    return f"{int(number) / 2**30:,.2f} GiB"


def plain(error: Exception) -> str:
    """An error's message without the traceback that PyTorch writes into it when it comes from a worker process.

    Args:
        error: any error.

    Returns:
        The message as it was raised.
    """
    message = str(error)
    if not message.startswith("Caught "):
        return message
    return message.rpartition(f"{type(error).__name__}: ")[2].strip() or message


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint naming the known word nearest to `name`, or the empty string where none is near.

    Args:
        name: the word that was given.
        known: the words that would have been right.

    Returns:
        A sentence such as ``" Did you mean 'backbone'?"`` with a leading space, or ``""``.

    Example:
        >>> nearest("bacbone", ["backbone", "batch"])
        " Did you mean 'backbone'?"
    """
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""
