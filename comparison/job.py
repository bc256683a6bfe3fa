"""One run of a comparison as a process of train.py: its folder and commands, its signs of life, and how it ended."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comparison.plan import Plan, PlannedRun
from comparison.runs import FAILURE, earlier_failures, read_rows, read_run
from core.files import MIN_FREE, is_locked, write_text
from core.text import format_duration, printable

ROOT = Path(__file__).resolve().parents[1]
TRAINER = (sys.executable, str(ROOT / "train.py"))
LOGS = "logs"
POLL_SECONDS = 0.3
USAGE_ERROR = 2  # exit code of a script for wrong input
MAX_REASON = 500  # characters
GRACE_SECONDS = 600.0  # for a stopped run to finish its step and save, before SIGKILL
DISK_FULL = "No space left on device"
# A run without a sign of life is reported after the first of these times and ended after the second.
QUIET_SECONDS, STALLED_SECONDS = 300.0, 1800.0
QUIET_EPOCHS, STALLED_EPOCHS = 3, 10  # as long as this many epochs, if that is longer
STALL_GRACE_SECONDS = 20.0  # for a run without progress to save, before SIGKILL


class DiskFull(Exception):  # noqa: N818 - not an outcome of a run
    """A run ended because the disk is full; it can be resumed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: its folder and the commands that start or resume it."""

    run: PlannedRun
    folder: Path
    start: tuple[str, ...]
    resume: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)  # relative paths in the command keep their meaning on Ray workers

    @property
    def log(self) -> Path:
        """The file with the output of the run."""
        return self.folder.parent / LOGS / f"{self.folder.name}.log"

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed."""
        return (self.folder / "weights" / "last.pt").is_file()

    def status(self) -> str:
        """The status of the run: finished, failed, unfinished or new."""
        try:
            return read_run(self.folder).status
        except FileNotFoundError:
            return "new"

    def launch(self) -> subprocess.Popen:
        """Start or resume the run in its own session: Ctrl-C reaches the comparison only, which stops the run once."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = self.resume if self.has_checkpoint else self.start
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                cwd=self.cwd,
                start_new_session=True,
            )

    def conclude(self, code: int) -> str:
        """The status of a run that ended with this exit code: finished, failed, unfinished (stopped), or killed.

        A failure is recorded in the run folder. ValueError for a usage error, which would fail every run, and DiskFull.
        """
        if code == 0 and self.status() == "finished":
            return "finished"
        line = self._last_line()
        if code == USAGE_ERROR and (not self.has_checkpoint or "training is running in" in line or "is locked" in line):
            raise ValueError(f"{self.run.name}: {line}")
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT):
            return "unfinished"
        if code == -signal.SIGKILL:
            return "killed"
        if DISK_FULL in line or shutil.disk_usage(self.folder.parent).free < MIN_FREE:
            raise DiskFull(f"{self.run.name}: {line or DISK_FULL}")
        ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        self.fail(f"{line} ({ended})" if line else ended)
        return "failed"

    def fail(self, reason: str) -> None:
        """Record that the run failed, and why."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"act": self.run.act, "seed": self.run.seed, "reason": reason[:MAX_REASON]}
        write_text(self.folder / FAILURE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def reset(self) -> None:
        """Remove the checkpoint of a failed run, so that it starts again; keep its failure as failure-1.json, ..."""
        (self.folder / "weights" / "last.pt").unlink(missing_ok=True)
        number = len(earlier_failures(self.folder)) + 1
        (self.folder / FAILURE).rename(self.folder / f"failure-{number}.json")

    def _last_line(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
            output = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
            return printable(output[-1]) if output else ""
        return ""


def make_job(
    plan: Plan,
    run: PlannedRun,
    folder: Path,
    *,
    trainer: Sequence[str] = TRAINER,
    environment: Mapping[str, str] | None = None,
) -> Job:
    """The job of a planned run in the comparison's folder, with these changes of the environment."""
    run_folder = folder.resolve() / run.name
    overrides = {
        **plan.overrides_of(run),
        "run.project": str(run_folder.parent),
        "run.name": run_folder.name,
        "run.exist_ok": True,
    }
    settings = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in overrides.items()]
    return Job(
        run=run,
        folder=run_folder,
        start=(*trainer, "--cfg", plan.cfg, "--set", *settings),
        resume=(*trainer, "--resume", str(run_folder / "weights" / "last.pt")),
        environment=environment or {},
    )


def run_module(
    module: str, *words: str, error: str, environment: Mapping[str, str] | None = None, show: bool = False
) -> str:
    """Run a module of this project in a separate process and return what it prints, or ``show`` it at once.

    ValueError, begun with ``error``, with the last line of the process if it fails.
    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        stdout=None if show else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ValueError(f"{error}: {lines[-1].partition('error: ')[2] or lines[-1]}")
    return done.stdout or ""


class Heartbeat:
    """Signs of life of a running job: its files change."""

    def __init__(self, job: Job) -> None:
        self.job, self.warned = job, False
        self.seen, self.since = self._state(), time.monotonic()

    def _state(self) -> list[tuple[int, int]]:
        folder, state = self.job.folder, []
        for path in (folder / "results.csv", folder / "weights" / "last.pt", folder / "run.json", self.job.log):
            with contextlib.suppress(OSError):
                status = path.stat()
                state.append((status.st_mtime_ns, status.st_size))
        return state

    def check(self) -> tuple[str, bool]:
        """A line if the job has shown no sign of life for a long time, else "", and whether it is to be ended."""
        state, now = self._state(), time.monotonic()
        if state != self.seen:
            self.seen, self.since, self.warned = state, now, False
        quiet = now - self.since
        if quiet < QUIET_SECONDS:
            return "", False
        epoch = self._longest_epoch()
        limit = max(STALLED_SECONDS, STALLED_EPOCHS * epoch)
        what = f"no progress for {format_duration(quiet)}"
        if quiet >= limit:
            return f"{what}, ended", True
        if self.warned or quiet < max(QUIET_SECONDS, QUIET_EPOCHS * epoch):
            return "", False
        self.warned = True
        usual = f"an epoch takes {format_duration(epoch)}" if epoch else "no epoch has ended yet"
        return f"{what} ({usual}); ended as failed after {format_duration(limit)} (log: {self.job.log})", False

    def _longest_epoch(self) -> float:
        """Seconds; 0 before the end of the first one."""
        try:
            rows = read_rows(self.job.folder / "results.csv")
        except ValueError:
            return 0.0
        times = [sum(value or 0 for name, value in row.items() if name.startswith("time_")) for row in rows]
        return max(times, default=0.0)


def train_here(job: Job) -> int:
    """Train or resume a run on this machine of a cluster; returns its exit code, 0 if it is already finished.

    An exception that ends the wait, by which the cluster cancels its task, stops the run, which is saved.
    """
    while is_locked(job.folder):  # the training of a lost task is still running
        time.sleep(POLL_SECONDS)
    if job.status() == "finished":
        return 0
    process = job.launch()
    heartbeat = Heartbeat(job)
    try:
        while process.poll() is None:  # a blocking wait cannot be interrupted
            time.sleep(POLL_SECONDS)
            line, stalled = heartbeat.check()
            if stalled:
                return end_stalled(job, process, line)
        return process.returncode
    finally:
        stop(process)


def end_stalled(job: Job, process: subprocess.Popen, reason: str) -> int:
    """End a run without progress, with its data workers; returns the exit code of a failure."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STALL_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its session
    process.wait()
    with contextlib.suppress(OSError), open(job.log, "a", encoding="utf-8") as log:
        log.write(f"{reason}\n")
    return 1


def stop(*processes: subprocess.Popen) -> None:
    """Ask runs to save and end, each once (a second request would end it at once), and wait for them."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
