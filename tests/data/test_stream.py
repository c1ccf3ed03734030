import pickle
from collections import Counter

import pytest
import torch
from torchvision import tv_tensors

from segcontext.data.dataset import Dataset, Item
from segcontext.data.stream import Failure, PositionBatches, TrainingStream, training_loader
from segcontext.data.transforms import TrainTransform
from segcontext.errors import LabelError, RecipeError
from segcontext.types import Sample


class Noise(Dataset):
    name = "noise"
    classes = ("a", "b")
    palette = ((0, 0, 0), (1, 1, 1))

    def __init__(self, length=7, *, broken=None):
        self.length = length
        self.broken = broken
        super().__init__(".", "train")

    def list_items(self):
        return [Item("", None, f"n{index}") for index in range(self.length)]

    def __getitem__(self, index):
        if index == self.broken:
            raise LabelError(f"sample {index} is broken")
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 12, 15), dtype=torch.uint8, generator=generator)
        mask = torch.randint(0, 2, (12, 15), dtype=torch.uint8, generator=generator)
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), self.items[index].name)


def make(seed=5, length=7):
    return TrainingStream(Noise(length), TrainTransform(10, color_jitter=0.2), seed=seed)


def same(first, second):
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(first, second, strict=True))


def steps_of(stream, *, world, accumulate, batch, start=0, stop=4, workers=0):
    """Per step, the samples of all ranks in the order of rank and micro-batch."""
    loaders = [
        training_loader(
            stream,
            PositionBatches(batch, start=start, stop=stop, accumulate=accumulate, rank=rank, world=world),
            workers=workers,
        )
        for rank in range(world)
    ]
    return [
        tuple(
            torch.cat(part) if isinstance(part[0], torch.Tensor) else sum(part, ())
            for part in zip(*batches, strict=True)
        )
        for batches in zip(*loaders, strict=True)
    ]


def test_each_epoch_goes_through_the_data_once_in_another_order():
    stream = make()
    orders = [[stream.index(7 * epoch + place) for place in range(7)] for epoch in range(5)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    assert [stream.index(position) for position in range(7)] == orders[0]


def test_position_alone_decides_not_what_was_read_before():
    fresh, used = make(), make()
    for position in (30, 2, 11, 8, 0):
        used[position]
    assert same(fresh[9], used[9])
    assert fresh[9].position == 9
    assert fresh[9].name == f"n{fresh.index(9)}"


def test_same_sample_is_augmented_otherwise_in_another_epoch():
    stream = make(length=1)
    assert stream[0].name == stream[1].name
    assert not torch.equal(stream[0].image, stream[1].image)


def test_seed_chooses_the_stream():
    assert same(make(seed=1)[3], make(seed=1)[3])
    orders = {tuple(make(seed=seed).index(p) for p in range(7)) for seed in range(5)}
    assert len(orders) == 5


def test_pickled_copy_gives_the_same_samples():
    stream = make()
    stream[3]
    assert same(pickle.loads(pickle.dumps(stream))[20], stream[20])


def test_global_random_state_is_neither_read_nor_moved():
    first = steps_of(make(), world=1, accumulate=1, batch=3)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    second = steps_of(make(), world=1, accumulate=1, batch=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("world", "accumulate", "batch"), [(1, 1, 8), (2, 1, 4), (1, 4, 2), (2, 2, 2), (4, 1, 2), (8, 1, 1)]
)
def test_every_way_of_parting_a_step_gives_the_same_samples(world, accumulate, batch):
    expected = steps_of(make(), world=1, accumulate=2, batch=4)
    parted = steps_of(make(), world=world, accumulate=accumulate, batch=batch)
    assert len(parted) == 4
    assert all(same(a, b) for a, b in zip(parted, expected, strict=True))


def test_workers_make_no_difference():
    expected = steps_of(make(), world=1, accumulate=1, batch=6)
    assert all(
        same(a, b) for a, b in zip(steps_of(make(), world=1, accumulate=1, batch=6, workers=2), expected, strict=True)
    )


def test_resumed_stream_gives_the_same_tail():
    whole = steps_of(make(), world=2, accumulate=1, batch=3)
    for workers in (0, 1):
        tail = steps_of(make(), world=2, accumulate=1, batch=3, start=2, workers=workers)
        assert len(tail) == 2
        assert all(same(a, b) for a, b in zip(tail, whole[2:], strict=True))


def test_positions_are_counted_through():
    batches = [PositionBatches(2, stop=5, accumulate=3, rank=rank, world=2) for rank in (0, 1)]
    drawn = Counter(position for batch in batches for positions in batch for position in positions)
    assert drawn == Counter(range(5 * 12))
    assert next(iter(batches[1])) == [6, 7, 8, 9, 10, 11]


def test_stretch_can_be_moved_again_and_again():
    batches = PositionBatches(2, start=3, stop=5)
    assert list(batches) == list(batches) == [[6, 7], [8, 9]]
    assert len(batches) == 2
    batches.between(0, 1)
    assert list(batches) == [[0, 1]]
    batches.between(4, 4)
    assert list(batches) == []
    assert list(PositionBatches(2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_one_loader_reads_stretch_after_stretch(workers):
    expected = steps_of(make(), world=1, accumulate=1, batch=3)
    batches = PositionBatches(3)
    loader = training_loader(make(), batches, workers=workers)
    read = []
    for start, stop in ((0, 1), (1, 3), (3, 4)):
        batches.between(start, stop)
        assert len(loader) == stop - start
        read += list(loader)
    assert len(read) == 4
    assert all(same(a, b) for a, b in zip(read, expected, strict=True))


def test_batch_holds_stacked_samples_with_names():
    (batch,) = training_loader(make(), PositionBatches(2, stop=1, accumulate=2))
    assert batch.images.shape == (4, 3, 10, 10)
    assert batch.masks.shape == (4, 10, 10)
    assert batch.images.dtype == batch.masks.dtype == torch.uint8
    assert batch.positions.tolist() == [0, 1, 2, 3]
    assert batch.names == tuple(make()[position].name for position in range(4))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_stands_as_a_failure(workers):
    """It is raised where all processes of a run meet, not in the one that happened to read it."""
    stream = TrainingStream(Noise(3, broken=1), TrainTransform(10))
    (failure,) = training_loader(stream, PositionBatches(3, stop=1), workers=workers)
    assert isinstance(failure, Failure)
    assert failure.kind is LabelError
    assert "sample 1 is broken" in failure.message
    with pytest.raises(LabelError, match="sample 1 is broken"):
        [stream[position] for position in range(3)]


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"accumulate": 0}, {"world": 0}, {"rank": 2, "world": 2}, {"start": -1}, {"start": 6}]
)
def test_numbers_out_of_range_are_refused_by_name(wrong):
    expected = "steps to read" if "start" in wrong else next(iter(wrong))
    with pytest.raises(RecipeError, match=expected):
        PositionBatches(**{"batch": 1, "stop": 5, **wrong})


def test_negative_seed_and_position_are_refused():
    with pytest.raises(RecipeError, match="seed is -1"):
        make(seed=-1)
    with pytest.raises(IndexError, match="negative"):
        make()[-1]
