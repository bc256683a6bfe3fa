"""Progress of long work: a bar on a terminal or in a notebook, occasional plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from core.cores import usable_cores

T = TypeVar("T")
LOG_FILE_INTERVAL = 15.0  # seconds between two updates of a bar in a log file
PLAIN_LINE_SECONDS = 30.0
MAX_THREADS = 16


class Progress:
    """Counts ``total`` units of work; ``update`` takes a text, or a function called only when it is shown."""

    def __init__(self, total: int, *, title: str, initial: int = 0, unit: str = "batch") -> None:
        self.title, self.total, self.done = title, total, initial
        self._bar = None
        if shows_bars():
            self._bar = tqdm(total=total, initial=initial, desc=title, unit=unit, dynamic_ncols=True, leave=False)
        self._last = time.monotonic()

    def update(self, text: str | Callable[[], str] = "", *, count: int = 1) -> None:
        """Count ``count`` more units and show the text if due."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            if text:
                self._bar.set_postfix_str(text() if callable(text) else text, refresh=False)
        elif time.monotonic() - self._last >= PLAIN_LINE_SECONDS:
            self._last = time.monotonic()
            print(f"{self.title} {self.done}/{self.total} {text() if callable(text) else text}", flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()


def write_line(text: str) -> None:
    """Print a line to stdout, above the bars on a terminal."""
    tqdm.write(text)
    sys.stdout.flush()


def progress_bar(
    items: Iterable[T], title: str, *, total: int | None = None, unit: str = "image", show: bool = True
) -> tqdm[T]:
    """A progress bar over ``items`` that prints rarely if stderr is a log file."""
    interval = 0.1 if shows_bars() else LOG_FILE_INTERVAL
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


def shows_bars() -> bool:
    """Whether stderr shows a line that is written over: a terminal, or the output of a notebook's cell."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel.")


def map_in_threads(
    function: Callable[[int], T], count: int, title: str, *, show: bool = True, chunk: int = 1
) -> Iterator[T]:
    """Yield function(0), ..., function(count - 1) in this order, computed in threads; an exception cancels the rest.

    `chunk`: calls that a thread makes before it takes the next ones; more for functions that take microseconds.
    """
    pool = ThreadPoolExecutor(min(usable_cores(), MAX_THREADS))

    def calls(first: int) -> list[T]:
        return [function(index) for index in range(first, min(first + chunk, count))]

    try:
        results = chain.from_iterable(pool.map(calls, range(0, count, chunk)))
        yield from progress_bar(results, title, total=count, show=show)
    finally:
        pool.shutdown(cancel_futures=True)
