"""The candidates against each other: Tukey's intervals."""

import math
import statistics
from pathlib import Path

import pytest
from scipy import stats

from benchmarks.simulate import scatter_errors
from comparison.all_pairs import all_pairs, tukey_critical
from comparison.statistics import compare, critical_value
from comparison.wording.plans import describe
from tests.comparison.made_runs import plan_of, report_of, write_comparison
from tests.comparison.test_statistics import drawn


@pytest.mark.parametrize(("arms", "degrees", "printed"), [(3, 10, 3.88), (4, 20, 3.96), (5, 8, 4.89)])
def test_critical_values_match_tables_of_the_studentized_range(arms: int, degrees: int, printed: float) -> None:
    assert round(math.sqrt(2) * tukey_critical(arms, degrees), 2) == printed


def test_two_candidates_have_the_interval_of_t() -> None:
    values = drawn(3, 5)
    (pair,) = all_pairs(values, baseline="relu")
    error = max(
        compare(values, baseline=one).differences[other].standard_error or 0
        for one, other in ((pair.one, pair.other), (pair.other, pair.one))
    )
    gaps = [values[pair.one][seed] - values[pair.other][seed] for seed in range(5)]
    half = float(stats.t.isf(0.025, 8)) * error
    assert pair.estimate == pytest.approx(statistics.fmean(gaps)) and pair.estimate >= 0 and pair.pairs == 5
    assert pair.interval == pytest.approx((pair.estimate - half, pair.estimate + half))
    assert error >= statistics.stdev(gaps) / math.sqrt(5) - 1e-12


@pytest.mark.parametrize("missing", [0, 3])
def test_every_pair_of_candidates_and_none_with_the_baseline(missing: int) -> None:
    values = drawn(5, 5, missing=missing)
    found = all_pairs(values, baseline="relu")
    assert len({frozenset((each.one, each.other)) for each in found}) == len(found) == 6
    assert not any("relu" in (each.one, each.other) for each in found)
    degrees = compare(values, baseline="relu").degrees
    assert tukey_critical(4, degrees) > critical_value(3, degrees)  # six differences need more than three
    for each in found:
        assert each.interval and sum(each.interval) / 2 == pytest.approx(each.estimate)


def test_one_seed_and_one_candidate_have_no_pair_interval() -> None:
    assert all_pairs(drawn(2, 5), baseline="relu") == ()
    (pair,) = all_pairs(drawn(3, 1), baseline="relu")
    assert pair.interval is None and not pair.separated


@pytest.mark.slow
@pytest.mark.parametrize(("acts", "seeds", "factor", "most"), [(5, 3, 1, 6.4), (3, 5, 1, 6.4), (5, 5, 4, 8.0)])
def test_error_rate(acts: int, seeds: int, factor: int, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.simulate.SCATTER", (factor,))
    assert 1.0 < scatter_errors(acts, seeds, sets=1000, seed=3, pairs=True)[factor] < most


@pytest.mark.slow
def test_a_declared_comparison_of_the_candidates_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    acts = ("relu", "silu", "mish")
    write_comparison(tmp_path, gains={"relu": 0.0, "silu": 8.0, "mish": 14.0}, seeds=range(5))
    plan = plan_of(acts, range(5), all_pairs=True)
    text, numbers = report_of(tmp_path, plan)
    (pair,) = numbers["pairs"]
    assert (pair["one"], pair["other"], pair["pairs"]) == ("mish", "silu", 5) and pair["interval"][0] > 0
    assert "mish vs silu: separated, mish is higher" in text and "all pairs" in describe(plan)
    assert any("mish vs silu: separated" in each for each in numbers["recommendation"])
    text, numbers = report_of(tmp_path, plan_of(acts, range(5)))
    assert numbers["pairs"] == [] and "not tested against each other" in text
    with pytest.raises(ValueError, match="all_pairs"):
        plan.merged(plan_of(acts, range(5)))
