"""Command lines of flags (`--out runs/x`): words -> a dataclass of settings, held to their ranges.

Nothing heavy is imported here, so that help and mistyped flags are answered at once.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TypeVar

import tyro

from .errors import UsageError
from .files import expand_home
from .ranges import check, flag

T = TypeVar("T")
_HYDRA_WORD = re.compile(r"[A-Za-z_][\w.]*=")


def from_flags(kind: type[T], words: Sequence[str], prog: str, description: str | None) -> T:
    """The settings `kind`, a dataclass or a union of some, that `words` give; `-h` and unknown flags leave by SystemExit.

    Raises UsageError for a value out of range and for `key=value`, which is how other commands take settings.
    """
    words = [_expanded(word) for word in words]
    refuse_assignments(words, prog)
    settings: T = tyro.cli(kind, args=words, prog=prog, description=description)
    check(settings, flag)
    return settings


def refuse_assignments(words: Sequence[str], prog: str) -> None:
    """UsageError for words that begin as `key=value`, with the flags that say the same."""
    if not words or not _HYDRA_WORD.match(words[0]):
        return
    said = []
    for word in words:
        key, equals, value = word.partition("=")
        said += [word] if not equals or word.startswith("-") else [f"--{key.replace('_', '-')}", *_listed(value)]
    raise UsageError(f"{words[0]}: `{prog}` takes flags; write {prog} {shlex.join(said)}")


def _listed(value: str) -> list[str]:
    """The values of hydra's [a,b]."""
    return [item.strip() for item in value[1:-1].split(",")] if value.startswith("[") and value.endswith("]") else [value]


def _expanded(word: str) -> str:
    """A word in which the shell did not expand ~, because it stands behind `=`."""
    name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{name}{equals}{expand_home(value)}"
