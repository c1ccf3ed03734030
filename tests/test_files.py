import errno
import os
import subprocess
import sys
import threading

import pytest

from segcontext.files import atomic_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path):
    def fill():
        with atomic_path(tmp_path / "a.txt"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as found:
        fill()
    assert found.value.filename == str(tmp_path / "a.txt")


def test_the_temporary_file_is_hidden_has_the_suffix_and_one_name_per_file(tmp_path):
    seen = []
    for name in ("a.png", "a.png", "b.png", "x" * 250 + ".png"):
        with atomic_path(tmp_path / "new" / name) as temporary:
            temporary.write_text(name)
            seen.append(temporary.name)
        assert (tmp_path / "new" / name).read_text() == name
    assert all(name.startswith(".") and name.endswith(".png") and len(name) < 256 for name in seen)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


KILLED = """
import os, signal, sys
from segcontext.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", KILLED, path], check=False, timeout=100)
    (left,) = names(tmp_path)
    assert left.startswith(".a.txt.part-")
    with atomic_path(tmp_path / "b.txt") as temporary:
        temporary.write_text("other")
    assert names(tmp_path) == [left, "b.txt"]
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["a.txt", "b.txt"]
    assert path.read_text() == "whole"


def test_what_living_processes_and_others_write_is_left_alone(tmp_path):
    (tmp_path / f".a.txt.part-{os.getppid()}-1.txt").touch()
    (tmp_path / ".a.txt.part-mine.txt").touch()
    before = names(tmp_path)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == [*before, "a.txt"]


def test_threads_that_write_one_file_do_not_mix(tmp_path):
    inside = threading.Barrier(2)

    def write(text):
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text(text)
            inside.wait(20)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() in ("one", "two")
