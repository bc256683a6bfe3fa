"""A published comparison gives its verdict again."""

import json
from pathlib import Path

import pytest

from benchmarks import publish
from comparison.report import report
from tests.comparison.made_runs import declare, plan_of, report_of, write_comparison

pytestmark = pytest.mark.slow


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    write_comparison(tmp_path / "made", gains={"relu": 0.0, "mish": 3.0})
    plan = plan_of(("relu", "mish"), range(5))
    plan.write(tmp_path / "made")
    declare(tmp_path / "made", plan)
    report_of(tmp_path / "made", plan)
    (tmp_path / "made/pictures").mkdir(exist_ok=True)
    (tmp_path / "made/pictures/runs.png").write_bytes(b"a picture")
    (tmp_path / "made/mish-s0/weights").mkdir()
    (tmp_path / "made/mish-s0/weights/last.pt").write_bytes(b"weights")
    return tmp_path / "made"


def test_the_copy_has_the_runs_and_the_verdict(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "published"
    assert publish.main([str(made), str(target)]) == 0 and "10 runs" in capsys.readouterr().out
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    runs = {f"{act}-s{seed}/{name}" for act in ("relu", "mish") for seed in range(5) for name in publish.RAW[:2]}
    assert names == {"plan.json", "published.json", "table.csv", "runs.csv", "runs.png", *runs}
    text = report([target], target)
    assert publish.verdict(target / "report.json") == publish.verdict(target / "published.json")
    assert "mish" in text and publish.verdict(target / "published.json")["verdicts"]["mish"]["kind"] == "higher"
    assert publish.main([str(made), str(target)]) == 2 and "exists" in capsys.readouterr().err


def test_a_report_that_is_not_of_these_runs_is_not_published(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((made / "report.json").read_text())
    content["verdicts"]["mish"]["text"] = "higher by ten points"
    (made / "report.json").write_text(json.dumps(content))
    assert publish.main([str(made), str(tmp_path / "published")]) == 2
    error = capsys.readouterr().err
    assert "verdicts" in error and error.count("\n") == 1 and not (tmp_path / "published").exists()


def test_an_edited_run_is_not_published(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = made / "mish-s0/results.csv"
    results.write_text(results.read_text().replace("0.6", "0.7"))
    assert publish.main([str(made), str(tmp_path / "published")]) == 2
    error = capsys.readouterr().err
    assert "mish-s0" in error and error.count("\n") == 1 and not (tmp_path / "published").exists()


@pytest.mark.parametrize("folder", ["none", "made/mish-s0"])
def test_other_folders_are_refused(folder: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main([str(tmp_path / folder), str(tmp_path / "published")]) == 2
    assert "plan.json" in capsys.readouterr().err
