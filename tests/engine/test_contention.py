"""The rest of the machine as a training sees it."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from engine import contention
from engine.contention import OtherProcesses, SlowSteps

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


class Machine:
    """A machine on which other processes use some cores and steps take some seconds, by its own clock."""

    def __init__(self, patch: pytest.MonkeyPatch, *, threads: int = 2, usual: tuple[float, ...] = ()) -> None:
        self.now, self.load, self.lines = 0.0, 0.0, []
        patch.setattr(contention.time, "monotonic", lambda: self.now)
        patch.setattr(contention.torch, "get_num_threads", lambda: threads)
        self.watch = SlowSteps(SimpleNamespace(cores=lambda: self.load), usual)
        self.slowed = 0.0

    def run(self, *, seconds: float, step: float, load: float) -> list[str]:
        """The lines that are printed while it trains for these seconds."""
        self.load, end, lines = load, self.now + seconds, []
        while self.now < end:
            self.now += step
            slowed, line = self.watch.add(step)
            self.slowed += slowed
            lines.append(line)
        return [line for line in lines if line is not None]


def test_slowed_steps_are_reported_while_they_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    assert machine.run(seconds=60, step=0.2, load=0.05) == []
    (line,) = machine.run(seconds=60, step=1.5, load=1.04)
    assert "other processes use 1.0 of" in line and "1.5 s instead of 0.2 s" in line and "--threads 1" in line
    assert machine.slowed == pytest.approx(60, abs=6)  # from the first window to the end
    assert machine.run(seconds=500, step=1.5, load=1.0) == []  # not again within ten minutes
    assert len(machine.run(seconds=120, step=1.5, load=1.0)) == 1


def test_slow_steps_on_an_idle_machine_and_load_without_harm_are_no_contention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    machine.run(seconds=60, step=0.2, load=0.0)
    assert machine.run(seconds=30, step=2.0, load=0.1) == []  # larger images, say
    assert machine.run(seconds=60, step=0.3, load=1.0) == []
    assert machine.slowed == 0.0


def test_one_hiccup_is_no_contention(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.run(seconds=60, step=0.2, load=0.0)
    assert machine.run(seconds=4, step=4.0, load=1.0) + machine.run(seconds=10, step=0.2, load=1.0) == []


def test_a_resumed_run_knows_its_usual_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is busy from the start; the epochs before the resume say how fast it was."""
    assert Machine(monkeypatch).run(seconds=60, step=2.0, load=1.0) == []
    assert len(Machine(monkeypatch, usual=(0.2, 0.21)).run(seconds=60, step=2.0, load=1.0)) == 1


def test_a_single_thread_is_not_told_to_use_a_single_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, threads=1, usual=(0.2,))
    (line,) = machine.run(seconds=60, step=1.0, load=3.0)
    assert "--threads" not in line
