"""Command lines of flags (`--out runs/x`): words -> a dataclass of settings, held to their ranges.

Nothing heavy is imported here, so that help and mistyped flags are answered at once.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated, TypeVar, get_args, get_origin

import tyro

from .errors import UsageError
from .files import expand_home
from .ranges import check, flag, keys_of, types_at

T = TypeVar("T")
HELP_INDENT = 9  # blanks in a row of tyro's before the words of the help; flags have five


def from_flags(kind: type[T], words: Sequence[str], prog: str, description: str | None) -> T:
    """The settings `kind`, a dataclass or a union of some, that `words` give; `-h` leaves by SystemExit.

    Raises UsageError for words that are no such settings, a value out of range, and for `key=value`, which is how other commands
    take settings.
    """
    words = [_expanded(word) for word in words]
    if dataclasses.is_dataclass(kind):
        _look_through(kind, words, prog)
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            settings: T = tyro.cli(kind, args=words, prog=prog, description=description)
    except SystemExit as end:
        if end.code != 2:
            raise
        raise UsageError(f"{_unboxed(told.getvalue())}; `{prog} -h` explains the flags") from None
    check(settings, flag)
    return settings


def _unboxed(text: str) -> str:
    """Return the message of an error box of tyro as one line, without the frame and the help that the box repeats."""
    parts: list[list[str]] = [[]]
    _, *rows = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines() or [""]  # the first one is a title
    for row in (line.strip("│╰╯ ─-") and line[1:].rstrip("│ ") for line in rows):
        if not row:
            parts.append([])
        elif not row.startswith(" " * HELP_INDENT):
            parts[-1].append(row.strip())
    kept = [" ".join(part) for part in parts if part and not part[0].startswith(("For full helptext", "Argument helptext"))]
    return "; ".join(part.rstrip(".") for part in kept)


def _look_through(kind: type, words: Sequence[str], prog: str) -> None:
    """UsageError for what no parser would find wrong, or not say how it is meant here: `key=value`, and an empty path."""
    known, key, takes = set(keys_of(kind)), "", 0.0
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            key = name.removeprefix("--").replace("-", "_")
            takes = 0 if equals else _values_of(kind, key)
        elif takes:
            takes, equals, value = takes - 1, "=", word
        elif (found := re.match(r"([A-Za-z_][\w.-]*)=", word)) and found[1].replace("-", "_") in known:
            said = shlex.join(part for word in words for part in _as_flag(kind, word))
            raise UsageError(f"{word}: `{prog}` takes flags; write {prog} {said}")
        else:
            continue
        if equals and value == "" and Path in types_at(kind, key):
            raise UsageError(f"--{key.replace('_', '-')} is empty: give a value, or leave it out")


def _values_of(kind: type, key: str) -> float:
    """How many words follow a flag."""
    kinds = types_at(kind, key)
    if bool in kinds:
        return 0
    plain = [get_args(one)[0] if get_origin(one) is Annotated else one for one in kinds]
    return math.inf if any(get_origin(one) is tuple for one in plain) else 1


def _as_flag(kind: type, word: str) -> list[str]:
    """The flags, or the words without one, that say the same as `key=value`; other words as they are."""
    key, equals, value = word.partition("=")
    kinds = types_at(kind, key.replace("-", "_"))
    if not equals or word.startswith("-") or not kinds:
        return [word]
    name = f"--{key.replace('_', '-')}"
    if bool in kinds:
        return [name if value.lower() == "true" else name.replace("--", "--no-", 1)]
    values = [item.strip() for item in value[1:-1].split(",")] if value[:1] == "[" and value[-1:] == "]" else [value]
    positional = any(get_origin(one) is Annotated and tyro.conf.Positional in get_args(one) for one in kinds)
    return values if positional else [name, *values]


def _expanded(word: str) -> str:
    """A word in which the shell did not expand ~, because it stands behind `=`."""
    name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{name}{equals}{expand_home(value)}"
