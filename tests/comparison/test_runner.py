"""Order of the runs, several devices, failures, kills and resuming, with a stub for train.py."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from comparison import job, ray_runner
from comparison.job import DiskFull
from comparison.plan import Plan, make_plan
from comparison.runner import Interrupted, group_gpus, list_gpus, read_outcome, train_all
from comparison.runs import read_run
from core.files import is_locked

STUB = (sys.executable, str(Path(__file__).with_name("stub_trainer.py")))
ROOT = Path(__file__).parents[2]


def plan_of(*acts: str, seeds: tuple[int, ...] = (0, 1), epochs: int = 2) -> Plan:
    specs = {act: {"model.act": act} for act in acts}
    return make_plan(
        acts=acts, baseline=acts[0], seeds=seeds, cfg="yolo.yaml", arms=specs, epochs=dict.fromkeys(acts, epochs)
    )


def behave(folder: Path, **cells: dict) -> None:
    folder.mkdir(exist_ok=True)
    named = {name.replace("_", "-"): value for name, value in cells.items()}
    (folder / "behaviour.json").write_text(json.dumps(named))


def started(folder: Path) -> list[dict]:
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in (folder / "started.jsonl").read_text().splitlines()]
    return []


def cells(folder: Path) -> list[str]:
    return [each["cell"] for each in started(folder)]


@pytest.mark.slow
def test_runs_are_ordered_by_seed_with_a_rotated_start(tmp_path: Path) -> None:
    complete: list[int] = []
    plan = plan_of("relu", "silu", "mish", seeds=(0, 4, 7))
    train_all(plan, tmp_path, trainer=STUB, after_seed=complete.append)
    order = "relu-s0 silu-s0 mish-s0 silu-s4 mish-s4 relu-s4 mish-s7 relu-s7 silu-s7"
    assert cells(tmp_path) == order.split()
    assert complete == [1, 2, 3]
    assert [(run.act, run.seed, run.status) for run in read_outcome(plan, tmp_path)] == [
        (act, seed, "finished") for act in ("relu", "silu", "mish") for seed in (0, 4, 7)
    ]


@pytest.mark.slow
def test_failed_runs_are_kept_unless_retried(tmp_path: Path) -> None:
    behave(tmp_path, mish_s0={"fail": True})
    plan = plan_of("relu", "mish")
    train_all(plan, tmp_path, trainer=STUB)
    assert len(cells(tmp_path)) == 4
    failed = read_run(tmp_path / "mish-s0")
    assert (failed.status, failed.reason) == ("failed", "train.py: error: the loss is not finite (exit code 1)")
    train_all(plan, tmp_path, trainer=STUB)
    assert len(cells(tmp_path)) == 4
    behave(tmp_path)
    train_all(plan, tmp_path, trainer=STUB, retry_failed=True)
    assert cells(tmp_path)[4:] == ["mish-s0"] and started(tmp_path)[4]["how"] == "--cfg"
    retried = read_run(tmp_path / "mish-s0")
    assert retried.status == "finished" and retried.earlier_failures == (failed.reason,)


@pytest.mark.slow
def test_killed_runs_are_resumed_twice(tmp_path: Path) -> None:
    behave(tmp_path, relu_s0={"dies": 2}, mish_s0={"dies": 9})
    train_all(plan_of("relu", "mish", seeds=(0,), epochs=9), tmp_path, trainer=STUB)
    assert Counter(cells(tmp_path)) == {"relu-s0": 3, "mish-s0": 3}
    assert [each["how"] for each in started(tmp_path)[:3]] == ["--cfg", "--resume", "--resume"]
    assert read_run(tmp_path / "relu-s0").status == "finished"
    assert (run := read_run(tmp_path / "mish-s0")).status == "failed" and "killed 3 times" in run.reason


def test_a_usage_error_ends_the_comparison(tmp_path: Path) -> None:
    behave(tmp_path, relu_s0={"usage": True})
    with pytest.raises(ValueError, match="relu-s0: .*the data are not there"):
        train_all(plan_of("relu", "mish"), tmp_path, trainer=STUB)
    assert cells(tmp_path) == ["relu-s0"]


@pytest.mark.slow
def test_a_full_disk_ends_the_comparison_and_is_no_outcome(tmp_path: Path) -> None:
    behave(tmp_path, relu_s0={"full": True})
    plan = plan_of("relu", "mish", seeds=(0,))
    with pytest.raises(DiskFull, match="relu-s0: .*No space left"):
        train_all(plan, tmp_path, trainer=STUB)
    assert cells(tmp_path) == ["relu-s0"] and not (tmp_path / "relu-s0/failure.json").exists()
    behave(tmp_path)
    train_all(plan, tmp_path, trainer=STUB)
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"}


@pytest.mark.slow
def test_a_run_without_progress_is_reported_and_ended_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seconds in (("QUIET_SECONDS", 1.0), ("STALLED_SECONDS", 2.5), ("STALL_GRACE_SECONDS", 0.1)):
        monkeypatch.setattr(job, name, seconds)
    behave(tmp_path, relu_s0={"hangs": True})
    plan = plan_of("relu", "mish", seeds=(0,))
    train_all(plan, tmp_path, trainer=STUB)
    assert cells(tmp_path) == ["relu-s0", "mish-s0"] and not is_locked(tmp_path / "relu-s0")
    failed, other = (read_run(tmp_path / name) for name in ("relu-s0", "mish-s0"))
    assert (failed.status, other.status) == ("failed", "finished") and "no progress" in failed.reason
    said = [line for line in capsys.readouterr().out.splitlines() if "no progress" in line]
    assert len(said) == 2 and "ended as failed after 2.5 s" in said[0] and "FAILED" in said[1]


@pytest.mark.parametrize(
    ("rows", "quiet", "expected"),
    [
        ((), 299, ("", False)),
        ((), 301, ("no epoch has ended yet", False)),
        ((), 1801, ("ended", True)),
        ((200.0, 150.0), 599, ("", False)),  # three epochs of the longest
        ((200.0, 150.0), 601, ("3 min 20 s", False)),
        ((200.0, 150.0), 1999, ("3 min 20 s", False)),
        ((200.0, 150.0), 2001, ("ended", True)),
    ],
)
def test_how_long_a_run_may_be_quiet(
    rows: tuple[float, ...], quiet: float, expected: tuple[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(job.time, "monotonic", lambda: now[0])
    plan = plan_of("relu", "mish")
    made = job.make_job(plan, plan.runs[0], tmp_path)
    made.folder.mkdir()
    lines = [f"{number},{seconds - 50},50" for number, seconds in enumerate(rows, 1)]
    (made.folder / "results.csv").write_text("\n".join(["epoch,time_train_s,time_val_s", *lines, ""]))
    heartbeat = job.Heartbeat(made)
    now[0] = quiet
    line, stalled = heartbeat.check()
    assert expected[0] in line and bool(line) == bool(expected[0]) and stalled == expected[1]
    made.log.parent.mkdir()
    made.log.write_text("a line")  # a sign of life
    assert heartbeat.check() == ("", False)
    now[0] += 298
    assert heartbeat.check() == ("", False)


# ------------------------------------------------------------------------------------------------------- interruption

CALL = """
import sys
from pathlib import Path
from comparison.plan import Plan
from comparison.runner import Interrupted, train_all
plan = Plan.model_validate_json(Path(sys.argv[1], "given.json").read_text())
try:
    train_all(plan, Path(sys.argv[1]), trainer=sys.argv[2:])
except Interrupted as stopped:
    sys.exit(128 + stopped.number)
"""


def call(plan: Plan, folder: Path) -> subprocess.Popen:
    """The same in a separate process, to be stopped or killed."""
    (folder / "given.json").write_text(plan.model_dump_json())
    words = [sys.executable, "-c", CALL, str(folder), *STUB]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_comparison_saves_and_resumes(tmp_path: Path, number: int) -> None:
    behave(tmp_path, mish_s0={"seconds": 0.3})
    plan = plan_of("relu", "mish", epochs=5)
    process = call(plan, tmp_path)
    wait_for(lambda: (tmp_path / "mish-s0/results.csv").is_file())
    process.send_signal(number)
    assert process.wait(120) == 128 + number
    assert not is_locked(tmp_path / "mish-s0") and cells(tmp_path) == ["relu-s0", "mish-s0"]
    assert read_run(tmp_path / "mish-s0").status == "unfinished"
    train_all(plan, tmp_path, trainer=STUB)
    assert cells(tmp_path)[2:] == ["mish-s0", "mish-s1", "relu-s1"] and started(tmp_path)[2]["how"] == "--resume"
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"}


def test_each_run_is_asked_to_stop_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second SIGTERM ends a training at once, before it is saved."""
    asked: list[int] = []

    class Training:
        def __init__(self, number: int) -> None:
            self.number, self.code = number, None

        def poll(self) -> int | None:
            return self.code

        def terminate(self) -> None:
            asked.append(self.number)

        def wait(self, timeout: float | None = None) -> int:
            assert sorted(asked) == [0, 1]  # both are asked before either is waited for
            self.code = 143
            return 143

    trainings = iter([Training(0), Training(1)])
    monkeypatch.setattr(job.Job, "launch", lambda self: next(trainings))
    sender = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    sender.start()
    with pytest.raises(Interrupted):
        train_all(plan_of("relu", "mish"), tmp_path, at_once=2, trainer=STUB)
    assert sorted(asked) == [0, 1]


@pytest.mark.slow
def test_a_killed_comparison_leaves_a_run_that_the_next_call_waits_for(tmp_path: Path) -> None:
    behave(tmp_path, relu_s0={"seconds": 0.3})
    plan = plan_of("relu", "mish", seeds=(0,), epochs=6)
    process = call(plan, tmp_path)
    wait_for(lambda: (tmp_path / "relu-s0/results.csv").is_file())
    process.kill()
    process.wait()
    assert is_locked(tmp_path / "relu-s0")
    train_all(plan, tmp_path, trainer=STUB)
    assert cells(tmp_path) == ["relu-s0", "mish-s0"]
    assert [row["epoch"] for row in read_run(tmp_path / "relu-s0").rows] == [1, 2, 3, 4, 5, 6]


# ------------------------------------------------------------------------------------------------------ several devices


@pytest.mark.slow
def test_each_gpu_takes_a_seed_group(tmp_path: Path) -> None:
    names = [f"{act}-s{seed}" for act in ("relu", "mish") for seed in range(4)]
    behave(tmp_path, **{name.replace("-", "_"): {"seconds": 0.15} for name in names})
    plan = plan_of("relu", "mish", seeds=(0, 1, 2, 3))
    train_all(plan, tmp_path, gpus=("0", "3"), trainer=STUB)
    starts = started(tmp_path)
    by_seed = {
        seed: {each["gpu"] for each in starts if each["cell"].endswith(seed)} for seed in ("s0", "s1", "s2", "s3")
    }
    assert all(len(gpus) == 1 for gpus in by_seed.values())
    assert by_seed["s0"] != by_seed["s1"] and set.union(*by_seed.values()) == {"0", "3"}
    assert sorted(cells(tmp_path)) == sorted(names)
    assert {each["cell"] for each in starts[:2]} == {"relu-s0", "mish-s1"}  # side by side, not one behind the other


@pytest.mark.slow
@pytest.mark.parametrize(("given", "threads"), [(None, "3"), ("2", "2")])
def test_runs_side_by_side_share_the_cores(
    given: str | None, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comparison.runner.usable_cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    plan = plan_of("relu", "mish", seeds=(0, 1), epochs=3)
    behave(tmp_path, **{run.name.replace("-", "_"): {"seconds": 0.5} for run in plan.runs})
    train_all(plan, tmp_path, at_once=2, trainer=STUB)
    starts = started(tmp_path)
    assert [each["cell"] for each in starts[2:]] and {each["threads"] for each in starts} == {threads}
    assert starts[1]["time"] - starts[0]["time"] < 1.5 <= starts[2]["time"] - starts[0]["time"]  # two at a time
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"} and len(starts) == 4


@pytest.mark.parametrize(
    ("device", "lines", "visible", "expected"),
    [
        (None, "GPU 0: H100\nGPU 1: H100\n", None, ("0", "1")),
        (None, "GPU 0: H100\n", None, ()),
        (None, "", None, ()),
        (None, "GPU 0: H100\nGPU 1: H100\n", "1", ()),
        (None, "", "2,5", ("2", "5")),
        ("cpu", "GPU 0: H100\nGPU 1: H100\n", None, ()),
        ("1", "GPU 0: H100\nGPU 1: H100\n", None, ()),
        ("0,2", "", None, ("0", "2")),
    ],
)
def test_list_gpus(device, lines, visible, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list_gpus(device, nvidia_smi=lambda: lines) == expected


@pytest.mark.parametrize(("each", "expected"), [(2, ("0,1", "2,3")), (4, ("0,1,2,3",)), (1, ("0", "1", "2", "3"))])
def test_gpus_are_grouped(each: int, expected: tuple[str, ...]) -> None:
    assert group_gpus(("0", "1", "2", "3"), each, engine="local") == expected


def test_gpus_that_make_no_groups_are_refused() -> None:
    for gpus, each in (((), 2), (("0", "1", "2"), 2), (("0", "1"), 0)):
        with pytest.raises(ValueError, match="--gpus-per-run"):
            group_gpus(gpus, each, engine="local")


@pytest.mark.parametrize("device", ["0,0", "0,cuda", "cpu,0"])
def test_invalid_gpus(device: str) -> None:
    with pytest.raises(ValueError, match="--device"):
        list_gpus(device)


# ---------------------------------------------------------------------------------------------------------------- Ray


@pytest.fixture(scope="module")
def two_workers():
    ray = pytest.importorskip("ray", reason="Ray is not installed: uv sync --extra ray")
    import logging

    paths = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=2, runtime_env=paths, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    yield ray
    ray.shutdown()


def test_a_lost_ray_worker_costs_only_its_current_run(tmp_path: Path, two_workers) -> None:
    plan = plan_of("relu", "mish", seeds=(0, 1), epochs=4)
    behave(tmp_path, **{f"{act}_s{seed}": {"seconds": 0.5} for act in ("relu", "mish") for seed in (0, 1)})
    lost: list[str] = []

    def kill_one() -> None:
        wait_for(lambda: started(tmp_path))
        victim = started(tmp_path)[0]
        wait_for(lambda: (tmp_path / victim["cell"] / "results.csv").is_file())
        os.kill(victim["parent"], signal.SIGKILL)
        lost.append(victim["cell"])

    killer = threading.Thread(target=kill_one)
    killer.start()
    ray_runner.train_all(plan, tmp_path, trainer=STUB)
    killer.join()
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"} and len(
        read_outcome(plan, tmp_path)
    ) == 4
    again = [name for name, count in Counter(cells(tmp_path)).items() if count > 1]
    assert len(lost) == 1 and again in ([], lost)  # its training lives on and is waited for, or was taken along
    for run in read_outcome(plan, tmp_path):
        assert [row["epoch"] for row in run.rows] == [1, 2, 3, 4]
    assert len({each["parent"] for each in started(tmp_path)}) > 1


def test_a_comparison_stopped_on_ray_saves_and_resumes(tmp_path: Path, two_workers) -> None:
    plan = plan_of("relu", "mish", seeds=(0,), epochs=400)
    behave(tmp_path, relu_s0={"seconds": 0.2}, mish_s0={"seconds": 0.2})

    def interrupt() -> None:
        wait_for(lambda: all((tmp_path / name / "results.csv").is_file() for name in ("relu-s0", "mish-s0")))
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=interrupt)
    stopper.start()
    with pytest.raises(Interrupted):
        ray_runner.train_all(plan, tmp_path, trainer=STUB)
    stopper.join()
    assert not any(is_locked(tmp_path / name) for name in ("relu-s0", "mish-s0"))
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"unfinished"}
    behave(tmp_path)
    ray_runner.train_all(plan, tmp_path, trainer=STUB)
    assert [each["how"] for each in started(tmp_path)[2:]] == ["--resume", "--resume"]
    assert {run.status for run in read_outcome(plan, tmp_path)} == {"finished"}
