"""The peak of a command's memory, its worker processes included."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil


class PeakMemory:
    """While it is open, watches this process and its children twice a second: `mb`, the highest sum of their shares.

    A share (PSS) counts a page that n processes share as 1/n; where the system does not tell it, whole pages (RSS) are counted.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.mb = 0.0
        self._every, self._stop = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._look()

    def _look(self) -> None:
        me = psutil.Process()
        self.mb = max(self.mb, sum(_share(process) for process in (me, *me.children(recursive=True))) / 2**20)


def _share(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.rss))
    except psutil.Error:
        return 0  # it has ended, or is not ours to look at
