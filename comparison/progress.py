"""The progress display of a comparison, and what the end of each run means for it."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from comparison.job import Job, fail, job
from comparison.plan import Cell, Plan
from comparison.runs import read_rows, read_run
from core.text import format_duration

PLAIN_LINE_SECONDS = 60.0
BAR_SECONDS = 2.0
NAMED = 3  # runs that the display names
MOST_KILLS = 2  # of a run by SIGKILL, behind which it is gone on with; one more is a failure


class Watch:
    """One progress display over all runs, in epochs, with the time that is left: a bar, or plain lines elsewhere.

    It reads little and seldom: on a CPU, what it takes is taken from the runs that are being timed.
    """

    def __init__(self, plan: Plan, folder: Path, *, after_block: Callable[[int], None] = lambda blocks: None) -> None:
        self.plan, self.after_block = plan, after_block
        self.jobs = {cell: job(plan, cell, folder) for cell in plan.cells}
        self.weights = {cell: plan.step_ms.get(cell.act, 1.0) for cell in plan.cells}  # of an epoch, by the probe
        self.status = {cell: own.status() for cell, own in self.jobs.items()}
        self.epochs = {cell: self._epochs(cell) for cell in self.jobs}
        self.killed: Counter[Cell] = Counter()
        self.blocks = self._blocks()
        self.total = sum(plan.epochs[cell.act] * self.weights[cell] for cell in self.jobs)
        self.first, self.start = self.done, time.monotonic()
        self.bar: Any = None
        self.shown = self.start

    @property
    def done(self) -> float:
        """The work done, in weighted epochs."""
        return sum(self.weights[cell] * count for cell, count in self.epochs.items())

    def _epochs(self, cell: Cell) -> int:
        epochs = self.plan.epochs[cell.act]
        if self.status[cell] in ("finished", "failed"):
            return epochs
        try:
            return min(epochs, len(read_rows(self.jobs[cell].folder / "results.csv")))
        except ValueError:
            return 0

    def _blocks(self) -> int:
        """How many of the first blocks have ended in all their runs."""
        ended = [all(self.status[cell] in ("finished", "failed") for cell in block) for block in self.plan.blocks]
        return ended.index(False) if False in ended else len(ended)

    def left(self) -> str:
        """The time until the end by the pace so far, in words; empty before the first epoch."""
        gained = self.done - self.first
        seconds = (time.monotonic() - self.start) * (self.total - self.done) / gained if gained else None
        return "" if seconds is None else f", about {format_duration(seconds)} left"

    def show(self, running: Iterable[Job]) -> None:
        """Bring the display up to date, now and then."""
        if time.monotonic() - self.shown < (BAR_SECONDS if self.bar is not None else PLAIN_LINE_SECONDS):
            return
        jobs = list(running)
        self.epochs |= {own.cell: self._epochs(own.cell) for own in jobs}
        more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
        self._show(", ".join(own.cell.name for own in jobs[:NAMED]) + more)

    def _show(self, text: str) -> None:
        self.shown, percent = time.monotonic(), 100 * self.done / self.total
        if self.bar is None:
            print(f"{percent:3.0f} %  {text}{self.left()}", flush=True)
        else:
            self.bar.n = round(percent, 1)
            self.bar.set_postfix_str(f"{text}{self.left()}", refresh=True)

    def begun(self, own: Job) -> None:
        """Say which run starts."""
        self._show(f"{own.cell.name} {'goes on' if own.command() == own.resume else 'starts'}")

    def ended(self, own: Job, status: str) -> str:
        """Say how a run has ended; "again" where it is to be gone on with, as it was killed from outside."""
        if status == "killed":
            self.killed[own.cell] += 1
            if self.killed[own.cell] <= MOST_KILLS:
                self.say(f"{own.cell.name} was killed; going on with it")
                return "again"
            fail(own, f"killed {self.killed[own.cell]} times, by the system where memory runs out")
            status = "failed"
        self.status[own.cell] = status
        self.epochs[own.cell] = self._epochs(own.cell)
        if status == "finished":
            last = read_run(own.folder).rows[-1].get("metrics/mAP50-95")
            self.say(f"{own.cell.name} finished" + ("" if last is None else f", mAP50-95 {last:.3f}"))
        elif status == "failed":
            self.say(f"{own.cell.name} FAILED: {read_run(own.folder).reason} (log: {own.log})")
        else:
            self.say(f"{own.cell.name} was stopped")
        if self._blocks() > self.blocks:
            self.blocks = self._blocks()
            self.after_block(self.blocks)
        return status

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            self._show(text)

    def __enter__(self) -> "Watch":
        if sys.stderr.isatty():
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
            self.bar = tqdm(total=100, desc="comparison", bar_format=form, dynamic_ncols=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
