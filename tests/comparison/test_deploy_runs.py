"""Real small networks, exported, scored and timed for a comparison; what is there is kept."""

import json
from pathlib import Path

import pytest

from comparison import deploy_runs
from comparison.analysis import analyse
from comparison.deployment import DEPLOYED, LATENCY, read_places
from comparison.runs import read_runs
from comparison.scores import WEIGHTS
from engine.contention import OtherProcesses
from tests.comparison.made_runs import declare, plan_of, write_comparison
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from tests.support.scripts import run
from yolo import YOLO

pytestmark = pytest.mark.slow
ACTS = ("relu", "mish")


def measured(folder: Path, *words: object) -> int:
    return run(deploy_runs.main, "deploy_runs", folder, *words)


def test_files_are_scored_and_timed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="uv sync --extra onnx")
    pytest.importorskip("onnxruntime", reason="uv sync --extra onnx")
    monkeypatch.setattr(OtherProcesses, "cores", lambda self: 0.0)
    data, folder, plan = write_data(tmp_path), tmp_path / "runs", plan_of(ACTS, [0])
    write_comparison(folder, gains=dict.fromkeys(ACTS, 0.0), seeds=[0])
    plan.write(folder)
    declare(folder, plan)
    for act in ACTS:
        (folder / f"{act}-s0/weights").mkdir()
        changes = {"model.act": act, "model.levels": [2, 3]}
        names = class_names(tmp_path / "shapes")
        write_checkpoint(folder / f"{act}-s0" / WEIGHTS, data, names, kind="training", **changes)
    assert measured(folder, "--targets", "torchscript") == 0
    before = {act: json.loads((folder / f"{act}-s0" / DEPLOYED).read_text()) for act in ACTS}
    assert measured(folder, "--targets", "torchscript", "onnx", "--int8") == 0
    assert measured(folder, "--latency", "onnx", "--rounds", 3) == 0
    printed = capsys.readouterr().out
    for act in ACTS:
        assert printed.count(f"{act}-s0: torchscript fp32") == printed.count(f"{act}-s0: onnx int8") == 1
        content = json.loads((folder / f"{act}-s0" / DEPLOYED).read_text())
        assert list(content["files"]) == ["torchscript fp32", "onnx fp32", "onnx int8"]
        assert content["files"]["torchscript fp32"] == before[act]["files"]["torchscript fp32"]
        row = content["files"]["onnx fp32"]
        path = folder / f"{act}-s0" / row["file"]
        stats = YOLO(path).val(data, rect=False, workers=0, progress=False).stats
        again = {name: value if value >= 0 else None for name, value in stats.columns().items()}
        assert row["metrics"] == pytest.approx(again) and row["bytes"] == path.stat().st_size
        assert row["peak_memory_mib"] > 1 and row["parity"]["unexplained"] <= 4  # of 2400
        assert content["files"]["onnx int8"]["bytes"] < row["bytes"] / 2

    latency = folder / LATENCY
    files = json.loads(latency.read_text())["targets"]["onnx"]["files"]
    assert sorted(files) == sorted(f"{act}-s0 {each}" for act in ACTS for each in ("fp32", "int8"))
    assert all(len(each["times_ms"]) == 3 and min(each["times_ms"]) > 0 for each in files.values())
    stamps = [path.stat().st_mtime_ns for path in (latency, *folder.glob(f"*/{DEPLOYED}"))]
    assert measured(folder, "--targets", "torchscript", "onnx", "--int8") == 0
    assert measured(folder, "--latency", "onnx", "--rounds", 3) == 0
    assert stamps == [path.stat().st_mtime_ns for path in (latency, *folder.glob(f"*/{DEPLOYED}"))]
    runs = plan.as_compared(read_runs([folder]))
    places = read_places(folder, runs, analyse(runs, plan)[0], split="val")
    assert [(place.runtime.split()[0], place.precision) for place in places] == [
        ("TorchScript", "fp32"),
        ("ONNX", "fp32"),
        ("ONNX", "int8"),
    ]
    assert places[1].latency.measured and not places[0].latency.measured

    path.write_bytes(path.read_bytes() + b"0")
    latency.unlink()
    assert measured(folder, "--latency", "onnx") == 2
    assert "changed since it was scored" in capsys.readouterr().err
