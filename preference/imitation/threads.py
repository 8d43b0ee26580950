"""Threads for many small matrix products, one to each core instead of all cores to each product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from robopref.configs.errors import RoboprefError

T = TypeVar("T")
S = TypeVar("S")


def in_threads(function: Callable[[S], T], jobs: Iterable[S], workers: int) -> Iterator[T]:
    """`function(job)` of every job, in their order; until the last is out, numpy's products run on the thread that asks for them.

    Without that limit OpenBLAS wakes its own threads for every product; two callers beside each other were 30 to 70 times slower.
    """
    # comes with scikit-learn
    from threadpoolctl import threadpool_limits

    if workers < 1:
        raise RoboprefError(f"workers={workers}: at least one thread has to do the work")
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(function, jobs)
        finally:  # after Ctrl-C only what has begun is waited for
            pool.shutdown(cancel_futures=True)
