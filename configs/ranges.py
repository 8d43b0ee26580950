"""Ranges of settings, written beside their types, and the one function that checks settings against them.

    steps: Count = 600            # Annotated[int, Range(1)]
    seeds: Seeds = (0,)           # different seeds, at least one

Every command checks its settings here before anything heavy is imported and before anything is written.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints

from .errors import UsageError

_UNIONS = (Union, types.UnionType)


class Rule(Protocol):
    """A rule in an Annotated type, which says what is wrong with a value."""

    def problem(self, value: Any) -> str | None:
        """Return the words that follow the setting and its value in an error; None for an allowed value."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, without the ends where `open_low` and `open_high` say so; never NaN or infinity."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as `Rule.problem` says; None for an allowed value."""
        inside = math.isfinite(value) and self.low <= value <= self.high
        if inside and not (self.open_low and value == self.low) and not (self.open_high and value == self.high):
            return None
        return f"is out of range: it must be {self}"

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {self.low:.12g}" if math.isfinite(self.low) else ""
        high = f"{'below' if self.open_high else 'at most'} {self.high:.12g}" if math.isfinite(self.high) else ""
        return " and ".join(filter(None, (low, high))) or "a finite number"


@dataclass(frozen=True)
class Countable:
    """A number that sizes of arrays do not overflow with: libraries would fail without a word about the setting."""

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as `Rule.problem` says; None for an allowed value."""
        return None if value < 2**31 else f"is out of range: it must be at most {2**31 - 1}"


@dataclass(frozen=True)
class Different:
    """A list whose values differ from each other, `least` of them or more."""

    least: int = 1

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as `Rule.problem` says; None for an allowed value."""
        twice = next((item for item in value if value.count(item) > 1), None)
        if twice is not None:
            return f"has {twice} more than once: each must be another"
        return None if len(value) >= self.least else f"has {len(value)} values: it must have at least {self.least}"


@dataclass(frozen=True)
class Some:
    """One value or more; the same one may come again."""

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as `Rule.problem` says; None for an allowed value."""
        return None if value else "has no value: it must have at least 1"


@dataclass(frozen=True)
class OneWord:
    """A name, without blanks or commas."""

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as `Rule.problem` says; None for an allowed value."""
        return None if re.fullmatch(r"[^\s,]+", value) else "must be one name"


@dataclass(frozen=True)
class OnDevice:
    """auto, or a device of this machine; torch is asked only about a GPU."""

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as `Rule.problem` says; None for an allowed value."""
        if value in ("auto", "cpu"):
            return None
        from .run import devices

        there = devices()
        return None if value in there else f"is not there: it must be auto or one of this machine's, {', '.join(there)}"


Count = Annotated[int, Range(1), Countable()]
Natural = Annotated[int, Range(0), Countable()]
Workers = Annotated[int, Range(1, 1024)]
"""Threads or processes: beyond the largest machines, OpenMP or fork ends the command without a word about the setting."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What numpy's older generators take, which libraries draw from."""
FirstGoal = Annotated[int, Range(0, 2**31 - 1)]
"""Seed of the first of many starts; the others follow it and are seeds, too."""
Number = Annotated[float, Range()]
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
PartShare = Annotated[float, Range(0, 1, open_high=True)]
"""A share that leaves something: of what is dropped, noised or set aside."""
SomeShare = Annotated[float, Range(0, 1, open_low=True)]
"""A share of something that must not be nothing."""
Inner = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
Seeds = Annotated[tuple[Seed, ...], Different()]
Names = Annotated[tuple[str, ...], Different()]
"""Names of things that are done once each; a name that comes again would be done, and counted, twice."""
SomeTasks = Annotated[tuple[str, ...], Some()]
"""Tasks and parts of splits, which may overlap (tasks.expand_tasks)."""
Widths = tuple[Count, ...]
"""Of hidden layers; none: a linear map."""
Device = Annotated[str, OnDevice()]
Word = Annotated[str, OneWord()]
"""A name of which several can be swept over: in hydra a comma between them is no part of one."""
Pixels = Annotated[int, Range(1, 8192)]
"""Side of a picture; beyond, drivers refuse the framebuffer, some with a crash."""


def flag(key: str, value: Any) -> str:
    """A setting as it is given on a command line of flags; `assignment` as it is given to hydra."""
    words = value if isinstance(value, tuple | list) else [value]
    return " ".join([f"--{key.replace('_', '-')}", *(str(word) or "''" for word in words)])


def assignment(key: str, value: Any) -> str:
    """`key=value`."""
    return f"{key}={list(value) if isinstance(value, tuple) else value}"


def check(settings: Any, say: Callable[[str, Any], str] = assignment) -> None:
    """Raise UsageError, one line with the setting, its value and what it must be, for the first that breaks its rule.

    settings: a dataclass, in which others may be nested.  say: how a setting is written for this user.
    """
    for key, value, rules in _ruled(settings, ""):
        for rule in rules:
            if (problem := rule.problem(value)) is not None:
                raise UsageError(f"{say(key, value)} {problem}")


def rules_of(hint: Any) -> tuple[Rule, ...]:
    """The rules that stand directly in an annotation."""
    return tuple(rule for rule in get_args(hint)[1:] if hasattr(rule, "problem")) if get_origin(hint) is Annotated else ()


def _ruled(settings: Any, prefix: str) -> Iterator[tuple[str, Any, tuple[Rule, ...]]]:
    """(full key, value, rules) of every setting and of every value of a list."""
    for name, hint in hints(type(settings)).items():
        yield from _values(f"{prefix}{name}", getattr(settings, name), hint)


def _values(key: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, tuple[Rule, ...]]]:
    if value is None:
        return
    if dataclasses.is_dataclass(value):
        yield from _ruled(value, f"{key}.")
    elif get_origin(hint) is Annotated:
        yield key, value, rules_of(hint)
        yield from _values(key, value, get_args(hint)[0])
    elif get_origin(hint) in _UNIONS:
        for kind in get_args(hint):  # X | None: there is one other
            yield from _values(key, value, kind)
    elif isinstance(value, tuple | list):
        kinds = get_args(hint)
        for number, item in enumerate(value):
            kind = kinds[0] if kinds[-1] is Ellipsis or len(kinds) == 1 else kinds[number]
            yield from ((key, item, rules) for key, item, rules in _values(key, item, kind))


class Text(Enum):
    """Where a setting is text, such as a path: one, one or null, or a list."""

    ONE = 1
    ONE_OR_NONE = 2
    LIST = 3


def text_at(cls: type, key: str) -> Text | None:
    """Whether `key`, dots between its parts, is text in the settings `cls`; None for numbers, words and what is not there."""
    kinds = types_at(cls, key)
    if any(get_origin(kind) in (tuple, list) and get_args(kind)[0] in (str, Path) for kind in kinds):
        return Text.LIST
    if not {str, Path} & {kind for kind in kinds if isinstance(kind, type)}:
        return None
    return Text.ONE_OR_NONE if type(None) in kinds else Text.ONE


def types_at(cls: type, key: str) -> list[Any]:
    """The types that `key`, dots between its parts, may have in the settings `cls`; none for what is not there."""
    kinds: list[Any] = [cls]
    for name in key.split("."):
        kinds = [hints(kind)[name] for kind in kinds if dataclasses.is_dataclass(kind) and name in hints(kind)]
        kinds = [part for kind in kinds for part in (get_args(kind) if get_origin(kind) in _UNIONS else [kind])]
    return kinds


def keys_of(cls: Any, prefix: str = "") -> Iterator[str]:
    """Every key of the settings `cls`, dots between its parts."""
    for name, hint in hints(cls).items():
        yield f"{prefix}{name}"
        for kind in get_args(hint) if get_origin(hint) in _UNIONS else [hint]:
            if dataclasses.is_dataclass(kind):
                yield from keys_of(kind, f"{prefix}{name}.")


def hints(cls: Any) -> dict[str, Any]:
    """The annotations of a dataclass's fields, rules included."""
    found = get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}
