"""How busy the rest of the machine is beside a training: what makes a measured time worthless as evidence."""

import time

import psutil


class OtherProcesses:
    """Processor time that the rest of the machine takes: all of it less that of this process and its data workers."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._last = self._now()

    def cores(self) -> float:
        """Mean number of cores that other processes kept busy since the call before (or since this object was made)."""
        last, self._last = self._last, self._now()
        seconds, busy, own = (now - before for now, before in zip(self._last, last, strict=True))
        return max(0.0, (busy - own) / seconds) if seconds > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Wall clock, busy time of all cores, and time of this process with its children, ended ones too; seconds."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)  # guest is part of user
        own = 0.0
        for process in (self._own, *self._own.children(recursive=True)):
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            own += spent.user + spent.system + spent.children_user + spent.children_system
        return time.monotonic(), sum(times) - idle - getattr(times, "guest_nice", 0.0), own
