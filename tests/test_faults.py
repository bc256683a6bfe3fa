"""Faults in the middle of a training: each leaves a usable checkpoint and one clear message on stderr."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from data.recent_images import RecentImages
from data.samples import TrainSamples
from engine.checkpoint import load_checkpoint
from engine.trainer import Trainer
from tests.stress.kills import ROOT, differing
from tests.support.checkpoints import write_data
from tests.support.scripts import run, tree
from tests.support.training import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]

OPTIONS = (
    *("--cfg", SMALL, "--imgsz", 64, "--batch", 2, "--epochs", 2, "--workers", 0, "--seed", 3, "--no-amp"),
    *("--noval", "--set", "model.neck.act=rrelu"),
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path, train=6)


def before_step(number: int, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Let something happen before a step, of three an epoch."""
    one_step, steps = Trainer.one_step, []

    def disturbed(self: Trainer, *arguments: Any, **named: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == number:
            act()
        return one_step(self, *arguments, **named)

    patch.setattr(Trainer, "one_step", disturbed)


def start(data: Path, *more: object) -> int:
    return run(train.main, "train.py", *OPTIONS, "--data", data, *more)


def goes_on(data: Path, last: Path, epoch: int) -> None:
    """The checkpoint is whole, of the end of this epoch, and leads to where an undisturbed run ends."""
    assert load_checkpoint(last)["state"]["epoch"] == epoch
    assert run(train.main, "train.py", "--resume", last) == 0
    assert start(data, "--name", "whole") == 0
    assert differing(load_checkpoint(last), load_checkpoint("runs/train/whole/weights/last.pt")) in (
        [],
        [".config.train.cache"],
    )


@contextmanager
def limited(kind: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    assert all(word in error for word in words), error


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_a_full_disk(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))

    with monkeypatch.context() as patch, limited(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY):
        before_step(4, fill, patch)
        assert start(data) == 1
    one_line(capsys, "last.pt", "cannot be written", "too large", "--resume")
    assert not [path for path in (here / "runs/train/exp").rglob(".*") if path.name != ".lock"]
    goes_on(data, here / "runs/train/exp/weights/last.pt", epoch=1)


def test_a_removed_folder(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        before_step(2, lambda: shutil.rmtree(here / "runs"), patch)
        assert start(data) == 1
    one_line(capsys, "runs/train/exp", "removed", "written anew", "--resume")
    goes_on(data, here / "runs/train/exp/weights/last.pt", epoch=1)
    assert {"config.yaml", "run.json", "results.csv", "weights/best.pt"} <= set(tree(here / "runs/train/exp"))


def test_a_folder_that_cannot_be_made(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "taken").write_text("a file")
    assert start(data, "--project", "taken/deeper") == 2
    one_line(capsys, "taken")
    assert start(data, "--project", "/proc/runs") == 2
    one_line(capsys, "/proc/runs")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker(
    number: int, data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)

    with monkeypatch.context() as patch:
        before_step(4, kill, patch)
        assert start(data, "--workers", 2, "--set", "train.batch=1") == 1
    one_line(capsys, "worker", "--workers", "--resume")
    assert run(train.main, "train.py", "--resume", "--workers", 1) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_the_run(
    number: int, data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        before_step(4, stop, patch)
        assert start(data, "--workers", 2, "--set", "train.batch=1") == 128 + number
    assert "stopped at epoch 1, after batch 4 of 6" in capsys.readouterr().out
    assert run(train.main, "train.py", "--resume", "--workers", 0) == 0


def test_a_vanished_image(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = here / "shapes/images/train"
    with monkeypatch.context() as patch:
        before_step(4, lambda: images.rename(here / "away"), patch)
        patch.setattr(RecentImages, "fitting", lambda *_, **__: None)  # as where memory is short: all are read again
        assert start(data, "--cache", "off") == 1
    one_line(capsys, "images/train/", "does not exist", "--resume")
    (here / "away").rename(images)
    goes_on(data, here / "runs/train/exp/weights/last.pt", epoch=1)


STARVED = """
import resource, sys
from pathlib import Path
import torch
import train
from configs.cli import run_script
from engine.trainer import Trainer

one_step, steps = Trainer.one_step, []

def starved(self, *arguments, **named):
    steps.append(1)
    if len(steps) == 5:
        arguments[0].images = torch.zeros(2, 3, 1024, 1024, dtype=torch.uint8)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), resource.RLIM_INFINITY))
    return one_step(self, *arguments, **named)

Trainer.one_step = starved
run_script(lambda: train.main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_memory_that_runs_out(data: Path, here: Path, warm_python: str) -> None:
    """In a separate process: libraries do not all recover."""
    arguments = [warm_python, "-c", STARVED, *map(str, OPTIONS), "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, cwd=here, env=environment, capture_output=True, text=True)
    error = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    words = ("out of memory", "epoch 2, batch 2 of 3", "2 images of 64 pixels", "--batch 1", "--resume")
    assert all(word in error for word in words), error
    state = load_checkpoint(here / "runs/train/exp/weights/last.pt")["state"]
    assert (state["epoch"], state["batch"]) == (1, 0)


def test_two_runs_in_one_folder(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(data) == 0
    folder = here / "runs/train/exp"
    holder = (
        "import sys; from pathlib import Path; from core.files import lock_run_folder; "
        "held = lock_run_folder(Path(sys.argv[1])); print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    before = tree(folder)
    capsys.readouterr()
    assert start(data, "--exist-ok") == 2
    one_line(capsys, str(folder.relative_to(here)), str(other.pid), "--name")
    assert tree(folder) == before
    other.kill()
    other.wait()
    assert start(data, "--exist-ok") == 0  # the lock went with the process


def test_a_run_killed_before_its_summary_still_gets_it(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("engine.pictures.plots.plot_results", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert start(data) == 130
    folder = here / "runs/train/exp"
    assert not (folder / "predictions.json").exists()
    assert run(train.main, "train.py", "--resume", folder) == 0
    assert "mAP50-95" in capsys.readouterr().out and (folder / "predictions.json").exists()
    assert run(train.main, "train.py", "--resume", folder) == 2
    one_line(capsys, "finished")


def test_best_weights_that_were_removed(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary is then of the last epoch, and says so."""
    assert start(data) == 0
    folder = here / "runs/train/exp"
    (folder / "weights/best.pt").unlink()
    record = folder / "run.json"
    record.write_text(record.read_text().replace('"results"', '"earlier"'))
    assert run(train.main, "train.py", "--resume", folder) == 0
    assert "last epoch of 2" in capsys.readouterr().out


def test_an_error_after_the_loaders_are_built_is_one_line_too(tmp_path: Path, warm_python: str) -> None:
    """Objects kept from the garbage collector for the data workers are given back to it, or libraries report leaks."""
    data = write_data(tmp_path)
    (tmp_path / "foreign.weights").write_bytes(bytes(100))
    words = ["--cfg", SMALL, "--data", data, "--weights", tmp_path / "foreign.weights", "--workers", 2]
    command = [warm_python, str(ROOT / "train.py"), *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stderr.split("\r")[-1].strip()
    assert done.returncode == 2 and said.startswith("train.py: error: ") and len(said.splitlines()) == 1


def test_a_signal_while_workers_have_no_batch(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = TrainSamples.sample

    def stuck(self: TrainSamples, epoch: int, index: int) -> Any:
        if epoch:
            time.sleep(1000)
        return sample(self, epoch, index)

    def interrupt() -> None:
        while not (here / "runs/train/exp/results.csv").is_file():
            time.sleep(0.1)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainSamples, "sample", stuck)
        sender = threading.Thread(target=interrupt)
        sender.start()
        assert start(data, "--workers", 1) == 130
        sender.join()
    assert "stopped at epoch 2, after batch 0 of 3" in capsys.readouterr().out
    state = load_checkpoint(here / "runs/train/exp/weights/last.pt")["state"]
    assert (state["epoch"], state["batch"], float(state["loss_sums"].sum())) == (1, 0, 0)


BUSY = """
import sys, time
from torch.utils.data import DataLoader
from data.workers import WorkerContext, start_worker

class Items(list):
    def __getitem__(self, index):
        if index:
            time.sleep(1000)
        return index

batches = iter(DataLoader(Items([0, 1]), num_workers=1, multiprocessing_context=WorkerContext(),
                          worker_init_fn=start_worker, persistent_workers=True))
next(batches)
kept = [batches]
kept.append(kept)  # in a cycle, as an error keeps what it has passed through
print("failed", flush=True)
sys.exit(1)
"""


def test_a_program_ends_while_its_workers_are_busy(warm_python: str) -> None:
    """As after a full disk: at exit, Python waits for ever for workers that ignore SIGTERM."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([warm_python, "-c", BUSY], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "failed\n"
        assert process.wait(30) == 1
    finally:
        process.kill()


def test_validation_images_without_objects(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no mAP, so no epoch is the best: best.pt is the last one, and the run says so."""
    file = here / "shapes/annotations/val.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    assert run(train.main, "train.py", *OPTIONS[:-3], *OPTIONS[-2:], "--data", data, "--patience", 1) == 0
    out = capsys.readouterr().out
    weights = here / "runs/train/exp/weights"
    best, last = load_checkpoint(weights / "best.pt")["model"], load_checkpoint(weights / "last.pt")
    assert all(torch.equal(best[name], value) for name, value in last["ema"]["model"].items())
    assert (last["state"]["epoch"], last["state"]["best"], last["state"]["best_epoch"]) == (2, None, None)
    lines = [line for line in out.splitlines() if "without objects" in line]
    assert len(lines) == 2 and "removed" not in out and "-1" not in lines[1]
    assert json.loads((here / "runs/train/exp/run.json").read_text())["best_epoch"] is None
