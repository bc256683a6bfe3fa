"""train.py in several processes: one folder, one message, one exit code, whatever ends them; and how they go on."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comparison.runs import read_rows
from tests.support.checkpoints import write_data
from tests.support.processes import ROOT, TIMEOUT, output_of, start_together, wait_for
from tests.support.training import SMALL

pytestmark = pytest.mark.slow

SECONDS = 60  # in which the others end after one was killed; a few on a quiet machine
TRAIN = ROOT / "tests" / "support" / "quick_train.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), train=7, val=3)


def words(data: Path, folder: Path, *, epochs: int = 2, batch: int = 2) -> list[object]:
    """The arguments of a short training into folder/run."""
    brief = ("--imgsz", 64, "--batch", batch, "--workers", 0, "--no-amp", "--seed", 3, "--epochs", epochs)
    return ["--cfg", SMALL, "--data", data, *brief, "--device", "cpu", "--project", folder, "--name", "run"]


def wait_until(happened: Callable[[], bool], running: list[subprocess.Popen]) -> None:
    start = time.monotonic()
    while not happened():
        assert time.monotonic() - start < TIMEOUT and all(each.poll() is None for each in running)
        time.sleep(0.05)


def rows(folder: Path) -> list[dict[str, float]]:
    """The rows of results.csv without times, memory and load."""
    measured = ("time_", "images_per_s", "step_median", "peak_", "other_", "energy")
    return [
        {name: value for name, value in row.items() if not name.startswith(measured)}
        for row in read_rows(folder / "run" / "results.csv")
    ]


def test_a_device_for_each_process(data: Path, warm_python: str, tmp_path: Path) -> None:
    """--device cpu,cpu starts two processes, which leave one run, the same as that of torchrun's variables."""
    command = [warm_python, TRAIN, *words(data, tmp_path), "--device", "cpu,cpu"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.count("epoch 2/2") == 1 and done.stdout.count("try next") == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    processes = record["starts"][0]["processes"]
    assert (processes["world_size"], processes["backend"], processes["sync_bn"]) == (2, "gloo", True)
    assert [machine["ranks"] for machine in processes["machines"]] == [[0, 1]]
    assert 0 < record["allreduce_share"] < 1
    other = tmp_path / "other"
    other.mkdir()
    codes = wait_for(start_together(2, warm_python, TRAIN, *words(data, other), folder=other))
    assert codes == [0, 0] and output_of(1, other) == ""
    assert rows(other) == rows(tmp_path)
    assert (other / "run" / "predictions.json").read_bytes() == (tmp_path / "run" / "predictions.json").read_bytes()


def test_a_killed_process_ends_the_others_and_another_number_goes_on(
    data: Path, warm_python: str, tmp_path: Path
) -> None:
    started = start_together(2, warm_python, TRAIN, *words(data, tmp_path, epochs=30), folder=tmp_path)
    wait_until((tmp_path / "run" / "results.csv").is_file, started)
    started[1].kill()
    start = time.monotonic()
    assert wait_for(started)[0] == 1
    assert time.monotonic() - start < SECONDS
    said = output_of(0, tmp_path)
    assert said.count("error: ") == 1 and "another process of the training has ended" in said
    assert "Traceback" not in said and "--resume run/weights/last.pt" in said
    before = len(rows(tmp_path))
    resume = start_together(1, warm_python, TRAIN, "--resume", tmp_path / "run", folder=tmp_path)
    wait_until(lambda: len(rows(tmp_path)) > before, resume)
    resume[0].send_signal(signal.SIGTERM)
    assert wait_for(resume) == [128 + signal.SIGTERM]
    starts = json.loads((tmp_path / "run" / "run.json").read_text())["starts"]
    assert [each.get("processes", {}).get("world_size") for each in starts] == [2, None]


def test_a_signal_to_one_process_stops_all_and_they_go_on_as_if_never_stopped(
    data: Path, warm_python: str, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    assert wait_for(start_together(2, warm_python, TRAIN, *words(data, whole, epochs=4), folder=whole)) == [0, 0]
    started = start_together(2, warm_python, TRAIN, *words(data, tmp_path, epochs=4), folder=tmp_path)
    wait_until((tmp_path / "run" / "results.csv").is_file, started)
    started[1].send_signal(signal.SIGTERM)
    assert wait_for(started) == [128 + signal.SIGTERM] * 2
    assert output_of(0, tmp_path).count("stopped at epoch") == 1 and output_of(1, tmp_path) == ""
    again = start_together(2, warm_python, TRAIN, "--resume", tmp_path / "run", folder=tmp_path)
    assert wait_for(again) == [0, 0]
    assert rows(tmp_path) == rows(whole)


def test_torchrun_restarts_go_on_from_the_last_checkpoint(data: Path, warm_python: str, tmp_path: Path) -> None:
    torchrun = (warm_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 2)
    command = [*torchrun, TRAIN, *words(data, tmp_path, epochs=4)]
    with open(tmp_path / "log", "w") as log:
        running = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=tmp_path)
    try:
        wait_until((tmp_path / "run" / "results.csv").is_file, [running])
        kill_one(TRAIN, tmp_path)
        assert running.wait(TIMEOUT) == 0, (tmp_path / "log").read_text()
    finally:
        running.kill()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]
    starts = json.loads((tmp_path / "run" / "run.json").read_text())["starts"]
    assert len(starts) == 2 and starts[1]["epoch"] > 1
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3, 4]


def kill_one(script: Path, folder: Path) -> None:
    """Kill a process that trains into a folder."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if str(script) in line and str(folder) in line and "torch.distributed.run" not in line:
            process.kill()
            return
    raise AssertionError("no process trains there")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--batch", 3), "train.batch: found 3; expected a multiple of the 2 processes, such as 4"),
        (("--device", "0,cpu"), "device '0,cpu': expected different GPU numbers"),
        (("--compile",), "train.compile: several processes train without it"),
        (("--set", "model.act=mush"), "mush"),
    ],
)
def test_wrong_input_is_reported_once(more: tuple, message: str, data: Path, warm_python: str, tmp_path: Path) -> None:
    started = start_together(2, warm_python, TRAIN, *words(data, tmp_path), *more, folder=tmp_path)
    assert wait_for(started) == [2, 2]
    said = output_of(0, tmp_path) + output_of(1, tmp_path)
    assert said.count("error:") == 1 and message in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_diverging_loss_ends_all(data: Path, warm_python: str, tmp_path: Path) -> None:
    more = ("--lr0", 1e30, "--optimizer", "sgd")
    started = start_together(2, warm_python, TRAIN, *words(data, tmp_path), *more, folder=tmp_path)
    assert wait_for(started) == [1, 1]
    assert output_of(0, tmp_path).count("the loss is not finite") == 1
    assert "the loss" not in output_of(1, tmp_path)  # PyTorch may say there that the store of rank 0 has gone
    assert "diverged" in json.loads((tmp_path / "run" / "run.json").read_text())
