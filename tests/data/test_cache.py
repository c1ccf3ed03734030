import errno
import logging
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

from segcontext.data import Folder, PixelCache, TrainingStream, TrainTransform, cache_room, open_dataset
from segcontext.data import cache as cache_module
from segcontext.data.stream import PositionBatches, training_loader
from segcontext.errors import LabelError, SampleError

DAY = 24 * 3600


def write(root, count=4, seed=0, size=(40, 56)):
    """A folder with pictures, which are a day old."""
    draw = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    (root / "classes.txt").write_text("wall\ndoor\n")
    for index in range(count):
        Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8)).save(root / f"images/{index}.png")
        Image.fromarray(draw.integers(0, 2, size, np.uint8)).save(root / f"masks/{index}.png")
    return root


def opened(root, folder, limit=10**9):
    data = Folder(root, "all")
    data.cache = PixelCache(folder, limit)
    return data


def same(first, second):
    return torch.equal(first.image, second.image) and torch.equal(first.mask, second.mask)


def entries(folder):
    return sorted(folder.glob("??/*.pixels"))


@pytest.fixture
def settled(monkeypatch):
    """Files that have just been written count as old."""
    monkeypatch.setattr("segcontext.data.cache_entry.time.time_ns", lambda: time.monotonic_ns() + 10**20)


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded from now on."""
    seen = []
    for name, module in (("read_image", "dataset"), ("raw_labels", "dataset")):
        original = getattr(__import__(f"segcontext.data.{module}", fromlist=[name]), name)

        def listed(path, *args, _original=original):
            seen.append(f"{path.parent.name}/{path.stem}")
            return _original(path, *args)

        monkeypatch.setattr(f"segcontext.data.{module}.{name}", listed)
    return seen


def test_each_file_is_decoded_once_and_its_pixels_stay(tmp_path, settled, decoded):
    root = write(tmp_path / "data")
    plain = [Folder(root, "all")[index] for index in range(4)]
    before = sorted(path for path in root.rglob("*"))
    decoded.clear()
    for _ in range(3):
        # Anew each time, as a later run would.
        data = opened(root, tmp_path / "cache")
        assert all(same(data[index], plain[index]) for index in range(4))
        assert torch.equal(data.read_mask(2), plain[2].mask)
    assert sorted(decoded) == sorted(f"{kind}/{index}" for kind in ("images", "masks") for index in range(4))
    assert len(entries(tmp_path / "cache")) == 8
    assert sorted(path for path in root.rglob("*")) == before


def test_a_changed_file_is_decoded_anew(tmp_path, settled, decoded):
    root = write(tmp_path / "data", 1)
    old = opened(root, tmp_path / "cache")[0]
    status = (root / "images/0.png").stat()
    write(root, 1, seed=1)
    # Even with the size and the time that it had.
    os.utime(root / "images/0.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    new = opened(root, tmp_path / "cache")[0]
    assert not torch.equal(new.image, old.image)
    assert same(new, Folder(root, "all")[0])


def test_a_file_that_was_only_touched_is_not_decoded_again(tmp_path, settled, decoded):
    root = write(tmp_path / "data", 1)
    opened(root, tmp_path / "cache")[0]
    os.utime(root / "images/0.png", (1, 1))
    decoded.clear()
    for _ in range(2):
        opened(root, tmp_path / "cache")[0]
    assert decoded == []


def test_a_file_as_young_as_its_entry_is_compared_by_contents(tmp_path, decoded, monkeypatch):
    root = write(tmp_path / "data", 1)
    opened(root, tmp_path / "cache")[0]
    seen = []
    original = cache_module.digest_of
    monkeypatch.setattr("segcontext.data.cache.digest_of", lambda path: seen.append(path) or original(path))
    decoded.clear()
    opened(root, tmp_path / "cache")[0]
    assert len(seen) == 2
    assert decoded == []


def test_other_label_maps_have_entries_of_their_own(tmp_path, settled):
    root = write(tmp_path / "data", 1)
    first = opened(root, tmp_path / "cache").read_mask(0)
    (root / "classes.txt").write_text("1 door\n0 wall\n")
    assert torch.equal(opened(root, tmp_path / "cache").read_mask(0), 1 - first)


@pytest.mark.parametrize("damage", ["cut", "emptied", "zeroed", "flipped", "header", "foreign"])
def test_damaged_entries_are_found_and_made_anew(tmp_path, settled, damage):
    root, folder = write(tmp_path / "data", 1), tmp_path / "cache"
    want = opened(root, folder)[0]
    for path in entries(folder):
        contents = bytearray(path.read_bytes())
        contents = {
            "cut": contents[:-4096],
            "emptied": bytearray(),
            "zeroed": contents[:4096] + bytes(len(contents) - 4096),
            "flipped": contents[:4500] + bytes([contents[4500] ^ 1]) + contents[4501:],
            "header": contents[:40] + bytes([contents[40] ^ 1]) + contents[41:],
            "foreign": bytearray(b"[1, 2]".ljust(8192)),
        }[damage]
        path.write_bytes(contents)
    assert same(opened(root, folder)[0], want)
    for path in entries(folder):
        assert path.stat().st_size > 4096
    assert same(opened(root, folder)[0], want)


def test_writing_to_a_sample_leaves_the_cache_alone(tmp_path, settled):
    root = write(tmp_path / "data", 1)
    data = opened(root, tmp_path / "cache")
    want = data[0].image.clone()
    data[0].image.zero_()
    assert torch.equal(data[0].image, want)


def test_the_limit_holds_and_the_rest_is_decoded(tmp_path, settled, caplog):
    root, folder = write(tmp_path / "data", 6), tmp_path / "cache"
    data = opened(root, folder, limit=40_000)
    for _ in range(2):
        assert all(same(data[index], Folder(root, "all")[index]) for index in range(6))
    sizes = [path.stat().st_size for path in entries(folder)]
    assert 20_000 < sum(sizes) <= 40_000
    (said,) = [record.message for record in caplog.records]
    assert "cache_size" in said
    assert str(folder) in said


def test_entries_unused_for_a_day_make_room_and_others_do_not(tmp_path, settled):
    first, second, folder = write(tmp_path / "a", 2), write(tmp_path / "b", 2, seed=1), tmp_path / "cache"
    [opened(first, folder)[index] for index in range(2)]
    limit = sum(path.stat().st_size for path in entries(folder))
    before = set(entries(folder))
    opened(second, folder, limit)[0]
    assert set(entries(folder)) == before
    old = max(entries(folder), key=lambda path: path.stat().st_size)
    os.utime(old, (time.time() - 2 * DAY, time.time() - 2 * DAY))
    opened(second, folder, limit).read_mask(0)
    assert len(set(entries(folder)) - before) == 1
    assert not old.exists()
    assert sum(path.stat().st_size for path in entries(folder)) <= limit


def test_use_is_noted(tmp_path, settled):
    root, folder = write(tmp_path / "data", 1), tmp_path / "cache"
    opened(root, folder)[0]
    for path in entries(folder):
        os.utime(path, (time.time() - 2 * DAY, time.time() - 2 * DAY))
    opened(root, folder)[0]
    assert all(time.time() - path.stat().st_mtime < 100 for path in entries(folder))


def test_entries_that_may_only_be_read_are_used(tmp_path, settled, decoded, monkeypatch):
    data = opened(write(tmp_path / "data"), tmp_path / "cache")
    first = [data[index] for index in range(len(data))]
    for entry in entries(tmp_path / "cache"):
        os.utime(entry, (time.time() - 7200,) * 2)
    once = len(decoded)

    def refuse(*given, **more):
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr("segcontext.data.cache_entry.os.utime", refuse)
    again = opened(tmp_path / "data", tmp_path / "cache")
    assert all(same(again[index], sample) for index, sample in enumerate(first))
    assert len(decoded) == once


def test_room_that_was_made_in_vain_is_counted(tmp_path, settled):
    folder = tmp_path / "cache"
    data = opened(write(tmp_path / "data"), folder)
    for index in range(len(data)):
        _ = data[index]
    oldest = entries(folder)[0]
    gone = oldest.stat().st_size
    os.utime(oldest, (time.time() - 2 * DAY,) * 2)
    left = sum(entry.stat().st_size for entry in entries(folder)) - gone
    room = cache_room.Room(folder, left)
    with pytest.raises(cache_room.CacheFull), room.taken(folder / "aa" / "new.pixels", 10 * gone):
        pass
    assert not oldest.exists()
    assert int((folder / "used").read_text()) == left


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_costs_nothing_but_time(tmp_path, settled, caplog, monkeypatch, number):
    def failing(*args, **options):
        raise OSError(number, os.strerror(number))

    root = write(tmp_path / "data", 3)
    data = opened(root, tmp_path / "cache")
    data[0]
    kept = entries(tmp_path / "cache")
    monkeypatch.setattr("segcontext.data.cache.write_entry", failing)
    assert all(same(data[index], Folder(root, "all")[index]) for index in range(3))
    assert entries(tmp_path / "cache") == kept
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert os.strerror(number) in caplog.text


def test_a_nearly_full_disk_is_left_alone(tmp_path, settled, caplog, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache_room.shutil, "disk_usage", lambda path: usage._replace(free=2**29))
    data = opened(write(tmp_path / "data", 1), tmp_path / "cache")
    data[0]
    assert entries(tmp_path / "cache") == []
    assert "the disk has less than" in caplog.text


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    data = opened(write(tmp_path / "data", 1), tmp_path / "file" / "cache")
    assert same(data[0], Folder(tmp_path / "data", "all")[0])
    assert len(caplog.records) == 1


def test_errors_of_the_files_come_through(tmp_path, settled):
    root = write(tmp_path / "data", 2)
    data = opened(root, tmp_path / "cache")
    Image.fromarray(np.full((40, 56), 9, np.uint8)).save(root / "masks/0.png")
    (root / "images/1.png").unlink()
    for _ in range(2):
        with pytest.raises(LabelError, match=r"0\.png holds labels that are no class: 9"):
            data[0]
        with pytest.raises(SampleError, match=r"1\.png does not exist"):
            data[1]


def fill(root, folder, barrier):
    """One of two processes that read the same files at the same time."""
    data, plain = opened(root, folder), Folder(root, "all")
    barrier.wait()
    for index in range(len(data)):
        assert same(data[index], plain[index])


def test_processes_fill_one_folder_at_once(tmp_path):
    root, folder = write(tmp_path / "data", 6), tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=fill, args=(root, folder, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    sizes = [path.stat().st_size for path in entries(folder)]
    assert len(sizes) == 12
    assert int((folder / "used").read_text()) == sum(sizes)
    assert not list(folder.rglob("*.part-*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_same_crops_with_and_without(tmp_path, workers):
    root = write(tmp_path / "data", 4)

    def batches(data):
        stream = TrainingStream(data, TrainTransform(24), seed=3)
        return list(training_loader(stream, PositionBatches(4, stop=3), workers=workers))

    plain = batches(Folder(root, "all"))
    for _ in range(2):
        for ours, theirs in zip(batches(opened(root, tmp_path / "cache")), plain, strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.masks, theirs.masks)


def test_names_of_places(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert PixelCache.named("none", gigabytes=1) is None
    assert PixelCache.named("auto", gigabytes=1).folder == tmp_path / "segcontext/pixels"
    assert PixelCache.named(str(tmp_path / "mine"), gigabytes=1).folder == tmp_path / "mine"
    assert list(tmp_path.iterdir()) == []


def test_drawn_samples_are_not_kept(tmp_path, caplog):
    data = open_dataset("demo", "val", cache=PixelCache(tmp_path / "cache", 10**9))
    data[0]
    assert not (tmp_path / "cache").exists()
    assert "draws its samples" in caplog.text
