"""compare.py end to end: a real comparison on tiny data, its report, resuming, and A/A controls."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import compare
from comparison import course, deployment, runner
from comparison.journal import timings
from comparison.plan import read_plan
from comparison.scores import WEIGHTS
from comparison.summary import PRIMARY
from core.files import file_sha256
from tests.comparison.made_runs import write_run
from tests.support import training
from tests.support.checkpoints import write_data
from tests.support.scripts import run
from yolo import YOLO

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STUB = (sys.executable, str(ROOT / "tests/comparison/stub_trainer.py"))
SMALL = ("--cfg", training.SMALL, "--imgsz", 64, "--batch", 4, "--workers", 0, "--amp", "off", "--epochs", 1)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No training: a stub that writes run folders."""
    monkeypatch.setattr(runner.train_all, "__kwdefaults__", {**runner.train_all.__kwdefaults__, "trainer": STUB})


def command(*words: object) -> int:
    return run(compare.main, "compare.py", *words)


@pytest.mark.usefixtures("warm_runs")
def test_a_real_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = write_data(tmp_path, train=8, val=2, test=3)
    words = ["--acts", "relu", "mish", "--seeds", 2, "--split", "test", "--data", data, *SMALL]
    assert command(*words) == 0
    folder = tmp_path / "runs/compare/exp"
    out, err = capfd.readouterr()
    plan = read_plan(folder)
    assert plan is not None and plan.batches == (2, 1) and set(plan.step_ms) == {"relu", "mish"} and err == ""
    assert out.index("detectable") < out.index("relu-s0 starts") < out.index("mish-s1 finished")
    records = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/run.json")}
    assert sorted(records) == ["mish-s0", "mish-s1", "relu-s0", "relu-s1"]
    for name, record in records.items():
        assert record["code"]["source_sha256"] == plan.source_sha256
        assert record["weights_sha256"] == file_sha256(folder / name / "weights/last.pt")
        act, seed = record["config"]["model"]["act"]["name"], record["config"]["train"]["seed"]
        assert name == f"{act}-s{seed}" and record["results"] and (folder / f"logs/{name}.log").is_file()
    assert {path.name for path in folder.iterdir()} >= {"report.html", "report.json", "table.csv", "runs.csv"}
    assert "two seeds" in out

    place = folder / "mish-s1"
    scores = json.loads((place / "scores.json").read_text())
    expected = YOLO(place / WEIGHTS, device="cpu").val(split="test", batch=1, workers=0, progress=False).stats
    columns = {name: value if value >= 0 else None for name, value in expected.columns().items()}
    assert scores["metrics"] == pytest.approx(columns) and PRIMARY in columns
    assert scores["split"] == "test" and expected.images == 3
    assert json.loads((folder / "report.json").read_text())["image_sampling"]["images"] == 3

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*-s*/*")}
    (folder / "report.html").unlink()
    assert command(*words) == 0  # nothing is left to train
    assert (folder / "report.html").is_file() and before == {p: p.stat().st_mtime_ns for p in folder.glob("*-s*/*")}
    assert command("--report", *(folder / name for name in records), "--name", "hand") == 0
    assert (tmp_path / "runs/compare/hand/report.html").is_file()


def test_help_is_instant() -> None:
    words = [sys.executable, "-X", "importtime", str(ROOT / "compare.py"), "--help"]
    begun = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert time.monotonic() - begun < 3 and "--acts" in done.stdout
    assert not re.search(r"\| +(torch|pydantic|scipy|numpy)\b", done.stderr)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--int8"], "--int8 and --deploy-threads are for --deploy"),
        (["--deploy", "openvin"], "did you mean 'openvino'"),
        (["--deploy", "torchscript", "--deploy-threads", 0], "--deploy-threads 0: expected 1 or more"),
    ],
)
def test_deployment_flags_are_refused_before_anything_is_written(
    words: list[object], expected: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--acts", "relu", "mish", *words) == 2
    assert expected in capsys.readouterr().err and not [*here.iterdir()]


def test_networks_are_measured_after_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub, capsys: pytest.CaptureFixture[str]
) -> None:
    """The order of it, and that a finished comparison is only added to; tests/comparison has the measurement itself."""
    monkeypatch.chdir(tmp_path)
    measured = []
    monkeypatch.setattr(deployment, "measure", lambda folder, targets, **how: measured.append((folder, targets, how)))
    words = ["--acts", "relu", "mish", "--seeds", 2, "--data", write_data(tmp_path), "--probe", 0, *SMALL]
    assert command(*words) == 0 and not measured
    assert command(*words, "--deploy", "torchscript", "--deploy-threads", 2) == 0
    how = {"int8": False, "threads": 2, "split": "val"}
    assert measured == [(Path("runs/compare/exp"), ["torchscript"], how)]
    assert capsys.readouterr().out.count("starts") == 4


def test_a_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_data(tmp_path)
    words = ["--acts", "mish", "--aa", "--seeds", 3, "--data", data, "--probe", 0, *SMALL]
    assert command(*words) == 0
    assert sorted(p.parent.name for p in tmp_path.rglob("run.json")) == [f"mish-s{seed}" for seed in range(6)]
    report = json.loads((tmp_path / "runs/compare/exp/report.json").read_text())
    assert "mish (other seeds)" in json.dumps(report, ensure_ascii=False)


def test_more_seeds_are_exploratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_data(tmp_path)
    words = ["--acts", "relu", "mish", "--data", data, "--probe", 0, *SMALL]
    assert command(*words, "--seeds", 2) == 0
    capsys.readouterr()
    assert command(*words, "--seeds", 3) == 0
    out = capsys.readouterr().out
    assert out.count("starts") == 2 and "beyond the plan" in out and "xploratory" in out
    assert command(*words, "--seeds", 2) == 0 and read_plan(tmp_path / "runs/compare/exp").added_seeds == (2,)


def test_a_baseline_other_than_the_planned_one_is_exploratory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--acts", "relu", "mish", "--seeds", 2, "--data", write_data(tmp_path), "--probe", 0, *SMALL]
    assert command(*words) == 0
    assert command("--report", "runs/compare/exp", "--baseline", "mish", "--name", "other") == 0
    report = json.loads((tmp_path / "runs/compare/other/report.json").read_text())
    assert report["baseline"] == "mish" and report["acts"] == ["mish", "relu"]
    assert "relu" in " ".join(report["exploratory"])


def test_failed_runs_are_counted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_data(tmp_path)
    folder = tmp_path / "runs/compare/exp"
    folder.mkdir(parents=True)
    (folder / "behaviour.json").write_text(json.dumps({"mish-s1": {"fail": True}}))
    assert command("--acts", "relu", "mish", "--seeds", 3, "--data", data, "--probe", 0, *SMALL) == 0
    out = capsys.readouterr().out
    assert "mish-s1 FAILED: train.py: error: the loss is not finite" in out and "1 of 3 mish runs failed" in out


def test_one_seed_gets_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for act, last in (("relu", 0.40), ("mish", 0.41)):
        write_run(tmp_path / "runs" / act, act=act, seed=0, last=last)
    assert command("--report", "runs", "--baseline", "relu") == 0
    out = capsys.readouterr().out
    assert "+1.00" in out and not re.search(r"\[[^\]]*, ", out)


def test_activations_that_cannot_be_fused_make_all_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_data(tmp_path)
    options = ["--seeds", 1, "--data", data, "--probe", 0, *SMALL]
    assert command("--acts", "relu", "gelu", *options) == 0
    assert "gelu cannot be fused" in capsys.readouterr().out
    assert read_plan(tmp_path / "runs/compare/exp").overrides["model.norm_act"] == "plain"
    assert command("--acts", "relu", "silu", *options, "--name", "fused") == 0
    assert "model.norm_act" not in read_plan(tmp_path / "runs/compare/fused").overrides
    shared = [
        "backbone=mish,neck=gelu,head=gelu",
        "backbone=relu,neck=gelu,head=gelu",
    ]  # they differ where both have one
    assert command("--acts", *shared, *options, "--name", "shared") == 0
    assert "model.norm_act" not in read_plan(tmp_path / "runs/compare/shared").overrides


def test_equal_time_plans_the_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub, capsys) -> None:
    from comparison import cli_spec
    from comparison.timing_probe import Probe

    monkeypatch.chdir(tmp_path)
    data = write_data(tmp_path)
    timing = Probe(step_ms={"relu": 80.0, "mish": 100.0}, batches=(10, 1))
    monkeypatch.setattr(cli_spec, "probe", lambda plan, existing, *, rounds: timing)
    words = ["--acts", "relu", "mish", "--seeds", 1, "--data", data, "--budget", "time", *SMALL, "--epochs", 5]
    assert command(*words) == 0
    epochs = {p.parent.name: len(p.read_text().splitlines()) - 1 for p in tmp_path.rglob("results.csv")}
    assert epochs == {"relu-s0": 5, "mish-s0": 4}


def test_stopped_it_says_how_to_resume(tmp_path: Path, warm_python: str) -> None:
    data = write_data(tmp_path)
    words = [str(ROOT / "compare.py"), "--acts", "relu", "mish", "--seeds", 1, "--data", data, "--probe", 0, *SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [warm_python, *map(str, words), "--epochs", "500"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    results = tmp_path / "runs/compare/exp/relu-s0/results.csv"
    end = time.monotonic() + 90
    while not results.is_file():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "to resume" in out and "--epochs 500" in out
    assert (results.parent / "weights/last.pt").is_file()
    assert "resume" in (tmp_path / "runs/compare/exp/logs/relu-s0.log").read_text()


@pytest.mark.usefixtures("warm_runs", "stub")
def test_the_isolated_timing_is_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(course, "TIMING_ROUNDS", 3)
    data = write_data(tmp_path, train=8)
    words = ["--acts", "relu", "mish", "--seeds", 1, "--data", data, "--probe", 0, "--timing", *SMALL]
    assert command(*words) == 0
    folder = tmp_path / "runs/compare/exp"
    measured = json.loads((folder / "timing.json").read_text())["rows"]
    shown = json.loads((folder / "report.json").read_text())["timing"]["rows"]
    assert [row["act"] for row in shown] == ["relu", "mish"]
    assert [row["ratio"] for row in shown] == pytest.approx([row["ratio"] for row in measured])
    assert timings(folder / "timing.json") == (1, True)
    assert (folder / "pictures/timing.png").is_file() and "relative to relu" in capsys.readouterr().out
