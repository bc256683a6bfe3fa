"""CPU load of other processes during a training: it makes measured times meaningless, and several threads very slow.

At the end of each of its parallel parts a step waits for the slowest thread. If another process has taken the core of
one thread, all of them wait for it.
"""

import os
import statistics
import time
from collections import deque
from collections.abc import Iterable

import psutil
import torch

from core.cores import usable_cores

WINDOW_SECONDS = 5.0  # in which steps and load are compared, at least
WINDOW_STEPS = 3
SLOW = 3.0  # times the usual duration of a step
BUSY_CORES = 0.25  # taken by other processes
QUIET_SECONDS = 600.0  # between two messages


class OtherProcesses:
    """CPU time of all processes except this one, those that train with it (`together`: their ids), and data workers."""

    def __init__(self, together: Iterable[int] = ()) -> None:
        self._own = [psutil.Process(number) for number in {os.getpid(), *together}]
        self._last = self._now()

    def cores(self) -> float:
        """Mean number of cores kept busy by other processes since the previous call (or since creation)."""
        last, self._last = self._last, self._now()
        seconds, busy, ours = (now - before for now, before in zip(self._last, last, strict=True))
        return max(0.0, (busy - ours) / seconds) if seconds > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Wall clock, busy time of all cores, and CPU time of this process and its children, in seconds."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)  # guest is part of user
        ours = 0.0
        for process in (each for own in self._own for each in (own, *_children(own))):
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            ours += spent.user + spent.system + spent.children_user + spent.children_system
        return time.monotonic(), sum(times) - idle - getattr(times, "guest_nice", 0.0), ours


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:  # one that trained with this one
        return []


class SlowSteps:
    """Notices while it happens that other processes slow the steps of a training on a CPU."""

    def __init__(self, others: OtherProcesses, usual: Iterable[float] = ()) -> None:
        """`usual`: seconds of a step in earlier epochs."""
        self._others = others
        self._usual = deque(usual, maxlen=100)
        self._steps: list[float] = []
        self._since = time.monotonic()
        self._told: float | None = None

    def add(self, seconds: float) -> tuple[float, str | None]:
        """Add the duration of a step; returns the seconds of the latest steps if they were slowed, else 0, and a line
        that says so, at most once in QUIET_SECONDS."""
        now = time.monotonic()
        self._steps.append(seconds)
        if len(self._steps) < WINDOW_STEPS or now - self._since < WINDOW_SECONDS:
            return 0.0, None
        steps, self._steps, self._since = self._steps, [], now
        median, cores = statistics.median(steps), self._others.cores()
        usual = statistics.median(self._usual) if self._usual else median
        if median <= SLOW * usual or cores < BUSY_CORES:
            self._usual.append(median)
            return 0.0, None
        if self._told is not None and now - self._told < QUIET_SECONDS:
            return sum(steps), None
        self._told = now
        return sum(steps), _advice(cores, median, usual)


def _advice(cores: float, now: float, usual: float) -> str:
    """What other processes do to the steps, in seconds, and what helps."""
    load = f"other processes use {cores:.1f} of {usable_cores()} cores"
    text = f"{load}, and a step takes {now:.3g} s instead of {usual:.3g} s"
    if torch.get_num_threads() == 1:
        return text
    return (
        f"{text}, since each thread waits for the slowest; beside them one thread is faster: press Ctrl-C and add "
        "--threads 1 to the command that resumes (the result then differs in rounding)"
    )
