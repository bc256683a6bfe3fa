"""Train the runs of a plan as jobs of Slurm, by submitit: each run is a job, which waits for its turn in the queue.

All machines see the comparison's folder and this repository under the same paths. A job that Slurm preempts, or that
reaches its time limit, saves its run and is put back into the queue, where it resumes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from comparison.job import GRACE_SECONDS, POLL_SECONDS, ROOT, TRAINER, Job, train_here
from comparison.plan import Plan, PlannedRun
from comparison.progress import Progress
from comparison.runner import Interrupted, remaining, stop_signals
from core.text import one_line

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit.helpers import DelayedSubmission

FOLDER = "slurm"  # of the comparison: what submitit writes, and the output of its jobs
TIME_LIMITS = 1000  # reached by one run before it is given up
GENERIC = ("timeout_min", "mem_gb", "gpus_per_node", "cpus_per_task", "name")  # by submitit; others are Slurm's


class Task:
    """The work of a job: to train or resume a run."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> int:
        """The exit code of the run."""
        return train_here(self.job)

    def checkpoint(self) -> DelayedSubmission:
        """What is put back into the queue, before this job ends by an exception in `train_here`."""
        return _submitit().helpers.DelayedSubmission(self)


def _submitit() -> ModuleType:
    try:
        import submitit
    except ImportError:
        raise ValueError(
            "--engine slurm: submitit is not installed; uv sync --extra slurm, or pip install submitit"
        ) from None
    return submitit


def read_parameters(texts: Sequence[str]) -> dict[str, object]:
    """The parameters of --slurm KEY=VALUE ...; whole numbers as such. ValueError for another form."""
    found: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ValueError(f"--slurm: found {text!r}, expected KEY=VALUE, as in partition=gpu")
        found[key.replace("-", "_")] = int(value) if value.isdecimal() else value
    return found


def connect(folder: Path, parameters: Mapping[str, object], *, cluster: str = "slurm") -> AutoExecutor:
    """Slurm's queue, with these parameters of submitit or sbatch; ValueError if there is none, or they are wrong.

    ``cluster``: "local" runs the jobs on this machine, for tests.
    """
    package = _submitit()
    prefixed = {key if key in GENERIC else f"slurm_{key}": value for key, value in parameters.items()}
    try:
        limits = {"slurm_max_num_timeout": TIME_LIMITS, "local_max_num_timeout": TIME_LIMITS}
        executor = package.AutoExecutor(folder / FOLDER, cluster=cluster, **limits)
        executor.update_parameters(**prefixed)
    except (NameError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"--engine slurm: {one_line(error)}") from error
    return executor


def train_all(
    plan: Plan,
    folder: Path,
    *,
    parameters: Mapping[str, object],
    retry_failed: bool = False,
    trainer: Sequence[str] = TRAINER,
    after_seed: Callable[[int], None] = lambda seeds: None,
    cluster: str = "slurm",
) -> None:
    """Submit the remaining runs of the plan and wait for them; raises as ``comparison.runner.train_all`` does."""
    executor = connect(folder, parameters, cluster=cluster)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # of the jobs, which get this environment
    groups = remaining(plan, folder, retry_failed=retry_failed)
    with Progress(plan, folder, trainer=trainer, after_seed=after_seed) as progress, stop_signals() as signals:
        jobs = progress.jobs
        pending: dict[Any, PlannedRun] = {}
        for run in itertools.chain(*groups):
            progress.note_start(jobs[run])
            pending[executor.submit(Task(jobs[run]))] = run
        try:
            while pending:
                for task in [each for each in pending if each.done()]:
                    run = pending.pop(task)
                    if progress.ended(jobs[run], jobs[run].conclude(_exit_code(task))):
                        pending[executor.submit(Task(jobs[run]))] = run
                if signals:
                    raise Interrupted(signals[0])
                progress.update([jobs[run] for task, run in pending.items() if task.state == "RUNNING"])
                time.sleep(POLL_SECONDS)
        finally:
            _cancel(list(pending))


def _exit_code(task: Any) -> int:
    """The exit code of a run; that of SIGKILL if its job ended without one. RuntimeError if it could not start."""
    errors = _submitit().core.utils
    try:
        return task.result()
    except errors.FailedJobError as error:
        trace = str(task.paths.stderr)
        raise RuntimeError(f"Slurm job {task.job_id} could not start its run, see {trace}") from error
    except errors.UncompletedJobError:
        return -signal.SIGKILL


def _cancel(tasks: Sequence[Any]) -> None:
    """End these jobs, and wait until their runs are saved."""
    for task in tasks:
        with contextlib.suppress(OSError):
            task.cancel(check=False)
    end = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < end and not all(task.done(force_check=True) for task in tasks):
        time.sleep(POLL_SECONDS)
