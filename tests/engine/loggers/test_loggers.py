"""Loggers: what each writes, after a resume too, and that it is closed when a run fails."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from comparison.runs import read_rows
from core.metrics import results_table
from engine.loggers import EpochEnd, Logger, RunEnd, RunStart, make_loggers
from engine.loggers.console import Console, end_summary, start_summary
from engine.loggers.results_csv import ResultsCsv
from engine.trainer import Stopped

OPERATOR = {"implementation": "torch.nn.functional.mish", "reason": "PyTorch's own operator"}


def start_of(folder: Path, rows: list[dict[str, Any]] | None = None) -> RunStart:
    config = {"train": {"lr": 0.1, "freeze": []}, "data": {"root": "x" * 1000}}
    return RunStart(folder, config, ("box", "cls", "dfl"), epochs=3, rows=rows or [], text="start of the run")


def epoch_of(number: int, **values: Any) -> EpochEnd:
    row = {"epoch": number, "step": 7 * number, "lr": 0.5, "metrics/mAP50": 0.25 * number, "metrics/AP_small": -1}
    return EpochEnd(row | values, {"act.beta": torch.tensor(2.0), "act.weight": torch.rand(2)}, seconds_left=90.0)


def test_results_survive_a_resume(tmp_path):
    path = tmp_path / "results.csv"
    table = ResultsCsv()
    table.start(start_of(tmp_path))
    for epoch in (1, 2, 3):
        row = {"epoch": epoch, "metrics/mAP50-95": 1 / 3, "metrics/AP_small": -1, "lr": 1e-5, "beta": math.nan}
        table.epoch(EpochEnd(row, {}, 0.0))
    rows = read_rows(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["metrics/mAP50-95"] == pytest.approx(1 / 3, rel=1e-5) and rows[0]["lr"] == 1e-5
    assert rows[0]["metrics/AP_small"] is None and rows[0]["beta"] is None and rows[0]["val/box_loss"] is None
    columns = [metric.key for metric in results_table(("box", "cls", "dfl"))]
    assert path.read_text().splitlines()[0].split(",") == [*columns, "beta"]
    # Killed after the checkpoint of epoch 2: the row of epoch 3 is removed, and written again.
    resumed = ResultsCsv()
    resumed.start(start_of(tmp_path, table.rows[:2]))
    assert len(read_rows(path)) == 2
    resumed.epoch(epoch_of(3, lr=2.0))
    resumed.epoch(epoch_of(3, lr=3.0))
    assert [row["lr"] for row in read_rows(path)] == [1e-5, 1e-5, 3.0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.csv"]


def tensorboard_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard(tmp_path):
    logger = make_loggers(["tensorboard"])[-1]
    logger.start(start_of(tmp_path))
    logger.epoch(epoch_of(1, **{"val/box_loss": None}))
    logger.end(RunEnd({}, ""))
    events = tensorboard_events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"run/lr", "metrics/mAP50", "activation/act.beta", "activation/act.weight"}
    assert set(events.Tags()["histograms"]) == {"activation/act.weight"}
    assert events.Scalars("activation/act.beta")[0].value == 2.0


def test_tensorboard_after_a_resume_has_every_epoch_once(tmp_path):
    rows = [epoch_of(number).row for number in (1, 2)]
    for before, epochs in (([], (1, 2, 3)), (rows, (3,))):
        logger = make_loggers(["tensorboard"])[-1]
        logger.start(start_of(tmp_path, before))
        for number in epochs:
            logger.epoch(epoch_of(number))
        logger.fail(Stopped())
    assert [event.step for event in tensorboard_events(tmp_path).Scalars("run/lr")] == [1, 2, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_tensorboard_on_a_full_disk_fails_at_once(tmp_path, monkeypatch):
    """Its own writer thread would report the error later, or wait for ever."""
    module = "engine.loggers.tensorboard_events.open"
    monkeypatch.setattr(module, lambda *_: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
    logger = make_loggers(["tensorboard"])[-1]
    with pytest.raises(OSError, match="No space left"):
        logger.start(start_of(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        logger.epoch(epoch_of(1))
    with pytest.raises(OSError, match="No space left"):
        logger.fail(OSError("disk full"))
    logger.fail(OSError("disk full"))  # closed


def test_an_undefined_metric_is_no_number(tmp_path, capsys):
    """Without objects in the validation images COCO's -1 is shown as a dash."""
    logger = Console()
    logger.start(start_of(tmp_path))
    undefined = {"metrics/mAP50-95": -1.0, "metrics/mAP50": -1.0, "images_per_s": 1.0}
    logger.epoch(epoch_of(1, **undefined, **{f"train/{name}_loss": 1.0 for name in ("box", "cls", "dfl")}))
    line = capsys.readouterr().out.splitlines()[-1]
    assert "mAP50-95 -  mAP50 -  " in line and "-1" not in line


@pytest.mark.slow
@pytest.mark.parametrize("end", ["end", "fail", "stop"])
def test_mlflow(tmp_path, monkeypatch, end):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracking").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    logger = make_loggers(["mlflow"])[-1]
    logger.start(start_of(tmp_path))
    logger.epoch(epoch_of(1))
    logger.fail(Stopped())
    logger = make_loggers(["mlflow"])[-1]  # the resumed run is the same at the server
    logger.start(start_of(tmp_path, [epoch_of(1).row]))
    logger.epoch(epoch_of(2))
    finish(logger, end)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("yolo-mish").experiment_id])
    assert run.info.status == {"end": "FINISHED", "fail": "FAILED", "stop": "KILLED"}[end]
    assert run.data.params["train.lr"] == "0.1" and len(run.data.params["data.root"]) == 500
    history = client.get_metric_history(run.info.run_id, "metrics/mAP50")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]
    assert ("best/mAP50-95" in run.data.metrics) == (end == "end")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["end", "fail", "stop"])
def test_wandb(tmp_path, monkeypatch, end):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for variable in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    logger = make_loggers(["wandb"])[-1]
    logger.start(start_of(tmp_path))
    logger.epoch(epoch_of(1))
    finish(logger, end)
    assert wandb.run is None  # finished
    identity = (tmp_path / "wandb_run_id.txt").read_text()
    (file,) = (tmp_path / "wandb").glob(f"offline-run-*/run-{identity}.wandb")
    deadline = time.monotonic() + 30  # another process writes the file
    while b"metrics/mAP50" not in file.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"metrics/mAP50" in file.read_bytes() and (b"best/mAP50-95" in file.read_bytes()) == (end == "end")


def test_wandb_without_a_login_is_one_line(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match="^wandb: No API key configured.*WANDB_MODE=offline") as found:
        make_loggers(["wandb"])[-1].start(start_of(tmp_path))
    assert "\n" not in str(found.value)


def test_mlflow_without_a_server_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for uri in ("http://127.0.0.1:9", "nonsense:///x"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(ValueError, match="^mlflow: .*MLFLOW_TRACKING_URI") as found:
            make_loggers(["mlflow"])[-1].start(start_of(tmp_path))
        assert "\n" not in str(found.value)


def finish(logger: Logger, end: str) -> None:
    if end == "end":
        logger.end(RunEnd({"mAP50-95": 0.5}, "end of the run"))
    else:
        logger.fail(Stopped() if end == "stop" else OSError("disk full"))


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_one_line_with_the_command(monkeypatch, name, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=f"{name}.*not installed.*pip install {package}"):
        make_loggers([name])


def test_an_unknown_logger_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"run\.loggers.*'tensorbord'.*'tensorboard'"):
        make_loggers(["tensorbord"])


def test_console(capsys):
    logger = Console()
    logger.start(start_of(Path("x")))
    losses = {f"train/{name}_loss": 1.5 for name in ("box", "cls", "dfl")}
    logger.epoch(epoch_of(1, images_per_s=123.4, **losses))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "start of the run"
    assert lines[1] == "epoch 1/3  box 1.500  cls 1.500  dfl 1.500  mAP50 0.250  123 images/s  left 1 min 30 s"


def test_summaries_hold_the_facts(tmp_path):
    start = start_summary(
        differs={"model.act": {"name": "mish"}, "train.epochs": 3},
        code={"commit": "0123456789abcdef", "dirty": True, "source_sha256": "f" * 64},
        device="CPU, 2 threads",
        operator=OPERATOR,
        census="backbone mish 27\nneck mish 12",
        parameters=3_011_043,
        gflops=8.1,
        imgsz=640,
        folder=tmp_path,
        data="shapes: 3 images",
    )
    for fact in ("train.epochs=3", "0123456789", "uncommitted", "2 threads", "own operator", "3,011,043", "8.1", "27"):
        assert fact in start
    assert json.dumps({"name": "mish"}) in start
    (tmp_path / "results.png").write_bytes(b"")
    facts: dict[str, Any] = {
        "numbers": {"mAP50-95": 0.6123, "mAP50": -1.0},
        "memory_mib": 812.3,
        "device": "CPU",
        "operator": OPERATOR,
        "folder": tmp_path,
        "epoch": "best, epoch 27 of 30",
        "next_command": "python detect.py --weights best.pt",
    }
    end = end_summary(times={"train": 100.0, "data": 3.0, "validation": 20.0}, **facts)
    for fact in ("0.612", "mAP50 -", "1 min 40 s", "812 MiB", "own operator", "best.pt", "results.png", "detect.py"):
        assert fact in end
    assert "waited" not in end
    assert "8%" in end_summary(times={"train": 100.0, "data": 8.0}, **facts)
