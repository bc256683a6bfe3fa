"""Train the runs of a plan on a Ray cluster: each run is a task that takes a GPU, or a CPU if there are none.

All machines see the comparison's folder and this repository under the same paths. A task reads its state from the
folder, so if a worker or its machine is lost, another one resumes its run.
"""

import itertools
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from comparison.job import GRACE_SECONDS, POLL_SECONDS, ROOT, TRAINER, train_here
from comparison.plan import Plan, PlannedRun
from comparison.progress import Progress
from comparison.runner import Interrupted, remaining, stop_signals

RETRIES = 5  # of a run whose worker is lost


def connect() -> ModuleType:
    """The ray package, connected to RAY_ADDRESS, to a cluster on this machine, or to a new local one."""
    try:
        import ray
    except ImportError:
        raise ValueError("--engine ray: Ray is not installed; uv sync --extra ray, or pip install ray") from None
    if not ray.is_initialized():
        paths = {"env_vars": {"PYTHONPATH": str(ROOT)}}
        ray.init(runtime_env=paths, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    return ray


def train_all(
    plan: Plan,
    folder: Path,
    *,
    retry_failed: bool = False,
    gpus_per_run: int = 1,
    trainer: Sequence[str] = TRAINER,
    after_seed: Callable[[int], None] = lambda seeds: None,
) -> None:
    """Train the remaining runs of the plan on the whole cluster; raises as ``comparison.runner.train_all`` does."""
    ray = connect()
    gpus = gpus_per_run if ray.cluster_resources().get("GPU") else 0
    if gpus_per_run > 1 and not gpus:
        raise ValueError(f"--gpus-per-run {gpus_per_run}: the Ray cluster has no GPU")
    task = ray.remote(train_here).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
    groups = remaining(plan, folder, retry_failed=retry_failed)
    with Progress(plan, folder, trainer=trainer, after_seed=after_seed) as progress, stop_signals() as signals:
        jobs = progress.jobs
        pending: dict[object, PlannedRun] = {}
        for run in itertools.chain(*groups):
            progress.note_start(jobs[run])
            pending[task.remote(jobs[run])] = run
        try:
            while pending:
                ended, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
                for reference in ended:
                    run = pending.pop(reference)
                    if progress.ended(jobs[run], jobs[run].conclude(_exit_code(ray, reference))):
                        pending[task.remote(jobs[run])] = run
                if signals:
                    raise Interrupted(signals[0])
                progress.update([jobs[run] for run in pending.values()])
        finally:
            for reference in pending:
                ray.cancel(reference)
            if pending:
                ray.wait(list(pending), num_returns=len(pending), timeout=GRACE_SECONDS)


def _exit_code(ray: ModuleType, reference: object) -> int:
    """The exit code of a run; that of SIGKILL if its worker was lost more often than tasks are retried."""
    try:
        return ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
        return -signal.SIGKILL
