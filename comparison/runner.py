"""The runs of a plan, each a fresh process of train.py, on one device, on all GPUs of a machine, or on a Ray cluster.

What is to be done is read from the folders each time: a finished run is kept, one cut off is resumed, a failed one is
kept as the outcome that it is. So a comparison that was stopped goes on with the same call, and a process that dies
costs the run in its hands.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison.job import TRAINER, Job, conclude, forget, job, launch, stop
from comparison.plan import Cell, Plan
from comparison.progress import Watch
from comparison.runs import Run, read_run
from core.files import is_locked

POLL_SECONDS = 0.3


class Interrupted(Exception):  # noqa: N818 - no error
    """Ctrl-C or SIGTERM: the runs in hand have been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@dataclass
class Lane:
    """A device and the seeds' blocks that it works off."""

    gpu: str | None
    block: list[Cell] = field(default_factory=list)
    job: Job | None = None
    process: subprocess.Popen | None = None
    waiting: bool = False


def train_all(
    plan: Plan,
    folder: Path,
    *,
    gpus: Sequence[str] = (),
    retry_failed: bool = False,
    trainer: Sequence[str] = TRAINER,
    after_block: Callable[[int], None] = lambda blocks: None,
) -> None:
    """Train what is left of the plan; each GPU takes the block of a seed at a time, without GPUs one run at a time.

    ``after_block`` is told how many of the first blocks are whole. Raises Interrupted behind Ctrl-C or SIGTERM, with
    the runs in hand saved, and ValueError where a run is refused.
    """
    lanes = [Lane(gpu) for gpu in gpus] or [Lane(None)]
    blocks = left_over(plan, folder, retry_failed=retry_failed)
    with Watch(plan, folder, after_block=after_block) as watch, signals() as asked:
        try:
            while blocks or any(lane.job or lane.block for lane in lanes):
                for lane in lanes:
                    _work(lane, blocks, watch, lambda cell, gpu: job(plan, cell, folder, trainer=trainer, gpu=gpu))
                if asked:
                    raise Interrupted(asked[0])
                watch.show([lane.job for lane in lanes if lane.job])
                time.sleep(POLL_SECONDS)
        finally:
            for lane in lanes:  # all at once; then wait for each
                if lane.process is not None and lane.process.poll() is None:
                    lane.process.terminate()
            for lane in lanes:
                if lane.process is not None:
                    stop(lane.process)


def left_over(plan: Plan, folder: Path, *, retry_failed: bool) -> list[list[Cell]]:
    """The cells of each block that are to be trained; failed ones count where they are tried again."""
    blocks = []
    for block in plan.blocks:
        left = []
        for cell in block:
            own = job(plan, cell, folder)
            status = own.status()
            if status == "failed" and retry_failed:
                forget(own)
                status = "new"
            if status in ("new", "unfinished"):
                left.append(cell)
        blocks += [left] if left else []
    return blocks


def _work(lane: Lane, blocks: list[list[Cell]], watch: Watch, job_of: Callable[[Cell, str | None], Job]) -> None:
    """Look after a lane: see whether its run has ended, and start the next one."""
    if lane.job is not None and lane.process is not None:
        code = lane.process.poll()
        if code is None:
            return
        ended, lane.job, lane.process = lane.job, None, None
        if watch.ended(ended, conclude(ended, code)) == "again":
            lane.block.insert(0, ended.cell)
    if lane.job is None:
        if not lane.block and blocks:
            lane.block = blocks.pop(0)
        if not lane.block:
            return
        lane.job = job_of(lane.block.pop(0), lane.gpu)
    if is_locked(lane.job.folder):
        if not lane.waiting:
            watch.say(f"{lane.job.cell.name}: a training is still running in its folder; waiting for it")
        lane.waiting = True
    elif lane.job.status() == "finished":  # by the one that was waited for
        watch.ended(lane.job, "finished")
        lane.job, lane.waiting = None, False
    else:
        watch.begun(lane.job)
        lane.process, lane.waiting = launch(lane.job), False


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list instead of dying of them."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gpus_of(device: str | None, *, ask: Callable[[], str] | None = None) -> tuple[str, ...]:
    """The GPUs to share the seeds among: those listed (0,1), or all of the machine; () for one device at a time.

    ``ask`` prints a line a GPU, as nvidia-smi -L does.
    """
    if device is not None:
        named = [part.strip() for part in device.split(",") if part.strip()]
        if "," not in device:
            return ()
        wrong = [part for part in named if not part.isdecimal()]
        if wrong or len(set(named)) < len(named):
            raise ValueError(f"--device {device}: expected different numbers of GPUs, as in 0,1")
        return tuple(named)
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        found = tuple(part.strip() for part in chosen.split(",") if part.strip())
    else:
        lines = (ask or _nvidia_smi)().splitlines()
        found = tuple(str(number) for number, _ in enumerate(line for line in lines if line.startswith("GPU ")))
    return found if len(found) > 1 else ()


def _nvidia_smi() -> str:
    try:
        words = ("nvidia-smi", "-L")
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def outcome(plan: Plan, folder: Path) -> list[Run]:
    """The runs of the plan that have left anything, as the plan compares them."""
    jobs = [job(plan, cell, folder) for cell in plan.cells]
    return plan.as_compared([read_run(own.folder) for own in jobs if own.status() != "new"])
