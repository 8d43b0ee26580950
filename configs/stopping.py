"""When a training loop saves: every so many steps, every few minutes, and when someone stops it.

    with Stopping(config.checkpoint_every) as stopping:
        for step in range(first + 1, last + 1):
            ...
            if stopping.due(step) and step < last:
                save(checkpoint)
                stopping.leave(f"step {step} of {last}", checkpoint)

Ctrl-C and SIGTERM (a job scheduler, `kill`, `timeout`) wait for the end of the step, because half a step cannot be resumed.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

MINUTES = 3.0  # of work that a power cut may cost


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled as Ctrl-C is, so that files written aside and workers go."""


class Stopping:
    """Says when to save and ends the loop after Ctrl-C or SIGTERM; a second one ends it at once.

    every: steps between checkpoints.  signals: False where other processes wait for this one's next step; then, and outside
    the main thread, where signals cannot be handled, only steps and minutes count.
    """

    def __init__(self, every: int, signals: bool = True) -> None:
        self.every = every
        self.signals = signals and threading.current_thread() is threading.main_thread()
        self._saved = time.monotonic()
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def due(self, step: int) -> bool:
        """Whether to save now; True when the step is a multiple of `every`, minutes have passed, or someone stops the run."""
        now = time.monotonic()
        if not (self._signal is not None or step % self.every == 0 or now - self._saved > 60 * MINUTES):
            return False
        self._saved = now
        return True

    def leave(self, done: str, checkpoint: Path) -> None:
        """Raise KeyboardInterrupt if someone has stopped the run, saying how much of it is kept where."""
        if self._signal is not None:
            kind = Terminated if self._signal is signal.SIGTERM else KeyboardInterrupt
            raise kind(f"{done} is kept in {checkpoint}, and the same command continues")

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM) if self.signals else ():
            if signal.getsignal(number) is not signal.SIG_IGN:  # as Ctrl-C is for what a shell has put in the background
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self._signal = signal.Signals(number)
        print("stopping after this step (once more: at once)", file=sys.stderr, flush=True)
