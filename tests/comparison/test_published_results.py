"""The published comparisons: their raw runs give the published verdict."""

import shutil
from pathlib import Path

import pytest

from benchmarks.publish import verdict
from comparison.plan import read_plan
from comparison.report import report

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PUBLISHED = sorted(path.parent for path in RESULTS.glob("*/published.json"))

pytestmark = pytest.mark.slow


def test_there_are_published_comparisons() -> None:
    known = {
        "embedded",
        "embedded_muon",
        "bccd_muon",
        "search",
        "implementations",
        "bccd",
        "aa_operator",
        "aa_seeds",
        "rect",
        "copy_paste",
        "class_balance",
        "recipe_raccoon",
        "recipe_shapes",
    }
    assert known <= {folder.name for folder in PUBLISHED}


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_runs_give_the_published_verdict(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    copy = shutil.copytree(folder, tmp_path / folder.name)
    report([copy], copy)
    assert verdict(copy / "report.json") == verdict(folder / "published.json")
    plan = read_plan(folder)
    assert plan is not None and all((folder / run.name / "run.json").is_file() for run in plan.runs)


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_an_edited_run_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    copy = shutil.copytree(folder, tmp_path / folder.name)
    results = next(copy.glob("*-s0/results.csv"))
    *before, last = results.read_text(encoding="utf-8").splitlines()
    edited = last.replace(",0.", ",0.1", 1)
    assert edited != last
    results.write_text("\n".join([*before, edited, ""]), encoding="utf-8")
    with pytest.raises(ValueError, match=results.parent.name):
        report([copy], copy)
