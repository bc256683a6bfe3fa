"""What the GPU day leaves behind: day.md with all output, day.json with all figures, and a summary for the screen."""

import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.digest import lines_of
from benchmarks.gpu_day.processes import ABSENT, PASSED, SKIPPED, Job, Outcome

MAX_LINES, MAX_WIDTH = 80, 200


def earlier_jobs(out: Path) -> dict[str, dict[str, Any]]:
    """The jobs of an earlier day in this folder by name; ValueError if the files there are of something else."""
    path = out / "day.json"
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out} has files and no day.json; expected a new or empty folder")
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); expected the file of an earlier day") from error
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, dict) or not all(isinstance(job, dict) for job in jobs.values()):
        raise ValueError(f"{path} has no jobs; expected the file of an earlier day")
    return jobs


class Record:
    """The files in the folder of the results; everything is on disk as soon as a job has ended."""

    def __init__(self, out: Path) -> None:
        self.out, self.jobs = out, earlier_jobs(out)
        for folder in (out, out / "figures", out / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        self.lines: list[str] = []  # of this call
        self.ran: dict[str, str] = {}  # job of this call -> status

    @property
    def _json(self) -> Path:
        return self.out / "day.json"

    def log(self, stage: str, job: Job) -> Path:
        """The file for the output of a job while it runs."""
        return self.out / "logs" / f"{stage}-{job.name}.txt"

    def forget_figures(self, job: Job) -> None:
        """Remove the figures of an earlier call, which must not pass for those of this one."""
        self._figures(job).unlink(missing_ok=True)

    def _figures(self, job: Job) -> Path:
        return self.out / "figures" / f"{job.name}.json"

    def add(self, stage: str, job: Job, outcome: Outcome) -> None:
        """Append the output of a job to day.md, its figures to day.json, and print its lines."""
        name = stage if stage == job.name else f"{stage}, {job.name}"
        figures, output = {}, ""
        with contextlib.suppress(FileNotFoundError, ValueError):
            figures = json.loads(self._figures(job).read_text(encoding="utf-8"))
        if outcome.status not in (ABSENT, SKIPPED):
            output = self.log(stage, job).read_text(encoding="utf-8", errors="replace").strip()
        if job.digest == "tests" and outcome.status == PASSED and " passed" not in output:
            outcome = dataclasses.replace(outcome, status=SKIPPED, reason="no test ran")
        lines = [f"{name}: {outcome.status}{f' ({outcome.reason})' if outcome.reason else ''}, {outcome.seconds:.0f} s"]
        if output or figures:
            lines += [f"  {line[:MAX_WIDTH]}" for line in lines_of(job.digest, figures, output)]
        words = ["python", *job.command[1:]] if job.command[0] == sys.executable else job.command
        when = datetime.datetime.now().isoformat(timespec="seconds")
        with (self.out / "day.md").open("a", encoding="utf-8") as file:
            file.write(f"## {name}\n\n`{shlex.join(words)}`, {when}\n\n{lines[0]}\n\n```\n{output}\n```\n\n")
        self.jobs[name] = {"status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds}
        self.jobs[name] |= {"command": shlex.join(words), "ended": when, "figures": figures}
        scratch = self._json.with_suffix(".tmp")
        scratch.write_text(json.dumps({"jobs": self.jobs}, indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, self._json)
        self.ran[job.name] = outcome.status
        self.lines += lines
        print("\n".join(lines), flush=True)

    def failed_now(self, jobs: Sequence[str]) -> str:
        """The first of these jobs that was run by this call and did not pass; empty if there is none."""
        return next((name for name in jobs if self.ran.get(name, PASSED) != PASSED), "")

    def summary(self) -> list[str]:
        """The lines of this call, at most 80: where there are more, the last ones say so."""
        if len(self.lines) <= MAX_LINES:
            return self.lines
        left = len(self.lines) - MAX_LINES + 1
        return [*self.lines[: MAX_LINES - 1], f"... and {left} lines more in {self.out / 'day.md'}"]
