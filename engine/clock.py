"""Time spent in a training: device time of the steps, measured without slowing them; the other spans by wall clock."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.distributed import all_sum, largest, take_blocked, world
from core.limits import WARMUP_STEPS
from core.types import StateDict

SPANS = ("data", "validation", "saving")
Mark = float | torch.cuda.Event  # a moment: wall clock in seconds, or an event in the stream of a GPU


class Clock:
    """Times of an epoch and of the whole run, in seconds.

    The time of a step is device time: on a GPU two events per step are recorded in the stream and read once per epoch;
    on a CPU it is the wall clock. The first steps of a process are counted separately as warm-up. Of several processes
    that train together, the time of a step is that of the slowest, and `waiting` what a process waited on average, once
    its own gradients were ready, for their sum (on a CPU also in other collectives).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.total: dict[str, float] = {}
        self.steps_done = 0  # of this process
        self._pending: list[tuple[bool, Mark, Mark]] = []
        self._ready: Mark | None = None  # when the last gradients of the current step could be summed
        self._waits: list[tuple[Mark, Mark]] = []
        self._blocked = 0.0  # seconds of the pending steps, in collectives that block
        self._epoch: dict[str, float] = {}
        self.step_seconds: list[float] = []  # of the current epoch

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one training step; the time is known after ``close_epoch``."""
        take_blocked()  # between steps
        start = self._mark()
        yield
        self._blocked += take_blocked()
        self._pending.append((self.steps_done < WARMUP_STEPS, start, self._mark()))
        self.steps_done += 1

    @property
    def last_step(self) -> float | None:
        """Seconds of the newest step on a CPU; None in the warm-up and on a GPU, where it would have to be waited for.

        It is that of this process.
        """
        if self.device.type != "cpu" or not self._pending or self._pending[-1][0]:
            return None
        return _seconds(*self._pending[-1][1:])

    def mark_ready(self) -> None:
        """Gradients are ready to be summed over the processes."""
        self._ready = self._mark()

    def mark_summed(self) -> None:
        """The backward pass has ended, and with it the sums over the processes."""
        if self._ready is not None:
            self._waits.append((self._ready, self._mark()))
            self._ready = None

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Add the wall-clock time of the block to ``name``, one of SPANS."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a span of the current epoch."""
        self._epoch[name] = self._epoch.get(name, 0.0) + seconds

    def close_epoch(self) -> dict[str, float]:
        """Read the events, add the epoch to the totals, and return it: train, warmup, the SPANS, step (median).

        Also "contended", if the run has added it: the seconds of the steps that other processes slowed.
        """
        self.settle()
        epoch = {name: self._epoch.get(name, 0.0) for name in ("train", "warmup", *SPANS)}
        for name, seconds in epoch.items():
            self.total[name] = self.total.get(name, 0.0) + seconds
        epoch["step"] = statistics.median(self.step_seconds) if self.step_seconds else float("nan")
        epoch["contended"] = self._epoch.get("contended", 0.0)
        if world() > 1:
            epoch["waiting"] = float(all_sum(torch.tensor(self._epoch.get("waiting", 0.0)))) / world()
        self._epoch, self.step_seconds = {}, []
        return epoch

    def settle(self) -> None:
        """Add the seconds of the steps so far to the current epoch; waits for a GPU to finish them.

        All processes do so before one of them writes a checkpoint.
        """
        if self.device.type == "cuda" and self._pending:
            torch.cuda.synchronize(self.device)
        times = largest([_seconds(start, end) for _, start, end in self._pending])
        for (warming, *_), seconds in zip(self._pending, times, strict=True):
            self.add("warmup" if warming else "train", seconds)
            if not warming:
                self.step_seconds.append(seconds)
        if world() > 1:
            self.add("waiting", sum(_seconds(start, end) for start, end in self._waits) + self._blocked)
        self._pending, self._waits, self._blocked = [], [], 0.0

    def _mark(self) -> Mark:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def state_dict(self) -> StateDict:
        """Return the totals and the current epoch, which a resumed run continues."""
        self.settle()
        return {"total": dict(self.total), "epoch": dict(self._epoch), "steps": list(self.step_seconds)}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the times of a ``state_dict``."""
        self.total = {name: float(seconds) for name, seconds in state["total"].items()}
        self._epoch = {name: float(seconds) for name, seconds in state["epoch"].items()}
        self.step_seconds = [float(seconds) for seconds in state["steps"]]


def _seconds(start: Mark, end: Mark) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return start.elapsed_time(end) / 1000
    assert isinstance(start, float) and isinstance(end, float)
    return end - start
