"""The run folder, results.csv and run.json, what is said of code and machine, and the console's lines."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from comparison.runs import read_rows
from core import files
from core.text import format_duration
from engine import run_logger as record


def test_folders_are_numbered(tmp_path):
    made = [record.increment_path(tmp_path / "runs" / "train", "exp").name for _ in range(3)]
    assert made == ["exp", "exp2", "exp3"]
    assert record.increment_path(tmp_path / "runs" / "train", "exp", exist_ok=True).name == "exp"
    assert record.increment_path(tmp_path, "a/b").is_dir()


def test_runs_started_at_once_get_folders_of_their_own(tmp_path):
    made: list[Path] = []
    start = threading.Barrier(8)

    def create() -> None:
        start.wait()
        made.append(record.increment_path(tmp_path, "exp"))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(set(made)) == 8


def test_impossible_folders_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for project, name, exist_ok in (
        (tmp_path / "file", "exp", False),
        (tmp_path / "file" / "deep", "exp", False),
        (tmp_path, "file", True),
        (tmp_path, "../outside", False),
        (tmp_path, "/absolute", False),
        (tmp_path, "", False),
    ):
        with pytest.raises(ValueError, match="expected|cannot"):
            record.increment_path(project, name, exist_ok)


def test_results_survive_a_resume(tmp_path):
    path = tmp_path / "results.csv"
    table = record.Results(path)
    for epoch in (1, 2, 3):
        row = {"epoch": epoch, "metrics/mAP50-95": 1 / 3, "metrics/AP_small": -1, "lr": 1e-5, "beta": float("nan")}
        table.append(row)
    rows = read_rows(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["metrics/mAP50-95"] == pytest.approx(1 / 3, rel=1e-5) and rows[0]["lr"] == 1e-5
    assert rows[0]["metrics/AP_small"] is None and rows[0]["beta"] is None and rows[0]["val/box_loss"] is None
    assert path.read_text().splitlines()[0].split(",") == [
        *(name for name in record.COLUMNS if "obj" not in name), "beta",
    ]  # fmt: skip
    # The run was killed after the checkpoint of epoch 2: row 3 goes, and comes again.
    resumed = record.Results(path, table.rows[:2])
    assert len(read_rows(path)) == 2
    resumed.append({"epoch": 3, "lr": 2.0})
    resumed.append({"epoch": 3, "lr": 3.0})
    assert [row["lr"] for row in read_rows(path)] == [1e-5, 1e-5, 3.0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.csv"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    path.write_text("old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


class Row(NamedTuple):
    part: str
    sites: int


@dataclass(frozen=True)
class Site:
    part: str
    where: Path


def test_run_json(tmp_path):
    path = tmp_path / "run.json"
    content = record.run_record(
        config={"model": {"act": {"name": "mish"}}},
        differs={"model.act": "mish"},
        data_hash={"train": "00"},
        census=[Row("backbone", 27), Site("neck", Path("x"))],
        operator={"implementation": "torch.nn.functional.mish", "reason": "PyTorch's own"},
        device="CPU",
        parameters=np.int64(3),
        weights=torch.tensor([1.0, float("inf")]),
    )
    record.write_run(path, content)
    record.update_run(path, results={"mAP50-95": float("nan")})
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["census"] == [{"part": "backbone", "sites": 27}, {"part": "neck", "where": "x"}]
    assert read["parameters"] == 3 and read["weights"] == [1.0, None] and read["results"] == {"mAP50-95": None}
    assert len(read["code"]["source_sha256"]) == 64
    assert read["machine"]["threads"] == torch.get_num_threads() and read["machine"]["cpu"]
    assert read["machine"]["packages"]["torch"] and read["machine"]["ram_mib"] > 100
    with pytest.raises(TypeError, match="object"):
        record.write_run(path, {"strange": object()})


def test_tensorboard(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {"0.act.weight": torch.rand(2), "1.0.act.weight": torch.rand(2)}
    writer = record.TensorBoard(tmp_path)
    writer.row({"epoch": 1, "lr": 0.5, "metrics/mAP50": 0.25, "metrics/AP_small": -1, "val/box_loss": None}, 1)
    writer.activations(found | {"beta": torch.tensor(2.0)}, 1)
    writer.close()
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {
        "run/lr",
        "metrics/mAP50",
        "activation/0.act.weight",
        "activation/1.0.act.weight",
        "activation/beta",
    }
    assert set(tags["histograms"]) == {"activation/0.act.weight", "activation/1.0.act.weight"}
    assert events.Scalars("activation/beta")[0].value == 2.0


def test_durations():
    said = {0.04: "0.0 s", 9.9: "9.9 s", 42.2: "42 s", 59.7: "1 min 00 s", 185: "3 min 05 s", 7800: "2 h 10 min"}
    assert {seconds: format_duration(seconds) for seconds in said} == said


def test_console_lines_hold_the_facts(tmp_path):
    operator = {"implementation": "torch.nn.functional.mish", "reason": "PyTorch's own operator"}
    code = {"commit": "0123456789abcdef", "dirty": True, "source_sha256": "f" * 64}
    banner = record.start_banner(
        differs={"model.act": {"name": "mish"}, "train.epochs": 3},
        code=code,
        device="CPU, 2 threads",
        operator=operator,
        census="backbone mish 27\nneck mish 12",
        parameters=3_011_043,
        gflops=8.1,
        side=640,
        folder=tmp_path,
    )
    for fact in ("train.epochs=3", "0123456789", "uncommitted", "2 threads", "own operator", "3,011,043", "8.1", "27"):
        assert fact in banner
    (tmp_path / "results.png").write_bytes(b"")
    facts = {
        "stats": {"mAP50-95": 0.6123, "mAP50": -1.0},
        "memory_mib": 812.3,
        "device": "CPU",
        "operator": operator,
        "folder": tmp_path,
        "epoch": "best, epoch 27 of 30",
        "next_command": "python detect.py --weights best.pt",
    }
    summary = record.end_summary(times={"train": 100.0, "data": 3.0, "validation": 20.0}, **facts)
    for fact in ("0.612", "mAP50 -", "1 min 40 s", "812 MiB", "own operator", "best.pt", "results.png", "detect.py"):
        assert fact in summary
    assert "waited" not in summary
    assert "waited for data 8%" in record.end_summary(times={"train": 100.0, "data": 8.0}, **facts)
