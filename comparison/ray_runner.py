"""The runs of a plan on a Ray cluster: the same runs and folders, each a task that takes a GPU, or a CPU without any.

All machines see the comparison's folder and this repository under the same paths. A task reads from the folder what is
to be done, so where a worker or its machine is lost, another one goes on with its run, and the others lose nothing.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comparison.job import GRACE_SECONDS, ROOT, TRAINER, Job, conclude, job, launch, stop
from comparison.plan import Cell, Plan
from comparison.progress import Watch
from comparison.runner import POLL_SECONDS, Interrupted, left_over, signals
from core.files import is_locked

RETRIES = 5  # of a run whose worker is lost


def train_one(own: Job) -> int:
    """Train or go on with a run on the worker that this is called on; its exit code, 0 where it is finished already."""
    while is_locked(own.folder):  # the training of a lost worker lives on
        time.sleep(POLL_SECONDS)
    if own.status() == "finished":
        return 0
    process = launch(own)
    try:
        while process.poll() is None:  # a wait in the system would not be interrupted by Ray
            time.sleep(POLL_SECONDS)
        return process.returncode
    finally:
        stop(process)  # where Ray cancels the task, by an exception of its choice


def connect() -> Any:
    """The ray package, connected to RAY_ADDRESS, to a cluster on this machine, or to one made for this process."""
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
    trainer: Sequence[str] = TRAINER,
    after_block: Callable[[int], None] = lambda blocks: None,
) -> None:
    """Train what is left of the plan on all of the cluster; raises as ``comparison.runner.train_all`` does."""
    ray = connect()
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(train_one).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)

    def submit(cell: Cell) -> Any:
        return task.remote(job(plan, cell, folder, trainer=trainer))

    pending = {submit(cell): cell for block in left_over(plan, folder, retry_failed=retry_failed) for cell in block}
    with Watch(plan, folder, after_block=after_block) as watch, signals() as asked:
        try:
            while pending:
                ended, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
                for reference in ended:
                    cell = pending.pop(reference)
                    own = job(plan, cell, folder, trainer=trainer)
                    if watch.ended(own, conclude(own, _code(ray, reference))) == "again":
                        pending[submit(cell)] = cell
                if asked:
                    raise Interrupted(asked[0])
                watch.show([watch.jobs[cell] for cell in pending.values()])
        finally:
            for reference in pending:
                ray.cancel(reference)
            if pending:
                ray.wait(list(pending), num_returns=len(pending), timeout=GRACE_SECONDS)


def _code(ray: Any, reference: Any) -> int:
    """The exit code of a run; as of one killed where its worker was lost more often than tasks are tried again."""
    try:
        return ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
        return -9
