"""The one exception that a user is meant to read, the hint for a mistyped name, and the line for what was dealt with."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable

LONG = 200  # letters of another library's words that an error quotes


SHOWN = 800  # letters of the beginning and of the end of an error: the longest lists of settings are shorter than both


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


def one_line(error: BaseException) -> str:
    """Return the message of another library's error on one line of at most LONG letters, or its type where it has none."""
    said = " ".join(str(error).split())
    return said[:LONG] or type(error).__name__


class UsageError(RoboprefError):
    """A mistyped command, key or choice: the command line exits with status 2, as argument parsers do.

    What it quotes may be long, or of several lines: it becomes one line, without what stands in its middle.
    """

    def __init__(self, message: str) -> None:
        message = " ".join(message.splitlines())
        super().__init__(message if len(message) <= 2 * SHOWN else f"{message[:SHOWN]} ... {message[-SHOWN:]}")


def visible(text: str) -> str:
    """Text of a file for a terminal or a page: what would steer a terminal, or turn the direction of reading, is spelled out."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", _spelled, text)


def _spelled(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def warn(message: str) -> None:
    """One line on stderr: what was found in an input and dealt with, so that nothing is done to it in silence."""
    print(f"warning: {visible(message)}", file=sys.stderr)
