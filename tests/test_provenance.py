"""Results say which segcontext they come from."""

import shutil
import subprocess
from pathlib import Path

import pytest

import segcontext
from segcontext.evaluation import provenance as module
from segcontext.evaluation.provenance import checked_out, provenance

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_branch_a_packed_branch_and_a_commit_by_itself_are_found(tmp_path):
    branch = git(tmp_path / "a", **{".git__HEAD": "ref: refs/heads/x\n", ".git__refs__heads__x": f"{COMMIT}\n"})
    packed = git(
        tmp_path / "b",
        **{
            ".git__HEAD": "ref: refs/heads/x\n",
            ".git__packed_refs": f"# pack\n{'f' * 40} refs/xx\n{COMMIT} refs/heads/x",
        },
    )
    alone = git(tmp_path / "c", **{".git__HEAD": f"{COMMIT}\n"})
    assert [checked_out(folder) for folder in (branch, packed, alone)] == ["0123456"] * 3


def test_a_worktree_is_looked_up_in_its_repository(tmp_path):
    git(tmp_path, **{"main__.git__refs__heads__x": COMMIT})
    git(tmp_path / "main/.git/worktrees/tree", HEAD="ref: refs/heads/x", commondir="../..")
    for number, where in enumerate((tmp_path / "main/.git/worktrees/tree", "../main/.git/worktrees/tree")):
        tree = git(tmp_path / f"tree{number}", **{".git": f"gitdir: {where}\n"})
        assert checked_out(tree) == "0123456"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".git__HEAD": ""},
        {".git__HEAD": "ref: refs/heads/new"},
        {".git__HEAD": "ref: refs/heads/x", ".git__refs__heads__x": "no commit"},
        {".git__HEAD": "ref: refs/heads/x", ".git__packed_refs": ""},
        {".git": "gitdir: nowhere"},
        {".git": "something else"},
    ],
)
def test_where_nothing_can_be_read_there_is_no_commit(tmp_path, files):
    assert checked_out(git(tmp_path, **files)) is None


def test_this_package_says_its_version_and_git_says_the_same(monkeypatch, tmp_path):
    found = provenance()
    assert found["version"] == segcontext.__version__
    if (ROOT / ".git").exists() and shutil.which("git"):
        words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        told = subprocess.run(words, capture_output=True, text=True, check=False)
        if told.returncode == 0:
            assert told.stdout.startswith(found["commit"])
    # An installed package asks no repository that it happens to lie in.
    git(tmp_path, **{".git__HEAD": COMMIT})
    monkeypatch.setattr(module, "__file__", str(tmp_path / "lib/segcontext/evaluation/provenance.py"))
    assert provenance() == {"version": segcontext.__version__, "commit": None}
