"""How far a command is, and the line that it ends with.

On a terminal one line is written over; in a log there is a line a minute, so that a job of hours shows that it lives and a short
one says nothing.  Both go to stderr: what a command prints to stdout is its result.  Workers are silent, the command counts them.
"""

from __future__ import annotations

import multiprocessing
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from .files import MANIFEST

T = TypeVar("T")
LOG_S = 60.0  # between two lines in a log
WATCHED_S = 0.1  # between two states of the line on a terminal


class Progress:
    """One job: `show` says how much of it is done."""

    def __init__(self, what: str, total: int | None = None, done: int = 0) -> None:
        """what: the words before the numbers.  done: what an earlier call has done, from which no time is reckoned."""
        self.what, self.total = what, total
        self._silent = multiprocessing.parent_process() is not None or sys.stderr is None
        self._watched = not self._silent and sys.stderr.isatty()
        self._began, self._first = time.monotonic(), done
        self._shown = self._began if not self._watched else -1.0
        self._waiting: tuple[int, str] | None = None

    def show(self, done: int, more: str = "") -> None:
        """`done` of the total, and what else is to be said on a terminal; most calls return at once."""
        now = time.monotonic()
        if self._silent:
            return
        self._waiting = (done, more)
        if now - self._shown >= (WATCHED_S if self._watched else LOG_S):
            self._shown = now
            self._print(now)

    def close(self) -> None:
        """Show on a terminal what was too soon, and end the line."""
        if self._watched and self._shown >= 0:
            self._print(time.monotonic())
            print(file=sys.stderr)
        self._shown = -1.0

    def _print(self, now: float) -> None:
        if self._waiting is None:
            return
        (done, more), self._waiting = self._waiting, None
        told = f"{self.what} {done}" + ("" if self.total is None else f" of {self.total}{self._left(now, done)}")
        if self._watched:
            line = f"{told}  {more}" if more else told
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
        else:
            print(told, file=sys.stderr, flush=True)

    def _left(self, now: float, done: int) -> str:
        if self.total is None or done <= self._first or done >= self.total:
            return ""
        seconds = (now - self._began) * (self.total - done) / (done - self._first)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"


def tracked(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """`items`, with their progress shown as they are taken."""
    progress = Progress(what, total)
    try:
        for number, item in enumerate(items):
            progress.show(number)
            yield item
        progress.show(total)
    finally:
        progress.close()


def counted(count: int, noun: str) -> str:
    """A number of things in words: `1 pair`, `2 pairs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def already_done(began: float, *folders: Path) -> str:
    """`, already done`, for a command's last line, where all of `folders` were finished before `began` (time.time())."""
    return ", already done" if all((folder / MANIFEST).stat().st_mtime < began for folder in folders) else ""


def tell_end(out: Path, began: float, made: str, *then: str, folders: Iterable[Path] = ()) -> None:
    """Print a command's last line: what is in `out`, whether it was there before `began` (time.time()), and what comes next.

    then: the words of a command.  folders: whose manifests say when it was made; without them that of `out`.
    """
    before = already_done(began, *(folders or [out]))
    print(f"{out}: {made}{before}{f'; next: {shlex.join(then)}' if then else ''}", flush=True)
