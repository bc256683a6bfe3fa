"""CPU load of other processes during a training, which makes its measured times meaningless."""

import os
import time
from collections.abc import Iterable

import psutil


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
