"""What the command line says of itself: its help, and the explanation of words that it does not understand."""

from __future__ import annotations

import argparse
import itertools
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import jsonargparse

from segcontext.errors import nearest

__all__ = ["DESCRIPTION", "HelpFormatter", "explain", "subparsers"]

DESCRIPTION = """Context modules for semantic segmentation: train any aggregation with any distribution on a folder of
images and masks, score it, and segment new images.

  segcontext demo                                              see it all on drawn street scenes, in a few minutes
  segcontext train --data FOLDER --out runs/first              train on your own data
  segcontext train --config RECIPE --out runs/name             train by a recipe; any key can be overridden
  segcontext recipes                                           the recipes that come with it
  segcontext evaluate runs/first --data FOLDER                 score it
  segcontext predict runs/first photos/*.jpg --out masks       segment new images
  segcontext submit runs/first --data FOLDER --out sent        predictions for a test server
  segcontext doctor FOLDER                                     what is wrong with a data set, before training
  segcontext cost --model emanet --size 1024 2048              what a network costs, part by part
  segcontext check-gpu                                         which of the kernels for a GPU are right and fast on it
"""


def subparsers(parser: jsonargparse.ArgumentParser) -> Mapping[str, jsonargparse.ArgumentParser]:
    """The parser of each command, by its name."""
    commands: Any = parser._subcommands_action
    found: Mapping[str, jsonargparse.ArgumentParser] = commands._name_parser_map
    return found


class HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Help for people: line breaks kept, defaults where there are any, no types and no markup."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())

    def _get_help_string(self, action: argparse.Action) -> str:
        words, default = (action.help or "").replace("``", "'").rstrip("."), action.default
        if action.nargs == 0 or default in (None, argparse.SUPPRESS, {}):
            return words
        return f"{words} (default: {str(default).lower() if isinstance(default, bool) else default})"

    def _format_action(self, action: argparse.Action) -> str:
        # A heading within the heading "commands".
        return super()._format_action(action).replace("  Available subcommands:\n", "")

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        # jsonargparse's --name+ appends to a list; one way of saying it is enough here.
        names = ", ".join(name for name in action.option_strings if not name.endswith("+"))
        if action.nargs == 0:
            return names
        return f"{names} {action.metavar if isinstance(action.metavar, str) else _metavar(action)}"


def _metavar(action: argparse.Action) -> str:
    """What stands for a value in the help: its choices, or the word for its type."""
    hint = getattr(action, "_typehint", None)
    options = [part for part in get_args(hint) if part is not types.NoneType]
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, options)) + "}"
    if hint is bool:
        return "{true,false}"
    if get_origin(hint) is list:
        return "[…]"
    if any(get_origin(part) is list for part in options) and str not in options:
        return "N|[…]" if int in options else "X|[…]"
    if get_origin(hint) is dict:
        return "{…}"
    if hint in (int, float):
        return "N" if hint is int else "X"
    return "VALUE" if len(options) > 1 and str not in options else "NAME"


def explain(message: str, words: Sequence[str], parser: jsonargparse.ArgumentParser) -> str:
    """The parser's message in the user's words, with the nearest right word for a misspelt one.

    Args:
        message: what the parser said.
        words: the words of the command line.
        parser: the parser with the commands.

    Returns:
        What was wrong, what was expected, and where to read on.
    """
    known = subparsers(parser)
    command = words[0] if words else ""
    if command not in known:
        hint = "" if command.startswith("-") else nearest(command, known)
        return f"There is no command '{command}'.{hint} Try segcontext --help."
    actions = known[command]._actions
    names = [option for action in actions for option in action.option_strings]
    end = f"Try segcontext {command} --help."
    for word in words[1:]:
        option = word.split("=")[0]
        if option.startswith("--") and option not in names and option.split(".")[0] not in names:
            hint = nearest(option.lstrip("-"), [name.lstrip("-") for name in names]).replace("'", "'--", 1)
            return f"segcontext {command} has no option {option}.{hint} {end}"
    if found := re.search(r'Parser key "(\w+)"', message):
        action = next(action for action in actions if action.dest == found[1])
        shown = f"--{found[1]}" if action.option_strings else str(action.metavar)
        given = _given(shown, words)
        kind = getattr(action, "_typehint", str)
        literals = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
        choices = [str(choice) for literal in literals for choice in get_args(literal)]
        return f"{shown} cannot be '{given}': expected {_expected(kind)}.{nearest(given, choices)} {end}"
    if found := re.search(r"arguments are required: (.*)", message):
        missing = [dest.strip().removeprefix(f"{command}.") for dest in found[1].split(",")]
        needed = [
            action.option_strings[0] if action.option_strings else str(action.metavar)
            for action in actions
            if action.dest in missing
        ]
        return f"segcontext {command} needs {' and '.join(needed)}. {end}"
    if found := re.match(r"argument (--\w+).*: expected .*argument", message):
        return f"{found[1]} needs a value. {end}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return f"{' '.join(lines[:3]).rstrip('.')}. {end}"


def _given(option: str, words: Sequence[str]) -> str:
    """The last value that an option was given."""
    values = [after for before, after in itertools.pairwise(words) if before == option]
    values += [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    return values[-1] if values else ""


def _expected(kind: Any) -> str:
    """A type, in words."""
    plainly = {int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
    if kind in plainly:
        return plainly[kind]
    origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, options))
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(option) for option in options)
    if origin is list:
        return "a list such as [64,128]" if options[0] is int else "a list such as [0.5,2]"
    return "a mapping such as '{key: value}'" if origin is dict else "a word"
