"""Comparisons on several data sets: a row each, a mean over them as random effects, nothing pooled."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from comparison.choices import Tuning
from comparison.plan import read_plan
from comparison.report import report
from comparison.tasks import random_effects
from tests.comparison.made_runs import declare, edit_record, plan_of, write_comparison

# Log relative risks of 13 trials of a vaccine and their variances (Colditz et al. 1994, as in R's metafor, dat.bcg).
BCG = (
    -0.8893,
    -1.5854,
    -1.3481,
    -1.4416,
    -0.2175,
    -0.7861,
    -1.6209,
    0.0120,
    -0.4694,
    -1.3713,
    -0.3394,
    0.4459,
    -0.0173,
)
BCG_VARIANCE = (
    0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230, 0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714,
)  # fmt: skip


def test_the_mean_is_that_of_a_published_example() -> None:
    """DerSimonian-Laird in metafor: mean -0.7141, tau^2 0.3088."""
    effect = random_effects(BCG, np.sqrt(BCG_VARIANCE))
    assert effect.mean == pytest.approx(-0.7141, abs=5e-4)
    assert effect.heterogeneity**2 == pytest.approx(0.3088, abs=5e-4) and effect.tasks == 13


def test_without_heterogeneity_equal_errors_give_the_mean_and_never_a_narrower_interval() -> None:
    effect = random_effects([1.0, 1.0, 1.0], [0.3, 0.3, 0.3])
    half = stats.t.isf(0.025, 2) * 0.3 / math.sqrt(3)
    assert effect.heterogeneity == 0 and (effect.low, effect.high) == pytest.approx((1 - half, 1 + half))


def test_large_heterogeneity_gives_the_t_interval_of_the_estimates() -> None:
    """With negligible errors within, the data sets count alike."""
    values = [3.0, -1.0, 4.0, 8.0]
    effect = random_effects(values, [1e-4] * 4)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (effect.low, effect.high) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_the_interval_covers_the_mean_as_often_as_stated() -> None:
    draw = np.random.default_rng(1)
    errors, covered = np.array([0.2, 0.4, 0.6, 0.3, 0.5]), 0
    for _ in range(2000):
        effect = random_effects(1.0 + draw.normal(0, 0.5, 5) + draw.normal(0, errors), errors)
        covered += effect.low <= 1.0 <= effect.high
    assert 0.93 <= covered / 2000 <= 0.985


@pytest.mark.parametrize(("estimates", "errors"), [([1.0], [0.1]), ([1.0, 2.0], [0.1, 0.0]), ([1.0, 2.0], [0.1])])
def test_what_cannot_be_summarised_is_refused(estimates: list[float], errors: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        random_effects(estimates, errors)


def write_task(
    folder: Path, gain: float, *, level: float, data: str, margin: float = 0.005, seeds: Sequence[int] = range(4)
) -> None:
    write_comparison(folder, gains={"relu": 0.0, "mish": gain}, seeds=seeds, level=level, sd=0.3)
    for file in folder.glob("*/run.json"):
        edit_record(file.parent, lambda record: record.update(data={"train": data, "val": data}))
    plan = plan_of(("relu", "mish"), seeds, margin=margin)
    plan.write(folder)
    declare(folder, plan)


def test_data_sets_have_a_row_each_and_are_never_pooled(tmp_path: Path) -> None:
    write_task(tmp_path / "easy", 2.0, level=80, data="a")
    write_task(tmp_path / "hard", 1.0, level=20, data="b")
    write_task(tmp_path / "worse", -3.0, level=50, data="c")
    folders = [tmp_path / name for name in ("easy", "hard", "worse")]
    text = report(folders, tmp_path / "all")
    content = json.loads((tmp_path / "all/tasks.json").read_text())
    assert [row["task"] for row in content["rows"]] == ["easy", "hard", "worse"]
    for row, level in zip(content["rows"], (80, 20, 50), strict=True):
        assert row["baseline_map"] == pytest.approx(level, abs=3)
        rows = list(csv.DictReader(open(tmp_path / row["task"] / "mish-s0/results.csv")))  # noqa: SIM115
        assert row["standard_error"] > 0 and len(rows) == 8
    assert content["remarks"] == []
    expected = random_effects(*zip(*[(r["difference"], r["standard_error"]) for r in content["rows"]], strict=True))
    assert content["effects"]["mish"]["mean"] == pytest.approx(expected.mean)
    assert "higher than relu on 2 of 3 data sets" in text and "inconclusive" in content["words"][0]
    page = (tmp_path / "all/tasks.html").read_text()
    assert content["words"][0] in page and page.count("<tr>") == 4
    assert len(list(csv.DictReader((tmp_path / "all/tasks.csv").open()))) == 3


def test_comparisons_of_other_arms_or_margins_are_not_summarised(tmp_path: Path) -> None:
    write_task(tmp_path / "a", 1.0, level=50, data="a")
    write_task(tmp_path / "b", 1.0, level=50, data="b", margin=0.02)
    with pytest.raises(ValueError, match=r"b: margin 0\.02, but 0\.005 in a"):
        report([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    plan_of(("relu", "mish", "silu"), range(4)).write(tmp_path / "b")
    with pytest.raises(ValueError, match="b: arms relu, mish, silu"):
        report([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("seeds", [range(4), range(4, 8)])
def test_a_data_set_counts_once(tmp_path: Path, seeds: range) -> None:
    """A copy of a comparison, or one with other seeds, is no further data set."""
    write_task(tmp_path / "a", 1.0, level=50, data="a")
    write_task(tmp_path / "b", 1.5, level=60, data="b")
    write_task(tmp_path / "again", 1.0, level=50, data="a", seeds=seeds)
    with pytest.raises(ValueError, match="again: the same data as a"):
        report([tmp_path / name for name in ("a", "b", "again")], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_arms_of_one_name_have_the_same_settings(tmp_path: Path) -> None:
    for name, mixup in (("a", 0.2), ("b", 0.9)):
        write_task(tmp_path / name, 1.0, level=50, data=name)
        plan = read_plan(tmp_path / name)
        assert plan is not None
        plan.model_copy(update={"arms": {**plan.arms, "mish": {"augment.mixup": mixup}}}).write(tmp_path / name)
    with pytest.raises(ValueError, match=r"b: mish is augment\.mixup=0\.9, but augment\.mixup=0\.2 in a"):
        report([tmp_path / "a", tmp_path / "b"], tmp_path / "all")


def test_tuned_values_may_differ_between_data_sets(tmp_path: Path) -> None:
    for name, lr in (("a", 0.001), ("b", 0.004)):
        write_task(tmp_path / name, 1.0, level=50, data=name)
        plan = read_plan(tmp_path / name)
        assert plan is not None
        tuning = Tuning(
            key="train.lr", values=(0.001, 0.004), seeds=(1000,), holdout=0.2, common=0.001, common_trained=False,
            scores=dict.fromkeys(plan.acts, ((0.3,), (0.3,))), chosen=dict.fromkeys(plan.acts, lr),
        )  # fmt: skip
        arms = {act: {"train.lr": lr} for act in plan.acts}
        plan.model_copy(update={"arms": arms, "tuning": tuning}).write(tmp_path / name)
    assert "on 2 of 2 data sets" in report([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
