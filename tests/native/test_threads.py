"""Rows of work on several threads."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from segcontext.native import split
from segcontext.native import threads as module


@pytest.fixture(params=["PyTorch's", "a pool's"])
def whose(request, monkeypatch):
    if request.param == "a pool's":
        monkeypatch.setattr(module, "_team", lambda: None)


@pytest.fixture(params=[1, 2, 5])
def threads(request, whose):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("grain", [1, 5])
def test_every_row_is_done_once(threads, rows, grain):
    done = [0] * rows
    parts = []

    def run(first, last):
        parts.append(last - first)
        for row in range(first, last):
            done[row] += 1

    split(rows, run, grain=grain)
    assert done == [1] * rows
    assert all(part >= min(grain, rows) or sum(parts) == rows for part in parts)
    assert sum(parts) == rows


def test_several_threads_work(threads):
    names = set()
    # Nobody gets away with doing two parts before each thread has one.
    meeting = threading.Barrier(threads)

    def run(first, last):
        names.add(threading.get_ident())
        meeting.wait(timeout=30)

    split(threads, run, parts_each=1)
    assert len(names) == threads


def test_an_error_reaches_the_caller_once_all_are_done(threads):
    running = []

    def run(first, last):
        running.append(first)
        try:
            if first <= 3 < last:
                raise ValueError("the fourth")
        finally:
            running.remove(first)

    with pytest.raises(ValueError, match="the fourth"):
        split(8, run)
    assert not running


def test_after_a_fork_a_pool_works(threads, monkeypatch):
    monkeypatch.setattr(module, "_PROCESS", -1)
    monkeypatch.setattr(module, "_team", lambda: pytest.fail("threads that are not there"))
    done = []
    split(9, lambda first, last: done.extend(range(first, last)))
    assert sorted(done) == list(range(9))


CHILD = """\
import os, signal, torch
torch.set_num_threads(2)
torch.randn(2**20).exp().sum()
child = os.fork()
if child == 0:
    signal.alarm(60)
    from segcontext.native import split
    done = []
    split(64, lambda first, last: done.extend(range(first, last)))
    os._exit(0 if sorted(done) == list(range(64)) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_that_imports_it_first_does_not_wait_for_its_parents_threads():
    assert subprocess.run([sys.executable, "-c", CHILD], timeout=120).returncode == 0


def test_from_two_threads_at_once(threads):
    done = [[], []]

    def use(number):
        for _ in range(20):
            split(7, lambda first, last: done[number].extend(range(first, last)))

    users = [threading.Thread(target=use, args=(number,)) for number in (0, 1)]
    for user in users:
        user.start()
    for user in users:
        user.join(timeout=60)
    assert [sorted(each) for each in done] == [sorted(list(range(7)) * 20)] * 2
