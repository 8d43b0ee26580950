"""Processes that draw clips, or read videos, while the one that started them imports torch, encodes and scores.

Between the choice of pairs (preference/pairs.py) and scores chunk by chunk (preference/scoring.py).  Nothing here imports torch,
so that workers draw before their parent has it.  Pictures come in order, and no more chunks of them wait than there are workers.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.parallel import deaf_children, die_with
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.envs import MetaWorldEnv, make_env
from robopref.embodied.gl import has_drawn
from robopref.preference.scoring import Clips, Draw, View, open_clips


@dataclass(frozen=True)
class Look:
    """A `View` that travels between processes."""

    camera: str
    frame_size: int
    frames: int


class Drawers:
    """Draws clips in `processes` workers, which start at once; with one process it draws in its own."""

    def __init__(self, store: EpisodeStore | None, clips: Clips, processes: int) -> None:
        self._store, self._clips, self._processes = store, clips, processes
        self._pool: ProcessPoolExecutor | None = None
        self._workers: list[BaseProcess] = []

    def __enter__(self) -> Self:
        if self._processes > 1:
            path = None if self._store is None else self._store.path
            fresh = can_fork()
            if fresh and self._store is not None:
                import metaworld.env_dict  # noqa: F401, 1 s, once for all workers
            context = get_context("fork" if fresh else "spawn")
            self._pool = ProcessPoolExecutor(
                self._processes, context, initializer=_begin, initargs=(os.getpid(), path, self._clips)
            )
            others = active_children()
            try:
                with deaf_children():
                    for _ in range(self._processes):
                        self._pool.submit(os.getpid)  # a worker is started by the first job that finds all others busy
            except BaseException:  # an interrupt; they would first import all that they need
                self._workers = [child for child in active_children() if child not in others]
                self._end(now=True)
                raise
            self._workers = [child for child in active_children() if child not in others]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._end(now=kind is not None)  # nobody waits any more for what they draw, which may take long

    def _end(self, *, now: bool) -> None:
        assert self._pool is not None
        if now:
            self._kill()
        try:
            self._pool.shutdown(cancel_futures=True)
        except BaseException:  # Python 3.11 takes a thread whose join is interrupted for ended, and then tells no worker to go
            self._kill()
            raise

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def draw(self, view: View, chunks: Sequence[Sequence[int]]) -> Generator[np.ndarray]:
        """Chunks of clip numbers -> their pictures (n, 1 + T, H, W, 3) uint8, one chunk after the other."""
        if self._pool is None:
            with open_clips(self._store, self._clips, view) as draw:
                for numbers in chunks:
                    yield draw(numbers)
            return
        look = Look(view.camera, view.frame_size, view.frames)
        drawn: deque[Future[np.ndarray]] = deque()
        try:
            for numbers in chunks:
                drawn.append(self._pool.submit(_draw, look, numbers))
                if len(drawn) > self._processes:
                    yield drawn.popleft().result()
            while drawn:
                yield drawn.popleft().result()
        except BrokenProcessPool as error:
            raise RoboprefError(
                f"A process that draws has died ({error}); if memory was short, set --processes 1 or a smaller --chunk."
            ) from error


def can_fork() -> bool:
    """Whether workers may share this process's imports: nothing of it has torch, has drawn or runs in another Python thread.

    A fork has the locks of all threads but only one of them; so it is with a command that has just begun.
    """
    return sys.platform == "linux" and "torch" not in sys.modules and threading.active_count() == 1 and not has_drawn()


class _Worker:
    """What a worker keeps: the environment, and a renderer of the view that was asked for last."""

    def __init__(self, path: Path | None, clips: Clips) -> None:
        self.store = None if path is None else EpisodeStore(path)
        self.clips = clips
        self.env: MetaWorldEnv | None = None if self.store is None else make_env(self.store.env_id)
        self.open = ExitStack()
        self.draw: Draw | None = None
        self.look: Look | None = None

    def __call__(self, look: Look, numbers: Sequence[int]) -> np.ndarray:
        if self.draw is None or self.look != look:
            self.open.close()
            self.draw, self.look = self.open.enter_context(open_clips(self.store, self.clips, look, self.env)), look
        return self.draw(numbers)


_worker: _Worker


def _begin(parent: int, path: Path | None, clips: Clips) -> None:
    global _worker
    die_with(parent)
    _worker = _Worker(path, clips)


def _draw(look: Look, numbers: Sequence[int]) -> np.ndarray:
    return _worker(look, numbers)
