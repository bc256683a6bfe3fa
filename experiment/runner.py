"""The runs of a plan, each a fresh process of train.py, on one device, on all GPUs of a machine, or on a Ray cluster.

What is to be done is read from the folders each time: a finished run is kept, one cut off is resumed, a failed one is
kept as the outcome that it is. So a comparison that was stopped goes on with the same call, and a process that dies
costs the run in its hands.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiment.plan import Cell, Plan, duration
from experiment.runs import FAILURE, Run, read_rows, read_run

try:
    import fcntl
except ImportError:  # Windows: a run left by a killed comparison is not noticed there
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[1]
TRAINER = (sys.executable, str(ROOT / "train.py"))
LOGS = "logs"
LOCK = ".lock"  # held by a training in its folder (engine/files.py)
POLL_SECONDS = 0.3
PLAIN_LINE_SECONDS = 60.0
BAR_SECONDS = 2.0
NAMED = 3  # runs that the display names
MOST_KILLS = 2  # of a run by SIGKILL, behind which it is gone on with; one more is a failure
USAGE = 2  # exit code of a script whose input is wrong
LONGEST_REASON = 500
GRACE_SECONDS = 600.0  # a stopped run has for the step in hand and its checkpoint; SIGKILL comes behind it


class Interrupted(Exception):  # noqa: N818 - no error
    """Ctrl-C or SIGTERM: the runs in hand have been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


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


# --------------------------------------------------------------------------------------------------------- one run


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


def held(folder: Path) -> bool:
    """Whether a training is in this folder: one that a killed comparison has left, say."""
    if fcntl is None or not (folder / LOCK).is_file():
        return False
    with open(folder / LOCK, "r+", encoding="ascii") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


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
    temporary = job.folder / f".{FAILURE}.unfinished"
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(job.folder / FAILURE)


def forget(job: Job) -> None:
    """Let a failed run start from its beginning: its checkpoint and its failure go, its log stays."""
    for file in (job.folder / FAILURE, job.folder / "weights" / "last.pt"):
        file.unlink(missing_ok=True)


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
        said = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
        text = said[-1] if said else ""
        return "".join(letter if letter.isprintable() else "?" for letter in text)
    return ""


# -------------------------------------------------------------------------------------------------------- all the runs


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


def _work(lane: Lane, blocks: list[list[Cell]], watch: "Watch", job_of: Callable[[Cell, str | None], Job]) -> None:
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
    if held(lane.job.folder):
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


# ------------------------------------------------------------------------------------------------------------ progress


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
        return "" if seconds is None else f", about {duration(seconds)} left"

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


def outcome(plan: Plan, folder: Path) -> list[Run]:
    """The runs of the plan that have left anything, as the plan compares them."""
    jobs = [job(plan, cell, folder) for cell in plan.cells]
    return plan.as_compared([read_run(own.folder) for own in jobs if own.status() != "new"])
