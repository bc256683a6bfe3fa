"""The residual sd assumed for planning is that of earlier runs on the same data, or unknown."""

import json
from pathlib import Path

import pytest

from comparison.pilot import pilot_from
from comparison.wording.plans import describe
from tests.comparison.made_runs import plan_of, report_of, write_comparison
from tests.comparison.test_plan import plan_of as plain_plan

CONFIG: dict[str, dict[str, object]] = {
    "data": {"root": "datasets/shapes"}, "model": {"size": "n"}, "train": {"epochs": 8, "imgsz": 160},
}  # fmt: skip


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two earlier comparisons beside the new one, the second with more runs."""
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    for name, seeds in (("a", 3), ("b", 6)):
        write_comparison(tmp_path / name, gains={"relu": 0.0, "mish": 1.0}, seeds=range(seeds), sd=1.5)
        plan_of(("relu", "mish"), range(seeds)).write(tmp_path / name)
    return tmp_path


def test_the_sd_is_that_of_the_largest_earlier_comparison(earlier: Path) -> None:
    found = pilot_from(earlier / "new", CONFIG)
    _, numbers = report_of(earlier / "b", plan_of(("relu", "mish"), range(6)))
    assert found is not None and found.folder == earlier / "b" and found.degrees == 5
    assert found.sigma == pytest.approx(numbers["metrics"]["metrics/mAP50-95"]["comparison"]["sigma"] / 100)


@pytest.mark.parametrize(
    ("section", "key", "value"), [("data", "root", "elsewhere"), ("train", "epochs", 9), ("model", "size", "s")]
)
def test_runs_of_another_task_do_not_count(earlier: Path, section: str, key: str, value: object) -> None:
    assert pilot_from(earlier / "new", {**CONFIG, section: {**CONFIG[section], key: value}}) is None


def test_what_cannot_be_read_is_skipped(earlier: Path) -> None:
    (earlier / "b" / "mish-s0" / "run.json").write_text("{")
    (earlier / "c").mkdir()
    (earlier / "c" / "plan.json").write_text(json.dumps({"acts": 3}))
    found = pilot_from(earlier / "new", CONFIG)
    assert found is not None and found.folder == earlier / "a"
    assert pilot_from(earlier / "elsewhere" / "new", CONFIG) is None


def test_an_unknown_sd_gives_a_range() -> None:
    plan = plain_plan("relu", "silu", "mish", seeds=(0, 1, 2))
    assert plan.sigma_assumed is None
    words = describe(plan)
    for sigma in (0.5, 1.0, 2.0, 3.5):
        assert f"{100 * plan.detectable(sigma / 100):.2g}" in words
    assert "unknown" in words and "0.5, 1, 2 and 3.5 points" in words
