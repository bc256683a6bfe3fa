"""Long work over many files: shown while it runs, in threads where it decodes, and stopped at once by Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
QUIET_INTERVAL = 15.0  # seconds between two lines of a bar that goes to a log file
MOST_THREADS = 16


def shown(
    items: Iterable[T] | None, title: str, *, total: int | None = None, unit: str = "image", show: bool = True
) -> Any:
    """A progress bar over items; in a log file instead of a terminal it prints seldom."""
    interval = 0.1 if sys.stderr.isatty() else QUIET_INTERVAL
    return tqdm(
        items,
        title,
        total,
        leave=False,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=interval,
        maxinterval=60,
        disable=not show,
    )


def decoding_threads() -> int:
    """Threads worth having for decoding: one for each core this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


def in_threads(function: Callable[[int], T], count: int, title: str, *, show: bool = True) -> Iterator[T]:
    """function(0), ..., function(count - 1) in this order, computed by threads; an exception cancels what is left."""
    pool = ThreadPoolExecutor(decoding_threads())
    try:
        yield from shown(pool.map(function, range(count)), title, total=count, show=show)
    finally:
        pool.shutdown(cancel_futures=True)
