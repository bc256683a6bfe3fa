"""How many CPU cores this process may use."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Number of CPU cores that this process may use: by its affinity and, in a container, by its share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else min(cores, max(1, int(quota)))


def cpu_quota() -> float | None:
    """Number of CPUs whose time a container may use, by version 2 or 1 of control groups; None without a limit."""
    for words in (_words("cpu.max"), _words("cpu/cpu.cfs_quota_us") + _words("cpu/cpu.cfs_period_us")):
        if len(words) == 2 and all(map(str.isdigit, words)) and int(words[1]):
            return int(words[0]) / int(words[1])
    return None


def _words(name: str) -> tuple[str, ...]:
    try:
        return tuple((CGROUP / name).read_text(encoding="utf-8").split())
    except OSError:
        return ()
