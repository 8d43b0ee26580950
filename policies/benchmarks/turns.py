"""Sides that take turns: each in a process of its own, as a user would start it, with every number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

import numpy as np
import torch

Steps = Callable[[int], object]
"""Act and learn for so many steps, whatever a side counts."""
Make = Callable[[], Steps]
"""Called in the side's own process."""
_steps: Steps


def measure(group: Mapping[str, Make], threads: Sequence[int], rounds: int, seconds: float) -> dict[str, dict[int, float]]:
    """{side: {threads: steps a second}}, medians of `rounds` turns of so many seconds; nobody pays for first calls."""
    rates: dict[str, dict[int, float]] = {name: {} for name in group}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), initializer=begin, initargs=(make,)))
            for name, make in group.items()
        }
        for count in threads:
            turns = [
                {name: process.submit(turn, count, seconds).result() for name, process in processes.items()}
                for _ in range(1 + rounds)
            ]
            for name in group:
                rates[name][count] = float(np.median([one[name] for one in turns[1:]]))
    return rates


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
