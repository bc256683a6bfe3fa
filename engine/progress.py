"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

PLAIN_LINE_SECONDS = 30.0


class Progress:
    """Counts ``total`` units of work; ``update`` takes a text, or a function that makes one only when it is shown."""

    def __init__(self, total: int, *, title: str, initial: int = 0, unit: str = "batch") -> None:
        self.title, self.total, self.done = title, total, initial
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=initial, desc=title, unit=unit, dynamic_ncols=True, leave=False)
        self._last = time.monotonic()

    def update(self, text: str | Callable[[], str] = "", *, count: int = 1) -> None:
        """Count ``count`` more units and show the text where it is time to."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            if text:
                self._bar.set_postfix_str(text() if callable(text) else text, refresh=False)
        elif time.monotonic() - self._last >= PLAIN_LINE_SECONDS:
            self._last = time.monotonic()
            print(f"{self.title} {self.done}/{self.total} {text() if callable(text) else text}", flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
