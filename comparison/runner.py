"""Train the runs of a plan, each in a fresh process of train.py, on one device, on all GPUs of a machine, or several
at a time on its CPU cores.

The state is read from the folders each time: finished runs are kept, interrupted ones resumed, failed ones kept as
outcomes. A comparison that was stopped therefore resumes with the same call.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comparison.job import POLL_SECONDS, TRAINER, Heartbeat, Job, end_stalled, make_job, stop
from comparison.plan import Plan, PlannedRun
from comparison.progress import Progress
from comparison.runs import Run, read_run
from core.cores import usable_cores
from core.files import is_locked


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C or SIGTERM: the running runs have been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@dataclass
class Worker:
    """A device, as an environment variable, and the runs that it trains."""

    environment: Mapping[str, str]
    group: list[PlannedRun] = field(default_factory=list)  # runs still to be started
    job: Job | None = None
    process: subprocess.Popen | None = None
    heartbeat: Heartbeat | None = None
    waiting: bool = False  # for another process that trains in the run's folder


def train_all(
    plan: Plan,
    folder: Path,
    *,
    gpus: Sequence[str] = (),
    at_once: int = 1,
    retry_failed: bool = False,
    trainer: Sequence[str] = TRAINER,
    after_seed: Callable[[int], None] = lambda seeds: None,
) -> None:
    """Train the remaining runs of the plan: each GPU takes one seed group at a time; without GPUs, ``at_once`` runs are
    trained side by side, each with its share of the CPU cores.

    ``after_seed`` is called with the number of complete seeds. Raises Interrupted after Ctrl-C or SIGTERM, when the
    running runs are saved, ValueError for a usage error of train.py, and DiskFull.
    """
    groups = remaining(plan, folder, retry_failed=retry_failed)
    if gpus:
        workers = [Worker({"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus]
    else:
        workers = [Worker(share_of_cores(at_once)) for _ in range(at_once)]
        groups = [[run] for group in groups for run in group]
    with Progress(plan, folder, trainer=trainer, after_seed=after_seed) as progress, stop_signals() as signals:
        try:
            while groups or any(worker.job or worker.group for worker in workers):
                for worker in workers:
                    _advance(
                        worker,
                        groups,
                        progress,
                        lambda run, variables: make_job(plan, run, folder, trainer=trainer, environment=variables),
                    )
                if signals:
                    raise Interrupted(signals[0])
                progress.update([worker.job for worker in workers if worker.job])
                time.sleep(POLL_SECONDS)
        finally:
            stop(*(worker.process for worker in workers if worker.process is not None))


def share_of_cores(runs: int) -> dict[str, str]:
    """The environment of each of several runs that are trained side by side; a number of threads set there is kept."""
    if runs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, usable_cores() // runs))}


def remaining(plan: Plan, folder: Path, *, retry_failed: bool) -> list[list[PlannedRun]]:
    """The runs still to be trained, by seed group; with ``retry_failed``, failed runs start again."""
    groups = []
    for group in plan.seed_groups:
        left = []
        for run in group:
            job = make_job(plan, run, folder)
            status = job.status()
            if status == "failed" and retry_failed:
                job.reset()
                status = "new"
            if status in ("new", "unfinished"):
                left.append(run)
        groups += [left] if left else []
    return groups


def _advance(
    worker: Worker,
    groups: list[list[PlannedRun]],
    progress: Progress,
    job_of: Callable[[PlannedRun, Mapping[str, str]], Job],
) -> None:
    """Check whether a worker's run has ended, and start the next one."""
    if worker.job is not None and worker.process is not None:
        code = _exit_code(worker, progress)
        if code is None:
            return
        ended, worker.job, worker.process = worker.job, None, None
        if progress.ended(ended, ended.conclude(code)):
            worker.group.insert(0, ended.run)
    if worker.job is None:
        if not worker.group and groups:
            worker.group = groups.pop(0)
        if not worker.group:
            return
        worker.job = job_of(worker.group.pop(0), worker.environment)
    if is_locked(worker.job.folder):
        if not worker.waiting:
            progress.message(f"{worker.job.run.name}: another process is training in its folder; waiting for it")
        worker.waiting = True
    elif worker.job.status() == "finished":  # by the process that was waited for
        progress.ended(worker.job, "finished")
        worker.job, worker.waiting = None, False
    else:
        progress.started(worker.job)
        worker.process, worker.waiting = worker.job.launch(), False
        worker.heartbeat = Heartbeat(worker.job)


def _exit_code(worker: Worker, progress: Progress) -> int | None:
    """The exit code of a worker's run, None while it makes progress; one that does not is ended at last."""
    assert worker.job is not None and worker.process is not None and worker.heartbeat is not None
    code = worker.process.poll()
    if code is not None:
        return code
    line, stalled = worker.heartbeat.check()
    if stalled:
        return end_stalled(worker.job, worker.process, line)
    if line:
        progress.message(f"{worker.job.run.name}: {line}")
    return None


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of ending the process."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def list_gpus(device: str | None, *, nvidia_smi: Callable[[], str] | None = None) -> tuple[str, ...]:
    """The GPUs that share the seeds: those of --device 0,1, or all of the machine; () for a single device.

    ``nvidia_smi`` replaces the output of nvidia-smi -L in tests.
    """
    if device is not None:
        numbers = [part.strip() for part in device.split(",") if part.strip()]
        if "," not in device:
            return ()
        if len(set(numbers)) < len(numbers) or not all(number.isdecimal() for number in numbers):
            raise ValueError(f"--device {device}: expected different GPU numbers, as in 0,1")
        return tuple(numbers)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = tuple(part.strip() for part in visible.split(",") if part.strip())
    else:
        lines = (nvidia_smi or _nvidia_smi)().splitlines()
        gpus = tuple(str(number) for number, _ in enumerate(line for line in lines if line.startswith("GPU ")))
    return gpus if len(gpus) > 1 else ()


def group_gpus(gpus: Sequence[str], each: int, *, engine: str) -> tuple[str, ...]:
    """The GPUs in groups of ``each``, as CUDA_VISIBLE_DEVICES names them; Ray and Slurm make their own."""
    if each < 1:
        raise ValueError(f"--gpus-per-run {each}: expected 1 or more")
    if engine != "local":
        return ()
    if len(gpus) < each or len(gpus) % each:
        raise ValueError(f"--gpus-per-run {each}: found {len(gpus)} GPUs; expected a multiple, as in --device 0,1,2,3")
    return tuple(",".join(gpus[first : first + each]) for first in range(0, len(gpus), each))


def _nvidia_smi() -> str:
    try:
        command = ("nvidia-smi", "-L")
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def read_outcome(plan: Plan, folder: Path) -> list[Run]:
    """The runs of the plan that have been started, as the plan compares them."""
    jobs = [make_job(plan, run, folder) for run in plan.runs]
    return plan.as_compared([read_run(job.folder) for job in jobs if job.status() != "new"])
