"""Runs as jobs of submitit, on its local executor: jobs that end, are preempted, lost or cancelled."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comparison import slurm_runner
from comparison.runner import Interrupted, read_outcome
from comparison.slurm_runner import FOLDER, connect, read_parameters
from core.files import is_locked
from tests.comparison.test_runner import STUB, behave, plan_of, started, wait_for

submitit = pytest.importorskip("submitit", reason="uv sync --extra slurm")


def train(plan: Any, folder: Path) -> None:
    slurm_runner.train_all(plan, folder, parameters={"timeout_min": 10}, trainer=STUB, cluster="local")


def in_thread(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


@pytest.mark.slow
def test_each_run_is_a_job(tmp_path: Path) -> None:
    plan, complete = plan_of("relu", "mish", seeds=(0, 1)), []
    behave(tmp_path, mish_s1={"fail": True})
    slurm_runner.train_all(plan, tmp_path, parameters={}, trainer=STUB, cluster="local", after_seed=complete.append)
    runs = {(run.act, run.seed): run.status for run in read_outcome(plan, tmp_path)}
    assert runs == {("relu", 0): "finished", ("mish", 0): "finished", ("relu", 1): "finished", ("mish", 1): "failed"}
    assert complete[-1] == 2 and len({each["parent"] for each in started(tmp_path)}) == 4
    assert list((tmp_path / FOLDER).glob("*_submitted.pkl"))


@pytest.mark.slow
def test_a_preempted_job_resumes_from_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, tasks = plan_of("relu", "mish", seeds=(0,), epochs=6), []
    behave(tmp_path, relu_s0={"seconds": 0.5})
    submit = submitit.AutoExecutor.submit

    def noted(*arguments: Any) -> Any:
        tasks.append(submit(*arguments))
        return tasks[-1]

    monkeypatch.setattr(submitit.AutoExecutor, "submit", noted)

    def preempt() -> None:
        wait_for(lambda: (tmp_path / "relu-s0/results.csv").is_file())
        parent = next(each["parent"] for each in started(tmp_path) if each["cell"] == "relu-s0")
        os.kill(parent, signal.SIGUSR2)  # as Slurm sends it to the steps of a job

    thread = in_thread(preempt)
    train(plan, tmp_path)
    thread.join()
    ways = [each["how"] for each in started(tmp_path) if each["cell"] == "relu-s0"]
    assert ways == ["--cfg", "--resume"] and len(tasks) == 2  # not submitted anew
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"}
    assert [row["epoch"] for row in read_outcome(plan, tmp_path)[0].rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_lost_job_is_submitted_again(tmp_path: Path) -> None:
    plan = plan_of("relu", "mish", seeds=(0,), epochs=4)
    behave(tmp_path, relu_s0={"seconds": 0.5})

    def kill() -> None:
        wait_for(lambda: (tmp_path / "relu-s0/results.csv").is_file())
        parent = next(each["parent"] for each in started(tmp_path) if each["cell"] == "relu-s0")
        os.kill(parent, signal.SIGKILL)

    thread = in_thread(kill)
    train(plan, tmp_path)
    thread.join()
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"}
    assert [row["epoch"] for row in read_outcome(plan, tmp_path)[0].rows] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_stopped_comparison_cancels_its_jobs_and_resumes(tmp_path: Path) -> None:
    plan = plan_of("relu", "mish", seeds=(0,), epochs=400)
    behave(tmp_path, relu_s0={"seconds": 0.2}, mish_s0={"seconds": 0.2})

    def interrupt() -> None:
        wait_for(lambda: all((tmp_path / name / "results.csv").is_file() for name in ("relu-s0", "mish-s0")))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = in_thread(interrupt)
    with pytest.raises(Interrupted):
        train(plan, tmp_path)
    thread.join()
    assert not any(is_locked(tmp_path / name) for name in ("relu-s0", "mish-s0"))
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"unfinished"}
    behave(tmp_path)
    train(plan, tmp_path)
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"}


def test_wrong_parameters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_parameters(["partition=gpu", "cpus-per-task=8"]) == {"partition": "gpu", "cpus_per_task": 8}
    for text in ("gpu", "=3", "partition="):
        with pytest.raises(ValueError, match="--slurm: found .*expected KEY=VALUE"):
            read_parameters([text])
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun
    with pytest.raises(ValueError, match="^--engine slurm: .*srun") as error:
        connect(tmp_path, {})
    assert "\n" not in str(error.value)
    for wrong in ({"partitoin": "gpu"}, {"timeout_min": "long"}):
        with pytest.raises(ValueError, match="^--engine slurm: ") as error:
            connect(tmp_path, wrong, cluster="local")
        assert "\n" not in str(error.value)
