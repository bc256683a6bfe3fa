"""CPU load of other processes during a training, which makes its measured times meaningless."""

import time

import psutil


class OtherProcesses:
    """CPU time of all processes except this one and its data workers."""

    def __init__(self) -> None:
        self._process = psutil.Process()
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
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            ours += spent.user + spent.system + spent.children_user + spent.children_system
        return time.monotonic(), sum(times) - idle - getattr(times, "guest_nice", 0.0), ours
