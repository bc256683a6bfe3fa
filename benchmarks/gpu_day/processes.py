"""Jobs of a stage as processes: each in a separate process group, killed with everything that it started."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "GPU_DAY_JOB"  # environment variable that every process of a job inherits
PASSED, FAILED, STOPPED, ABSENT, SKIPPED = "passed", "failed", "stopped", "not there", "skipped"
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command of a stage."""

    name: str
    command: tuple[str, ...]
    weight: float = 1.0  # share of a stage whose jobs run one after the other
    needs: tuple[str, ...] = ()  # programs, of which one must be installed
    after: tuple[str, ...] = ()  # jobs of earlier stages without which this one is useless
    environment: Mapping[str, str] | None = None
    digest: str = "last"  # how benchmarks/gpu_day/digest.py condenses it


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    status: str
    seconds: float = 0.0
    reason: str = ""


def lacks(job: Job) -> str:
    """The programs of which a job needs one, if none is installed; else an empty string."""
    return "" if not job.needs or any(map(shutil.which, job.needs)) else " or ".join(job.needs)


def run_together(
    jobs: Sequence[Job], logs: Sequence[Path], *, seconds: float, environment: Mapping[str, str]
) -> list[Outcome]:
    """Run jobs side by side, their output in these files, for at most so many seconds; nothing of them survives."""
    start = time.monotonic()
    processes: list[subprocess.Popen[bytes]] = []
    outcomes: list[Outcome | None] = [None] * len(jobs)
    mark = uuid.uuid4().hex
    try:
        for number, (job, log) in enumerate(zip(jobs, logs, strict=True)):
            marked = {**environment, **(job.environment or {}), MARK: f"{mark}-{number}"}
            processes.append(_launch(job, log, marked))
        while None in outcomes:
            late = time.monotonic() - start >= seconds
            for number, process in enumerate(processes):
                if outcomes[number] is not None or (process.poll() is None and not late):
                    continue
                code = process.poll()
                end(process, f"{mark}-{number}")
                taken = time.monotonic() - start
                status = STOPPED if code is None else FAILED if code else PASSED
                reason = "at its deadline" if code is None else f"exit code {code}" if code else ""
                outcomes[number] = Outcome(status=status, seconds=taken, reason=reason)
            time.sleep(POLL_SECONDS)
    finally:
        for number, process in enumerate(processes):
            end(process, f"{mark}-{number}")
    return [outcome for outcome in outcomes if outcome is not None]


def _launch(job: Job, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = list(job.command)
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=ROOT,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill what is left of a job: its group, and processes that have left the group but carry its mark."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while alive := list(_marked(mark)):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _marked(mark: str) -> Iterator[int]:
    """Processes with this mark in their environment (Linux only; none elsewhere)."""
    wanted = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)
