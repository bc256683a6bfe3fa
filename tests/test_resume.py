"""Resuming: a run that was killed or stopped at any moment ends bit for bit as one that never was."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from configs.schema import load
from core.device import DeviceConfig
from engine.checkpoint import load_checkpoint
from engine.evaluation import evaluate as evaluation
from engine.run import TrainingRun
from engine.trainer import Trainer
from tests.stress.kills import differing
from tests.support.checkpoints import write_data
from tests.support.scripts import run, tree
from tests.support.training import SMALL, leave_out_pictures

pytestmark = pytest.mark.slow

OPTIONS = (
    *("--cfg", SMALL, "--imgsz", 64, "--batch", 1, "--nbs", 2, "--epochs", 3, "--workers", 0, "--seed", 3),
    *("--multi-scale", 0.5, "--close-mosaic", 1, "--patience", 2),
    *("--set", "model.neck.act=rrelu", "train.ema=0.3", "augment.mixup=0.5", "train.last_epoch_batches=2"),
)


class Short:
    """A run of three epochs, two steps each and one in the last, whole, and its checkpoints of the start and of the
    second epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, write_data(folder, train=4)
        self.first: dict[str, Any] = {}

    def start(self, *more: object) -> int:
        return run(train.main, "train.py", *OPTIONS, "--data", self.data, "--project", self.folder, *more)

    def load(self, name: str) -> dict[str, Any]:
        return load_checkpoint(self.last(name))

    def last(self, name: str) -> Path:
        return self.folder / name / "weights/last.pt"


def stop_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM come before a step."""
    one_step, steps = Trainer.one_step, []

    def interrupted(self: Trainer, *arguments: Any, **named: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(self, *arguments, **named)

    patch.setattr(Trainer, "one_step", interrupted)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """The scaler of fp16 at work on the CPU, its scale changing from step to step; a score that falls from epoch to
    epoch, so that the first stays the best; no pictures at the end."""
    end_epoch = TrainingRun.end_epoch

    def falling(self: TrainingRun, losses: dict[str, float], result: Any) -> None:
        result.stats.numbers["mAP50-95"] = 1 / (self.trainer.state.epoch + 1)
        end_epoch(self, losses, result)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeviceConfig, "needs_scaler", property(lambda self: True))
        patch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, growth_interval=2))
        patch.setattr(TrainingRun, "end_epoch", falling)
        patch.setattr("engine.final_results.finish", lambda run: {})
        leave_out_pictures(patch)
        yield patch


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Short:
    short = Short(tmp_path_factory.mktemp("short"))
    with pytest.MonkeyPatch.context() as once:
        save, kept = TrainingRun.save_last, short.first

        def keep_first(self: TrainingRun) -> None:
            save(self)
            if not kept:
                kept.update(load_checkpoint(self.folder / "weights/last.pt"))

        once.setattr(TrainingRun, "save_last", keep_first)
        assert short.start("--name", "whole") == 0
    with pytest.MonkeyPatch.context() as once:
        stop_at(5, once)  # of four an epoch: in the middle of an accumulation of two
        assert short.start("--name", "cut") == 128 + signal.SIGTERM
    assert (short.load("cut")["state"]["epoch"], short.load("cut")["state"]["batch"]) == (1, 2)
    return short


def test_the_last_epoch_ends_after_its_batches(short: Short) -> None:
    state = short.load("whole")["state"]
    assert [row["step"] for row in state["rows"]] == [2, 4, 5]
    rates, peak = [row["lr"] for row in state["rows"]], load("yolo.yaml").train.lr
    assert rates[2] < rates[1] and rates[2] == pytest.approx(0.01 * peak + 0.99 * peak * 0.0955, rel=1e-3)


def resumed(short: Short, name: str, content: dict[str, Any], *more: object) -> dict[str, Any]:
    """The end of the cut run, resumed from this checkpoint in a new folder."""
    shutil.copytree(short.folder / "cut", short.folder / name)
    torch.save(content, short.last(name))
    assert run(train.main, "train.py", "--resume", short.last(name), *more) == 0
    return short.load(name)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_goes_on_alike(short: Short, workers: int) -> None:
    end = resumed(short, f"workers{workers}", short.load("cut"), "--workers", workers)
    assert differing(short.load("whole"), end) == []


def test_another_number_of_threads_goes_on_and_says_so(short: Short, capsys: pytest.CaptureFixture[str]) -> None:
    own = torch.get_num_threads()
    try:
        end = resumed(short, "threads", short.load("cut"), "--threads", own + 1)
    finally:
        torch.set_num_threads(own)
    assert [row["step"] for row in end["state"]["rows"]] == [2, 4, 5]
    assert f"resumed with --threads {own + 1}, not {own}" in capsys.readouterr().out
    starts = json.loads((short.folder / "threads/run.json").read_text())["starts"]
    assert [start["machine"]["threads"] for start in starts] == [own, own + 1]


RESTORED = ("model", "ema", "optimizer", "scaler", "rng")
STATE = ("epoch", "batch", "step", "best", "best_epoch", "rows", "loss_sums")


@pytest.mark.parametrize("field", [*RESTORED, *(f"state.{name}" for name in STATE)])
def test_every_field_of_the_checkpoint_counts(short: Short, field: str) -> None:
    """With any field as a new run has it, the end is another one: the tests of this file would fail without it."""
    content = short.load("cut")
    outer, _, inner = field.partition(".")
    if inner:
        content["state"][inner] = short.first["state"][inner]
    else:
        content[outer] = short.first[outer]
    assert differing(short.load("whole"), resumed(short, f"without-{field}", content)) != []


@pytest.mark.parametrize(
    "field", [*RESTORED, "config", "names", "census", "clock", "data_sha256", *(f"state.{name}" for name in STATE)]
)
def test_a_checkpoint_without_a_field_is_refused(short: Short, field: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = short.load("cut")
    outer, _, inner = field.partition(".")
    del (content["state"] if inner else content)[inner or outer]
    path = short.folder / "incomplete.pt"
    torch.save(content, path)
    assert run(train.main, "train.py", "--resume", path) == 2
    assert (inner or outer) in capsys.readouterr().err


def test_time_is_carried_over(short: Short) -> None:
    content = short.load("cut")
    content["clock"]["total"]["train"], content["clock"]["epoch"]["data"] = 1000.0, 500.0
    end = resumed(short, "time", content)
    assert end["clock"]["total"]["train"] > 1000 and end["clock"]["total"]["data"] > 500
    assert end["state"]["rows"][1]["time_data_s"] > 500


def test_a_signal_in_the_validation_loses_no_step(short: Short, monkeypatch: pytest.MonkeyPatch) -> None:
    detect, calls = evaluation._detect, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return detect(*arguments)

    monkeypatch.setattr(evaluation, "_detect", interrupted)
    assert short.start("--name", "validating") == 128 + signal.SIGTERM
    state = short.load("validating")["state"]
    assert (state["epoch"], state["batch"]) == (0, 4) and state["rows"] == []
    assert run(train.main, "train.py", "--resume", short.last("validating")) == 0
    assert differing(short.load("whole"), short.load("validating")) == []


def test_long_epochs_are_saved_within(short: Short, monkeypatch: pytest.MonkeyPatch) -> None:
    save, seen = TrainingRun.save_last, []

    def watched(self: TrainingRun) -> None:
        save(self)
        seen.append((self.trainer.state.epoch, self.trainer.state.batch))

    monkeypatch.setattr(TrainingRun, "save_last", watched)
    assert short.start("--name", "often", "--set", "train.save_minutes=1e-9") == 0
    assert seen[:5] == [(0, 0), (0, 2), (0, 4), (1, 0), (1, 2)]
    assert differing(short.load("whole"), short.load("often")) == [".config.train.save_minutes"]


def test_another_config_is_refused(short: Short, capsys: pytest.CaptureFixture[str]) -> None:
    last = short.last("cut")
    before = last.read_bytes()
    capsys.readouterr()
    assert run(train.main, "train.py", "--resume", last, "--epochs", 5) == 2
    assert "train.epochs=5 (the run has 3)" in capsys.readouterr().err
    same = [*OPTIONS, "--data", short.data]
    assert run(train.main, "train.py", *same, "--resume", last, "--lr0", 0.1, "--set", "model.act=relu") == 2
    error = capsys.readouterr().err
    assert "train.lr=0.1" in error and "relu" in error and "epochs" not in error and error.count("\n") == 1
    assert last.read_bytes() == before


def test_the_same_config_may_stand_beside_resume(short: Short) -> None:
    shutil.copytree(short.folder / "cut", short.folder / "same")
    assert run(train.main, "train.py", *OPTIONS, "--data", short.data, "--resume", short.last("same")) == 0
    assert differing(short.load("whole"), short.load("same")) == []


def test_a_folder_or_nothing_names_the_run_too(short: Short, monkeypatch: pytest.MonkeyPatch) -> None:
    home = short.folder / "home"
    shutil.copytree(short.folder / "cut", home / "runs/train/exp")
    shutil.copytree(short.folder / "cut", home / "runs/train/exp2")
    monkeypatch.chdir(home)
    os.utime(home / "runs/train/exp/weights/last.pt")  # the newest
    assert run(train.main, "train.py", "--resume") == 0
    assert load_checkpoint(home / "runs/train/exp/weights/last.pt")["state"]["epoch"] == 3
    assert run(train.main, "train.py", "--resume", "runs/train/exp2") == 0
    assert load_checkpoint(home / "runs/train/exp2/weights/last.pt")["state"]["epoch"] == 3


def test_a_checkpoint_elsewhere_goes_on_in_a_new_folder(
    short: Short, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of another program beside it stay as they are; the run ends as the one never stopped."""
    home, own = short.folder / "elsewhere", short.folder / "elsewhere/project"
    (own / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(home)
    (own / "config.yaml").write_text("my: settings")
    (own / "results.csv").write_text("my,results")
    shutil.copy(short.last("cut"), own / "checkpoints/last.pt")
    before = tree(own)
    assert run(train.main, "train.py", "--resume", "project/checkpoints/last.pt") == 0
    assert tree(own) == before
    said = [line for line in capsys.readouterr().out.splitlines() if "checkpoints/last.pt" in line]
    assert len(said) == 1 and "runs/train/cut" in said[0]
    last = home / "runs/train/cut/weights/last.pt"
    assert differing(short.load("whole"), load_checkpoint(last)) == []
    assert {"run.json", "config.yaml", "results.csv"} <= set(tree(home / "runs/train/cut"))
    assert load_checkpoint(last)["run_id"] != short.load("cut")["run_id"]
    assert run(train.main, "train.py", "--resume", "project/checkpoints/last.pt", "--exist-ok") == 2
    assert "--exist-ok" in capsys.readouterr().err
    named = ("--project", "mine", "--name", "b")
    assert run(train.main, "train.py", "--resume", own / "checkpoints/last.pt", *named) == 0
    assert (home / "mine/b/weights/last.pt").is_file() and tree(own) == before
    shutil.copy(last, own / "checkpoints/last.pt")  # of the end
    assert run(train.main, "train.py", "--resume", "project/checkpoints/last.pt") == 2
    assert "finished" in capsys.readouterr().err


def test_moved_data_are_named_with_data(
    short: Short, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cut-here", "cut-there"):
        shutil.copytree(short.folder / "cut", short.folder / name)
    content = short.load("cut")
    content["config"]["data"] = json.loads(
        json.dumps(content["config"]["data"]).replace(str(short.folder / "shapes"), str(short.folder / "gone"))
    )
    torch.save(content, short.last("cut-there"))
    resume = ("--resume", short.last("cut-there"))
    assert run(train.main, "train.py", *resume) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "gone" in error and "--data" in error
    assert run(train.main, "train.py", *resume, "--data", short.data) == 0
    assert differing(short.load("whole"), short.load("cut-there")) == []
    record = json.loads((short.folder / "cut-there/run.json").read_text())
    assert record["config"]["data"]["root"] == str(short.folder / "shapes")
    other = write_data(short.folder / "other", train=5)
    assert run(train.main, "train.py", "--resume", short.last("cut-here"), "--data", other) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "other/shapes/annotations/train.json" in error


def test_images_that_can_no_longer_be_read_are_not_left_out(short: Short, capsys: pytest.CaptureFixture[str]) -> None:
    """The run would continue with other batches."""
    shutil.copytree(short.folder / "cut", short.folder / "lost")
    image = next((short.folder / "shapes/images/train").iterdir())
    content = image.read_bytes()
    try:
        image.write_bytes(content[: len(content) // 2])
        assert run(train.main, "train.py", "--resume", short.last("lost")) == 2
    finally:
        image.write_bytes(content)
    error = capsys.readouterr().err
    assert "3 images of train can be used, 4 when the run began" in error and error.count("\n") == 1
    assert run(train.main, "train.py", "--resume", short.last("lost")) == 0
    assert differing(short.load("whole"), short.load("lost")) == []
