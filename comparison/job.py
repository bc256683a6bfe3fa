"""One run of a comparison: its folder, the process of train.py that starts it or goes on with it, and its outcome."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comparison.plan import Cell, Plan
from comparison.runs import FAILURE, read_run
from core.files import write_text
from core.text import printable

ROOT = Path(__file__).resolve().parents[1]
TRAINER = (sys.executable, str(ROOT / "train.py"))
LOGS = "logs"
USAGE = 2  # exit code of a script whose input is wrong
LONGEST_REASON = 500
GRACE_SECONDS = 600.0  # a stopped run has for the step in hand and its checkpoint; SIGKILL comes behind it


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: its folder and the commands that start it or go on with it."""

    cell: Cell
    folder: Path
    start: tuple[str, ...]
    resume: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    place: Path = field(default_factory=Path.cwd)  # where the command was given, so relative paths keep their meaning

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.folder.parent / LOGS / f"{self.folder.name}.log"

    def status(self) -> str:
        """finished, failed, unfinished, or new."""
        try:
            return read_run(self.folder).status
        except FileNotFoundError:
            return "new"

    def command(self) -> tuple[str, ...]:
        """Go on where a checkpoint is, else start."""
        return self.resume if (self.folder / "weights" / "last.pt").is_file() else self.start


def job(plan: Plan, cell: Cell, folder: Path, *, trainer: Sequence[str] = TRAINER, gpu: str | None = None) -> Job:
    """The run of a cell in the comparison's folder, on a GPU of its own where one is named."""
    own = folder.resolve() / cell.name
    values = {**plan.overrides_of(cell), "run.project": str(own.parent), "run.name": own.name, "run.exist_ok": True}
    settings = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return Job(
        cell=cell,
        folder=own,
        start=(*trainer, "--cfg", plan.cfg, "--set", *settings),
        resume=(*trainer, "--resume", str(own / "weights" / "last.pt")),
        environment={} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu},
    )


def launch(job: Job) -> subprocess.Popen:
    """Start a run or go on with it, in a session of its own: Ctrl-C reaches the comparison, which passes it on once."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    command = job.command()
    with open(job.log, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        environment = {**os.environ, **job.environment}
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=job.place,
            start_new_session=True,
        )


def stop(process: subprocess.Popen) -> None:
    """Ask a run to save and end, and wait for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def conclude(job: Job, code: int) -> str:
    """What a run that ended with this code has come to: finished, failed, killed, or unfinished where it was stopped.

    A failure is written beside what the run left. ValueError where the run was refused as it was asked for, which no
    other run of the comparison would fare better with.
    """
    if code == 0 and job.status() == "finished":
        return "finished"
    line = _last_line(job.log)
    if code == USAGE and (not (job.folder / "weights" / "last.pt").is_file() or "training is running in" in line):
        raise ValueError(f"{job.cell.name}: {line}")
    if code in (-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT):
        return "unfinished"
    if code == -signal.SIGKILL:
        return "killed"
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    fail(job, f"{line} ({ended})" if line else ended)
    return "failed"


def fail(job: Job, reason: str) -> None:
    """Write down that a run has failed, and why."""
    job.folder.mkdir(parents=True, exist_ok=True)
    content = {"act": job.cell.act, "seed": job.cell.seed, "reason": reason[:LONGEST_REASON]}
    write_text(job.folder / FAILURE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def forget(job: Job) -> None:
    """Let a failed run start from its beginning: its checkpoint and its failure go, its log stays."""
    for file in (job.folder / FAILURE, job.folder / "weights" / "last.pt"):
        file.unlink(missing_ok=True)


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
        said = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
        text = said[-1] if said else ""
        return printable(text)
    return ""
