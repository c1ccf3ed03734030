import re

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper

from segcontext import errors
from segcontext.errors import DataError, OutOfMemory, SampleError, SegContextError, memory_advice, nearest, plain

CLASSES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def test_every_error_is_a_value_error_of_ours_and_exported():
    assert all(issubclass(kind, SegContextError) for kind in CLASSES.values())
    assert issubclass(SegContextError, ValueError)
    assert set(errors.__all__) == {*CLASSES, "memory_advice", "nearest", "plain"}
    assert errors.__all__ == sorted(errors.__all__)
    assert all(kind.__doc__ for kind in CLASSES.values())


def test_the_tree_at_the_top_is_the_tree_of_classes():
    drawn, path = {}, []
    for line in errors.__doc__.split("```text\n")[1].split("```")[0].splitlines():
        name = re.search(r"[A-Z]\w+", line)
        depth = name.start() // 4
        path = [*path[:depth], name[0]]
        drawn[name[0]] = path[-2] if depth else "ValueError"
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "said"),
    [
        # These two ask for more than any machine can address.
        (lambda: torch.empty(2**58), r"than there is: another 1,073,741,824\.00 GiB could"),
        (lambda: np.empty(2**58), r"than there is: another 2\.00 EiB could"),
        (
            raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. 3.00 GiB are free.")),
            r"than the GPU has: another 20\.00 GiB could",
        ),
        (raising(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")), r"than the GPU has\."),
        (raising(MemoryError()), r"than there is\."),
    ],
)
def test_memory_that_does_not_suffice_is_worded_with_advice(act, said):
    with (
        pytest.raises(OutOfMemory, match=rf"Painting a house takes more memory {said}.*Take a smaller one\.$"),
        memory_advice("Painting a house", "Take a smaller one."),
    ):
        act()


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory"), SampleError("gone")])
def test_other_errors_pass(error):
    with pytest.raises(type(error), match=str(error)), memory_advice("Painting", "Stop."):
        raise error


def test_an_error_from_a_worker_process_reads_as_it_was_raised():
    try:
        raise SampleError("images/a: b.png: cannot be read.\nSave it anew.")
    except SampleError:
        # What a DataLoader sends from a worker to the training process.
        sent = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(SampleError, match="Traceback") as caught:
        sent.reraise()
    assert plain(caught.value) == "images/a: b.png: cannot be read.\nSave it anew."


@pytest.mark.parametrize("text", ["", "no masks in 'a'", "two\nlines", "SampleError: twice", "Caught a mask"])
def test_an_error_of_this_process_is_left_alone(text):
    assert plain(DataError(text)) == text


@pytest.mark.parametrize(
    ("word", "hint"),
    [("bacbone", "backbone"), ("Backbone", "backbone"), ("crop_", "crop"), ("zzz", None), ("", None)],
)
def test_the_nearest_word_is_named_where_there_is_one(word, hint):
    found = nearest(word, ["backbone", "batch", "crop"])
    assert found == (f" Did you mean '{hint}'?" if hint else "")


def test_no_words_have_no_nearest():
    assert nearest("anything", iter(())) == ""
