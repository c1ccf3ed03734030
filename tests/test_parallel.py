import math
import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from segcontext.errors import SegContextError
from segcontext.parallel import default_workers, share_out

# Functions of the standard library, so that the processes need not import PyTorch.


def test_results_come_in_the_order_of_the_jobs():
    jobs = range(40)
    expected = [2**job for job in jobs]
    assert list(share_out(pow, 2, jobs, workers=0)) == expected
    assert list(share_out(pow, 2, jobs, workers=2, chunk=3)) == expected
    assert list(share_out(pow, 2, [], workers=1)) == []


def test_only_a_bounded_part_is_under_way():
    taken = []
    results = share_out(pow, 2, (taken.append(job) or job for job in range(1000)), workers=1, chunk=2)
    assert next(results) == 1
    assert len(taken) <= 2 * (4 + 2)
    results.close()
    assert len(taken) < 20


def test_an_error_of_a_job_comes_through():
    with pytest.raises(TypeError, match="integer"):
        list(share_out(math.perm, 2, [1, "two"], workers=1))


@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
def test_a_killed_process_is_explained():
    with pytest.raises(SegContextError, match=r"was killed.*--workers 1"):
        list(share_out(operator.call, signal.raise_signal, [signal.SIGKILL], workers=1))


INTERRUPTED = """
import signal, sys, time
from segcontext.parallel import share_out
if __name__ == "__main__":
    # Started in the background of a shell, it would not listen.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for result in share_out(max, 0.05, [0.1] * 3, workers=2, chunk=1):
        print(result, flush=True)
    jobs = share_out(pow, 2, iter(lambda: time.sleep(0.05) or 1, None), workers=2, chunk=1)
    try:
        for result in jobs:
            print(result, flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="no process groups")
def test_ctrl_c_stops_all_processes_and_is_told_once(tmp_path):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    words = [sys.executable, tmp_path / "script.py"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(6):
        assert process.stdout.readline()
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert out.endswith("stopped\n")
    assert err == ""
    assert process.returncode == 0


def test_few_jobs_need_no_processes():
    assert default_workers(100) == 0
    assert 0 <= default_workers(10_000) <= 16
