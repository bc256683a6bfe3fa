"""Failure rates, runs that collapsed, and whether a comparison could have shown a difference at all."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from comparison import checks, wording
from comparison.analysis import analyse
from comparison.runs import Run
from comparison.summary import Failures, LearningCurve, Outcome
from tests.comparison.test_analysis import plan_of, runs_of


def curve(
    course: Callable[[float], float], *, epochs: int = 20, last: float = 50.0, noise: float = 0.0
) -> LearningCurve:
    """A learning curve that reaches about ``last`` points; ``course`` maps the fraction of the epochs to that of it."""
    draw = np.random.default_rng(epochs)
    points = [last * course(epoch / epochs) + noise * draw.standard_normal() for epoch in range(1, epochs + 1)]
    numbers = tuple(float(epoch) for epoch in range(1, epochs + 1))
    return LearningCurve(activation="relu", seed=0, epochs=numbers, seconds=numbers, points=tuple(points))


def saturating(share: float) -> float:
    return (1 - math.exp(-4 * share)) / (1 - math.exp(-4))


@pytest.mark.parametrize(
    ("made_curve", "reason"),
    [
        (curve(saturating), None),
        (curve(saturating, noise=0.5), None),
        (curve(saturating, epochs=3), None),
        (curve(lambda share: share), "rising"),
        (curve(lambda share: share, epochs=2), "rising"),
        (curve(lambda share: share**2, noise=0.5), "rising"),
        (curve(lambda share: saturating(share / 4) / saturating(0.25)), "rising"),  # a quarter of the schedule
        (curve(saturating, last=4.9), "floor"),
        (curve(saturating, last=5.1), None),
        (curve(lambda share: share, last=0.1), "floor"),
        (curve(saturating, last=96.0), "ceiling"),
    ],
)
def test_sensitivity_of_a_comparison(made_curve: LearningCurve, reason: str | None) -> None:
    found = checks.insensitivity([made_curve], margin=0.5)
    assert (found and found.reason) == reason


@pytest.mark.parametrize(("mean", "reason"), [(4.9, "floor"), (40.0, None), (96.0, "ceiling")])
def test_floor_and_ceiling_are_those_of_the_scored_split(mean: float, reason: str | None) -> None:
    """The curves are those on val; the verdict may be of another split."""
    found = checks.insensitivity([curve(saturating)], mean=mean, margin=0.5)
    assert (found and (found.reason, found.mean)) == (reason and (reason, mean))


def test_a_rise_is_judged_by_the_curve_itself() -> None:
    steep = curve(lambda share: share, last=40.0)
    for mean in (20.0, 80.0):
        found = checks.insensitivity([steep], mean=mean, margin=0.5)
        assert found is not None and found.reason == "rising"


def test_finished_schedules_are_seldom_called_unfinished() -> None:
    """Noise of an epoch of 1 point at 40 points: at most 3 % of three-seed baselines; linear rises always."""
    draw = np.random.default_rng(0)

    def noisy(course: Callable[[float], float]) -> bool:
        curves = [
            replace(each, points=tuple((np.array(each.points) + draw.standard_normal(len(each.points))).tolist()))
            for each in [curve(course, last=40.0)] * 3
        ]
        found = checks.insensitivity(curves, margin=0.5)
        return found is not None and found.reason == "rising"

    assert sum(noisy(saturating) for _ in range(500)) <= 15
    assert sum(noisy(lambda share: share**1.5) for _ in range(500)) >= 495


def flat(run: Run, level: float, step: float) -> Run:
    """The run at another level: its last mAP is ``level`` and a seed's and an activation's bit more."""
    factor = (level + step) / run.rows[-1]["metrics/mAP50-95"]  # type: ignore[operator]
    rows = tuple({**row, "metrics/mAP50-95": factor * (row["metrics/mAP50-95"] or 0)} for row in run.rows)
    return replace(run, rows=rows)


def test_runs_at_the_floor_are_not_equivalent() -> None:
    runs = [flat(run, 0.001, 0.00001 * (index % 4)) for index, run in enumerate(runs_of(3))]
    found = analyse(runs, plan_of(3))[0]
    assert {each.kind for each in found.verdicts.values()} == {"insensitive"}
    assert all("nothing was learned yet" in each.text for each in found.verdicts.values())
    sentences = wording.recommendations.recommendation(found)
    assert not any("Equivalent" in each or "Non-inferior" in each or each.startswith("Keep") for each in sentences)
    higher = [flat(run, 0.4, 0.00001 * (index % 4)) for index, run in enumerate(runs_of(3))]
    assert {each.kind for each in analyse(higher, plan_of(3))[0].verdicts.values()} == {"equivalent"}


@pytest.mark.parametrize(("failed", "ended"), [(0, 5), (3, 5), (5, 5)])
def test_failure_rates_match_scipy_and_the_beta_distribution(failed: int, ended: int) -> None:
    rates = checks.failure_rates({"relu": Failures(1, 4), "mish": Failures(failed, ended)}, baseline="relu", alpha=0.05)
    low = stats.beta.ppf(0.025, failed, ended - failed + 1) if failed else 0.0
    high = stats.beta.ppf(0.975, failed + 1, ended - failed) if failed < ended else 1.0
    assert (rates["mish"].low, rates["mish"].high) == pytest.approx((low, high), abs=1e-6)
    total = 1 + failed
    chances = stats.hypergeom(4 + ended, total, ended).pmf(range(total + 1))
    assert rates["mish"].p == pytest.approx(sum(p for p in chances if p <= chances[failed] * (1 + 1e-9)))
    assert rates["relu"].p is None and rates["relu"].failed == 1


def outcome_with_failures(failing: dict[str, int]) -> Outcome:
    runs = [
        replace(run, status="failed", rows=(), reason="loss is not finite")
        if run.seed < failing.get(run.act, 0)
        else run
        for run in runs_of(5)
    ]
    return analyse(runs, plan_of(5))[0]


def test_a_baseline_that_fails_is_less_reliable() -> None:
    """0 of 5 against 5 of 5 is p = 0.008, without any interval of mAP."""
    sentences = wording.recommendations.recommendation(outcome_with_failures({"relu": 5}))
    assert any("fewer runs of mish failed: 0 of 5, relu 5 of 5" in each and "p = 0.0079" in each for each in sentences)
    assert not any(
        "Significantly" in each for each in wording.recommendations.recommendation(outcome_with_failures({"relu": 2}))
    )


def test_the_activation_that_fails_as_often_as_the_baseline_may_be_used() -> None:
    assert wording.recommendations.recommendation(outcome_with_failures({}))[0].startswith("Use mish")
    assert wording.recommendations.recommendation(outcome_with_failures({"relu": 1, "mish": 1}))[0].startswith(
        "Use mish"
    )
    sentences = wording.recommendations.recommendation(outcome_with_failures({"mish": 1}))
    assert not any(each.startswith("Use") for each in sentences)
    assert any("where it trains" in each and "1 of 5 runs did not (relu: 0 of 5)" in each for each in sentences)


def test_a_collapsed_run_is_pointed_out_and_counts() -> None:
    def fallen(run: Run) -> Run:
        rows = tuple({**row, "metrics/mAP50-95": 0.02} for row in run.rows)
        return replace(run, rows=rows) if (run.act, run.seed) == ("silu", 2) else run

    whole, found = (analyse(runs, plan_of(5))[0] for runs in (runs_of(5), [fallen(run) for run in runs_of(5)]))
    assert found.verdicts["mish"].kind != "higher" and whole.verdicts["mish"].kind == "higher"
    remark = found.remarks[-1]
    assert remark.startswith("Collapsed: silu, seed 2: 2.0 points") and "mish: significantly higher" in remark
    assert 2 in found.primary.arms["silu"].values and len(whole.remarks) == 1
    assert "silu scatters" in found.remarks[0] and "scatters" not in whole.remarks[0]


def test_the_lowest_run_of_a_noisy_activation_has_not_collapsed() -> None:
    quiet = {"relu": dict(enumerate([30.0, 30.1, 29.9, 30.2, 29.8])), "silu": dict(enumerate([31.0, 31.1, 30.9, 31.2]))}
    noisy = dict(enumerate([34.0, 31.0, 28.5, 26.0, 23.0]))
    assert checks.collapsed(quiet | {"mish": noisy}, margin=0.5) == {}
    assert checks.collapsed(quiet | {"mish": noisy | {4: -9.0}}, margin=0.5) == {"mish": 4}


def test_unequal_scatter_against_bartletts_formula() -> None:
    values = {"relu": {0: 1.0, 1: 2.0, 2: 4.0}, "mish": {0: 3.0, 1: 10.0, 2: 26.0}}
    one, other = 7 / 3, 139.0  # variances
    pooled = (one + other) / 2
    statistic = (4 * np.log(pooled) - 2 * np.log(one) - 2 * np.log(other)) / (1 + (1 / 2 + 1 / 2 - 1 / 4) / 3)
    assert checks.unequal_scatter(values) == pytest.approx(stats.chi2.sf(statistic, 1))
    assert checks.unequal_scatter({"relu": {0: 1.0}, "mish": {0: 1.0, 1: 2.0}}) is None
    assert "3.0 times as much as a (within chance: Bartlett's test, p = 0.2)" in "".join(
        wording.verdicts.scatter({"a": 1.0, "b": 3.0}, "points", p=0.2)
    )


@pytest.mark.slow
def test_normal_runs_are_seldom_called_collapsed() -> None:
    """Three activations with three seeds: in less than 5 % of comparisons."""
    draw = np.random.default_rng(0)
    tables = draw.standard_normal((2000, 3, 3)).tolist()
    flagged = [checks.collapsed({str(n): dict(enumerate(r)) for n, r in enumerate(t)}, margin=0.5) for t in tables]
    assert sum(map(bool, flagged)) < 100
