"""Independent jobs on several processes of this machine, which end with the command that started them however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from .progress import tracked

T = TypeVar("T")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, malloc.h
KEPT = 2**30  # bytes
LARGEST = 2**25  # bytes of an array that is kept; the most that every glibc takes


def in_processes(function: Callable[..., T], jobs: Iterable[tuple[Any, ...]], processes: int, what: str = "") -> Iterator[T]:
    """`function(*job)` of every job, results in the order of the jobs, as they come; with processes=1 in this process.

    what: the word before how many are done, where that is shown; without it the jobs show their own progress.
    Workers are gone when the last result is out: they would keep torch and simulators in memory through later stages.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    waiting = list(jobs)
    workers = min(processes, len(waiting))
    if workers < 2:
        done = (function(*job) for job in waiting)
        yield from tracked(done, what, len(waiting)) if what and len(waiting) > 1 else done
        return
    parallel = Parallel(
        n_jobs=workers,
        backend="loky",
        return_as="generator",
        batch_size=1,  # jobs are seconds long and of unequal length
        initializer=die_with,
        initargs=(os.getpid(),),
    )
    found: Generator[T] | None = None
    try:
        with deaf_children():
            found = parallel(delayed(function)(*job) for job in waiting)
        assert found is not None
        yield from tracked(found, what, len(waiting)) if what else found
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that jobs are given up, as they should be
            if found is not None:
                found.close()
        get_reusable_executor(kill_workers=True).shutdown(wait=True, kill_workers=True)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, although a terminal sends it to all of a command's.

    They would print tracebacks, also from within their imports, beside the one line of the command, which ends them anyway.
    """
    resource_tracker.ensure_running()  # whose own start unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited, even by another program
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # one that came meanwhile arrives now


def die_with(parent: int) -> None:
    """End this process soon after its parent has died: a killed command must not leave hours of training behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 1 GiB, for its next arrays; only with glibc, elsewhere nothing changes.

    glibc gives the end of its heap back to the system again and again, which then hands it out anew page by page, zeroed: of an
    update of networks with activations of 1 MB that was a tenth to a quarter of the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGEST):
        mallopt(M_TRIM_THRESHOLD, KEPT)
