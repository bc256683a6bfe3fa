"""Jobs of the GPU day: groups that end with all they started, deadlines, missing programs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu_day.processes import FAILED, PASSED, STOPPED, Job, lacks, run_together

# Starts one child in its process group and one in a new session, as compare.py does, then waits or exits.
PARENT = """
import subprocess, sys, time
for session in (False, True):
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=session)
    print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def job(name: str, code: str, *more: str) -> Job:
    return Job(name=name, command=(sys.executable, "-S", "-c", code, *more))


def exists(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run(tmp_path: Path, *jobs: Job, seconds: float) -> tuple[list[str], list[str]]:
    """Statuses and outputs."""
    logs = [tmp_path / f"{each.name}.txt" for each in jobs]
    outcomes = run_together(jobs, logs, seconds=seconds, environment=os.environ)
    return [each.status for each in outcomes], [log.read_text() for log in logs]


@pytest.mark.slow
def test_nothing_survives_a_deadline_or_an_end(tmp_path: Path) -> None:
    start = time.monotonic()
    jobs = (job("waits", PARENT, "60"), job("ends", PARENT, "0"))
    statuses, outputs = run(tmp_path, *jobs, seconds=1.5)
    assert statuses == [STOPPED, PASSED] and time.monotonic() - start < 10
    pids = [int(word) for output in outputs for word in output.split()]
    assert len(pids) == 4 and not any(map(exists, pids))


def test_other_processes_are_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as bystander:
        run(tmp_path, job("waits", PARENT, "60"), seconds=0.3)
        assert bystander.poll() is None
        bystander.kill()


def test_a_failure_has_its_exit_code_and_does_not_stop_others(tmp_path: Path) -> None:
    jobs = (job("fails", "import sys; print('why'); sys.exit(3)"), job("passes", "print('fine')"))
    logs = [tmp_path / "0", tmp_path / "1"]
    outcomes = run_together(jobs, logs, seconds=30, environment=os.environ)
    assert [(each.status, each.reason) for each in outcomes] == [(FAILED, "exit code 3"), (PASSED, "")]
    assert [log.read_text() for log in logs] == ["why\n", "fine\n"]


@pytest.mark.slow
def test_output_before_a_deadline_is_kept(tmp_path: Path) -> None:
    statuses, outputs = run(
        tmp_path, job("says", "import time; print('so far', flush=True); time.sleep(60)"), seconds=1
    )
    assert (statuses, outputs) == ([STOPPED], ["so far\n"])


def test_a_missing_program_is_named() -> None:
    assert lacks(Job(name="x", command=("x",), needs=("no-such-program", "nor-this"))) == "no-such-program or nor-this"
    assert lacks(Job(name="x", command=("x",), needs=("no-such-program", "sh"))) == ""
