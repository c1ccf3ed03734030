"""Files that appear whole or not at all, and where those lie that can be made anew."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_path", "user_cache"]


def user_cache(name: str) -> Path:
    """A folder for what can be made anew, in the user's cache folder: ``XDG_CACHE_HOME``, or ``~/.cache``.

    Args:
        name: of the folder, below ``segcontext``.

    Returns:
        Its path; it need not exist.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segcontext" / name


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves what was written there to `path` if nothing failed.

    The temporary file is hidden and named after `path` and the writing process. What a killed process left of an
    earlier write to the same `path` is removed.

    Args:
        path: the file to write; missing folders are made.

    Yields:
        The temporary path, with the suffix of `path`.

    Example:
        >>> # with atomic_path("scores.json") as temporary:
        >>> #     temporary.write_text("{}")
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Names are limited to 255 bytes, and the image that a mask is named after may use them all.
    key = target.name if len(os.fsencode(target.name)) < 200 else hashlib.sha256(os.fsencode(target.name)).hexdigest()
    beginning = f".{key}.part-"
    _remove_leftovers(target.parent, beginning)
    # On Linux the main thread's number is the process's, so the name is the same each time.
    temporary = target.with_name(f"{beginning}{os.getpid()}-{threading.get_native_id()}{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        # A full disk does not say which file it was too full for.
        if error.filename is not None or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: Path, beginning: str) -> None:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(beginning)]
    for name in names:
        writer = re.match(r"(\d+)-\d+", name[len(beginning) :])
        if writer and not _is_alive(int(writer[1])):
            with suppress(OSError):
                (folder / name).unlink()


def _is_alive(process: int) -> bool:
    # Elsewhere the question itself would end the process.
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
