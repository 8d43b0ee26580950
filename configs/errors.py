"""The one exception that a user is meant to read, the hint for a mistyped name, and the line for what was dealt with."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class RoboprefError(Exception):
    """Something the user can mend: the message names the file or key and says what to do.

    The command line prints it without a traceback and exits with status 1; library callers may catch it.
    """


def nearest(word: str, options: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest of `options`, or an empty string when nothing is close."""
    close = closest(word, options)
    return "" if close is None else f" Did you mean {close!r}?"


def closest(word: str, options: Iterable[str]) -> str | None:
    """The one of `options` that a mistyped `word` may stand for; None when nothing is close."""
    # difflib's own 0.6: at 0.5 `data` is close to `abstain`
    return next(iter(difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)), None)


class UsageError(RoboprefError):
    """A mistyped command, key or choice: the command line exits with status 2, as argument parsers do."""


def warn(message: str) -> None:
    """One line on stderr: what was found in an input and dealt with, so that nothing is done to it in silence."""
    print(f"warning: {message}", file=sys.stderr)
