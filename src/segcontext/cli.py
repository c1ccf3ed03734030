"""The command line: reads the words, runs the command, and words the errors."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import jsonargparse
from rich.console import Console
from rich.markup import escape

from segcontext.cli_help import explain
from segcontext.cli_options import build_parser as _parser
from segcontext.cli_options import underscored
from segcontext.commands import COMMANDS
from segcontext.errors import SegContextError, plain

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after ``segcontext``; `None` takes the process's own.

    Returns:
        The exit code: 0 done, 1 done in part, 2 for an error that the user can mend, 128 + n after signal n.
    """
    console, errors = Console(), Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    if not words:
        parser.print_help()
        return 0
    words = underscored(words, parser)
    try:
        options = parser.parse_args(words, defaults=False, _skip_validation=False)
        command = options["subcommand"]
        given = _as_dict(options.get(command))
        return COMMANDS[command](given, console)
    except SegContextError as error:
        number = getattr(error, "signal", 0)
        if number and not _is_primary():
            # The launcher asks every process to stop, and would call the whole run failed.
            return 0
        errors.print(f"[bold red]{type(error).__name__}[/]: {escape(plain(error))}", highlight=False, soft_wrap=True)
        # The frames of an error that came from a reader process keep that process alive.
        traceback.clear_frames(error.__traceback__)
        return 128 + number if number else 2
    except jsonargparse.ArgumentError as error:
        message = explain(str(error), words, parser)
        errors.print(f"[bold red]Not understood[/]: {escape(message)}", highlight=False, soft_wrap=True)
        return 2
    except OSError as error:
        # Without a file it is nothing that the user could mend.
        if error.filename is None:
            raise
        errors.print(
            f"[bold red]Files[/]: {escape(f'{error.filename}: {error.strerror}')}. Choose another place, or mend that.",
            highlight=False,
            soft_wrap=True,
        )
        return 2
    except KeyboardInterrupt:
        errors.print("Stopped.")
        return 130


def _is_primary() -> bool:
    from segcontext.training import is_primary

    return is_primary()


def _as_dict(namespace: Any) -> dict[str, Any]:
    values = namespace.as_dict() if namespace else {}
    return {key: value for key, value in values.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
