"""The published comparisons: their raw runs give the published verdict."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.publish import verdict
from comparison.report import report

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PUBLISHED = sorted(path.parent for path in RESULTS.glob("*/published.json"))

pytestmark = pytest.mark.slow


def test_there_are_published_comparisons() -> None:
    assert {"embedded"} <= {folder.name for folder in PUBLISHED}


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_runs_give_the_published_verdict(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    copy = shutil.copytree(folder, tmp_path / folder.name)
    report([copy], copy)
    assert verdict(copy / "report.json") == verdict(folder / "published.json")
    named = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert all((folder / f"{act}-s{seed}" / "run.json").is_file() for act in named["acts"] for seed in named["seeds"])


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_an_edited_run_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    copy = shutil.copytree(folder, tmp_path / folder.name)
    results = next(copy.glob("*-s0/results.csv"))
    results.write_text(results.read_text(encoding="utf-8").replace("0.5", "0.6"), encoding="utf-8")
    with pytest.raises(ValueError, match=results.parent.name):
        report([copy], copy)
