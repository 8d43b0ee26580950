"""Sides that take turns: each in processes of its own, as a user would start it, with every number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

Steps = Callable[[int], object]
"""Act and learn for so many steps, whatever a side counts."""
Make = Callable[[], Steps]
"""Called in the side's own process."""
_steps: Steps


def measure(
    group: Mapping[str, Make],
    threads: Sequence[int],
    rounds: int,
    seconds: float,
    twice: Sequence[str] = (),
) -> dict[str, dict[int, float]]:
    """{side: {threads: steps a second}}, medians of `rounds` turns of so many seconds; nobody pays for first calls.

    twice: sides that run in two processes at once, with one thread each; their rate is the sum of both.
    """
    rates: dict[str, dict[int, float]] = {name: {} for name in group}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(processes(2 if name in twice else 1, begin, make)) for name, make in group.items()}
        for count in threads:
            running = {name: call for name, call in sides.items() if count == 1 or name not in twice}
            turns = [{name: sum(call(turn, count, seconds)) for name, call in running.items()} for _ in range(1 + rounds)]
            for name in running:
                rates[name][count] = float(np.median([one[name] for one in turns[1:]]))
    return rates


@contextmanager
def processes(count: int, initializer: Callable[..., object] | None = None, *initargs: Any) -> Iterator[Callable[..., list[Any]]]:
    """Calls a function with its arguments in `count` new processes at once; gives what each returned."""
    with ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), initializer=initializer, initargs=initargs))
            for _ in range(count)
        ]

        def call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
            waiting = [pool.submit(function, *arguments) for pool in pools]
            return [result.result() for result in waiting]

        yield call


def begin(make: Make) -> None:
    """Make the side of this process."""
    global _steps
    _steps = make()


def turn(threads: int, seconds: float) -> float:
    """Steps a second of the side of this process."""
    torch.set_num_threads(threads)
    started, done, count = time.perf_counter(), 0, 1
    while done == 0 or time.perf_counter() - started < seconds:
        _steps(count)
        done += count
        count = min(2 * count, 50)  # few calls, of which some peers' are expensive
    return done / (time.perf_counter() - started)
