"""The progress display of a comparison, and the bookkeeping of how its runs end."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comparison.job import TRAINER, Job, make_job
from comparison.journal import Event, note, note_ended
from comparison.plan import Plan, PlannedRun
from comparison.runs import read_rows, read_run
from core.text import format_duration

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 60.0  # between lines without a terminal
BAR_SECONDS = 2.0
SHOWN_RUNS = 3
MAX_RESTARTS = 2  # after SIGKILL; a further one is a failure


class Progress:
    """One display over all runs, in epochs, with the remaining time: a bar on a terminal, else lines.

    It reads little and rarely: on a CPU, it would slow down the runs that are being timed.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        trainer: Sequence[str] = TRAINER,
        after_seed: Callable[[int], None] = lambda seeds: None,
    ) -> None:
        self.plan, self.after_seed = plan, after_seed
        self.jobs = {run: make_job(plan, run, folder, trainer=trainer) for run in plan.runs}
        self.weights = {run: plan.step_ms.get(run.act, 1.0) for run in plan.runs}  # relative time of an epoch
        self.status = {run: job.status() for run, job in self.jobs.items()}
        note_ended(folder, {run.name: status for run, status in self.status.items()})
        self.epochs = {run: self._epochs(run) for run in self.jobs}
        self.kills: Counter[PlannedRun] = Counter()
        self.complete_seeds = self._complete_seeds()
        self.total = sum(plan.epochs[run.act] * self.weights[run] for run in self.jobs)
        self.first, self.start = self.done, time.monotonic()
        self.bar: tqdm | None = None
        self.shown = self.start

    @property
    def done(self) -> float:
        """The completed work, in weighted epochs."""
        return sum(self.weights[run] * count for run, count in self.epochs.items())

    def _epochs(self, run: PlannedRun) -> int:
        epochs = self.plan.epochs[run.act]
        if self.status[run] in ("finished", "failed"):
            return epochs
        try:
            return min(epochs, len(read_rows(self.jobs[run].folder / "results.csv")))
        except ValueError:
            return 0

    def _complete_seeds(self) -> int:
        """The number of seed groups, from the first on, whose runs have all ended."""
        for number, group in enumerate(self.plan.seed_groups):
            if any(self.status[run] not in ("finished", "failed") for run in group):
                return number
        return len(self.plan.seed_groups)

    def update(self, running: Iterable[Job]) -> None:
        """Refresh the display, at intervals."""
        if time.monotonic() - self.shown < (BAR_SECONDS if self.bar is not None else LINE_SECONDS):
            return
        runs = [job.run for job in running]
        self.epochs |= {run: self._epochs(run) for run in runs}
        more = f" and {len(runs) - SHOWN_RUNS} more" if len(runs) > SHOWN_RUNS else ""
        self._show(", ".join(run.name for run in runs[:SHOWN_RUNS]) + more)

    def _show(self, text: str) -> None:
        self.shown, percent = time.monotonic(), 100 * self.done / self.total
        gained = self.done - self.first
        seconds = (time.monotonic() - self.start) * (self.total - self.done) / gained if gained else None
        left = "" if not seconds else f", about {format_duration(seconds)} left"
        if self.bar is None:
            print(f"{percent:3.0f} %  {text}{left}", flush=True)
        else:
            self.bar.n = round(percent, 1)
            self.bar.set_postfix_str(f"{text}{left}", refresh=True)

    def started(self, job: Job) -> None:
        """Report that a run starts or resumes, and note it in the journal."""
        self.note_start(job)
        self._show(f"{job.run.name} {'resumes' if job.has_checkpoint else 'starts'}")

    @staticmethod
    def note_start(job: Job) -> None:
        """Note in the journal that a run starts, starts again, as it left no checkpoint, or resumes."""
        event: Event = "started"
        if job.folder.is_dir():
            event = "resumed" if job.has_checkpoint else "restarted"
        job.folder.mkdir(parents=True, exist_ok=True)
        note(job.folder.parent, job.run.name, event)

    def ended(self, job: Job, status: str) -> bool:
        """Report how a run ended; True if it was killed and is to be resumed."""
        if status == "killed":
            self.kills[job.run] += 1
            if self.kills[job.run] <= MAX_RESTARTS:
                self.message(f"{job.run.name} was killed; resuming it")
                return True
            job.fail(f"killed {self.kills[job.run]} times, possibly by the system for lack of memory")
            status = "failed"
        self.status[job.run] = status
        self.epochs[job.run] = self._epochs(job.run)
        if status == "finished":
            note(job.folder.parent, job.run.name, "finished")
            last = read_run(job.folder).rows[-1].get("metrics/mAP50-95")
            self.message(f"{job.run.name} finished" + ("" if last is None else f", mAP50-95 {last:.3f}"))
        elif status == "failed":
            note(job.folder.parent, job.run.name, "failed")
            self.message(f"{job.run.name} FAILED: {read_run(job.folder).reason} (log: {job.log})")
        else:
            self.message(f"{job.run.name} was stopped")
        if (complete := self._complete_seeds()) > self.complete_seeds:
            self.complete_seeds = complete
            self.after_seed(complete)
        return False

    def message(self, text: str) -> None:
        """Print a line."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            self._show(text)

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from tqdm import tqdm

            bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
            self.bar = tqdm(total=100, desc="comparison", bar_format=bar_format, dynamic_ncols=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
