"""Which segcontext a result comes from: its version and, where it runs from a checkout, the commit."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

__all__ = ["provenance"]


def provenance() -> dict[str, str | None]:
    """The package that is running.

    Returns:
        ``version``, and ``commit``: the first seven digits of the commit that is checked out where the package runs
        from a git checkout, without a word on files that were changed since; else `None`. Git itself is not asked.
    """
    # By name: the package's door opens to every floor above this one.
    version: str = import_module("segcontext").__version__
    package = Path(__file__).parents[1]
    return {"version": version, "commit": checked_out(package.parents[1]) if package.parent.name == "src" else None}


def checked_out(root: Path) -> str | None:
    """The commit that is checked out in a folder, read from git's files.

    Args:
        root: the folder that holds ``.git``; a worktree's ``.git`` is a file.

    Returns:
        Its first seven digits, or `None` where there is none to be read.
    """
    try:
        folder = root / ".git"
        if folder.is_file():
            folder = root / _after("gitdir:", folder)
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith("ref:"):
            head = _commit_of(head.removeprefix("ref:").strip(), folder)
    except (OSError, ValueError):
        return None
    return head[:7] if re.fullmatch(r"[0-9a-f]{40,64}", head) else None


def _commit_of(name: str, folder: Path) -> str:
    """The commit that a branch stands at; packed branches are lines of one file."""
    shared = folder / "commondir"
    common = folder / shared.read_text(encoding="utf-8").strip() if shared.is_file() else folder
    if (common / name).is_file():
        return (common / name).read_text(encoding="utf-8").strip()
    packed = (common / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), "")


def _after(word: str, file: Path) -> str:
    return file.read_text(encoding="utf-8").strip().removeprefix(word).strip()
