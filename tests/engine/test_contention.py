"""The rest of the machine as a training sees it."""

import os
import subprocess
import sys
import time

import pytest

from engine.contention import OtherProcesses

BURN = "import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"


def spent() -> float:
    """Processor seconds of this process and of its ended children, as the system's own call says."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.mark.slow
def test_own_work_and_that_of_children_is_told_from_the_rest() -> None:
    others, before = OtherProcesses(), spent()
    first = others._now()
    worker = subprocess.Popen([sys.executable, "-c", BURN.format(seconds=1)])
    time.sleep(0.7)
    living, without_worker = others._now()[2] - first[2], spent() - before
    assert living > without_worker + 0.1  # a living child counts
    worker.wait()
    last = others._now()
    assert abs((last[2] - first[2]) - (spent() - before)) < 0.05  # and an ended one as the system says
    assert last[1] - first[1] >= last[2] - first[2] - 0.1  # the machine's time holds ours


@pytest.mark.slow
def test_another_process_is_counted() -> None:
    # No child of this one: its parent ends at once.
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN.format(seconds=1.5)!r}])"
    subprocess.run([sys.executable, "-c", orphan], check=True)
    others = OtherProcesses()
    time.sleep(1)
    assert others.cores() > 0.25
