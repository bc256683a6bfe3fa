"""Intervals, power and required seeds against published tables, independent computations and simulation."""

import itertools
import math
import statistics
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from comparison.power import minimal_detectable, power, seeds_for_equivalence, seeds_needed, sigma_upper
from comparison.statistics import (
    Values,
    classify,
    compare,
    compare_ratio,
    critical_value,
    interim_alpha,
    probability_within,
    value_at,
)

NAMES = ("relu", "mish", "silu", "gelu", "elu")


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """A division by zero or a mean of nothing is a fault even where the number is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(acts: int, seeds: int, *, number: int = 0, missing: int = 0) -> dict[str, dict[int, float]]:
    """Values of a mean, activations, seeds and residuals, without some cells."""
    generator = np.random.default_rng([acts, seeds, number, missing])
    table = (
        40 + generator.normal(0, 1, (acts, 1)) + generator.normal(0, 2, seeds) + generator.normal(0, 0.6, (acts, seeds))
    )
    values = {NAMES[act]: {seed: float(table[act, seed]) for seed in range(seeds)} for act in range(acts)}
    cells = list(itertools.product(range(acts), range(seeds)))
    for index in generator.permutation(len(cells))[:missing]:
        act, seed = cells[index]
        del values[NAMES[act]][seed]
    return values


# ------------------------------------------------------------------------------------------------- critical values


@pytest.mark.parametrize(("candidates", "printed"), [(1, 2.23), (2, 2.57), (3, 2.76), (4, 2.89)])
def test_critical_values_match_dunnett(candidates: int, printed: float) -> None:
    """Dunnett 1964, two-sided 5 %, 10 degrees of freedom."""
    assert round(critical_value(candidates, 10), 2) == printed


@pytest.mark.parametrize("degrees", [1, 2, 3, 8, 40, 2000])
@pytest.mark.parametrize("edge", [0.5, 2.0, 12.7])
def test_quadrature_with_one_candidate_matches_student(degrees: int, edge: float) -> None:
    assert probability_within(edge, 1, degrees) == pytest.approx(2 * stats.t.cdf(edge, degrees) - 1, abs=2e-7)


def test_critical_value_with_one_candidate_matches_student() -> None:
    assert critical_value(1, 4, alpha=0.01) == pytest.approx(4.604095, abs=1e-5)  # any table of t


@pytest.mark.parametrize(("candidates", "degrees", "alpha"), [(2, 2, 0.05), (2, 8, 0.1), (3, 6, 0.01), (4, 16, 0.05)])
def test_critical_value_against_simulation(candidates: int, degrees: int, alpha: float) -> None:
    """Drawn as differences of means from a common baseline, divided by a common sd."""
    generator, draws = np.random.default_rng(candidates), 400_000
    errors = generator.standard_normal((draws, candidates + 1))
    sd = np.sqrt(generator.chisquare(degrees, draws) / degrees)
    largest = np.abs(errors[:, 1:] - errors[:, :1]).max(axis=1) / (math.sqrt(2) * sd)
    beyond = float((largest > critical_value(candidates, degrees, alpha=alpha)).mean())
    assert beyond == pytest.approx(alpha, abs=4 * math.sqrt(alpha * (1 - alpha) / draws))


@pytest.mark.parametrize(("candidates", "degrees", "alpha"), [(0, 5, 0.05), (2, 0, 0.05), (2, 5, 0.0), (2, 5, 1.0)])
def test_invalid_arguments_of_the_critical_value(candidates: int, degrees: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="expected >= 1, >= 1"):
        critical_value(candidates, degrees, alpha=alpha)


# ------------------------------------------------------------------------------------------- before the runs: tables

SEEDS = (2, 3, 4, 5, 7, 9)
TABLE = {  # activations: (half-width, detectable) in sigma by SEEDS
    2: ((12.7, 16.3), (3.51, 4.62), (2.25, 3.01), (1.76, 2.38), (1.31, 1.80), (1.09, 1.51)),
    3: ((5.42, 7.03), (2.70, 3.57), (2.02, 2.70), (1.69, 2.27), (1.34, 1.81), (1.14, 1.56)),
    5: ((3.83, 4.97), (2.47, 3.25), (1.98, 2.63), (1.71, 2.27), (1.40, 1.86), (1.21, 1.62)),
}
CASES = [(acts, seeds, *pair) for acts, pairs in TABLE.items() for seeds, pair in zip(SEEDS, pairs, strict=True)]


@pytest.mark.parametrize(("acts", "seeds", "half", "detectable"), CASES)
def test_half_width_and_detectable_difference(acts: int, seeds: int, half: float, detectable: float) -> None:
    width = critical_value(acts - 1, (acts - 1) * (seeds - 1)) * math.sqrt(2 / seeds)
    assert width == pytest.approx(half, rel=0.005)
    found = minimal_detectable(sigma=2, candidates=acts - 1, seeds=seeds) / 2
    assert found == pytest.approx(detectable, rel=0.005)


@pytest.mark.parametrize(
    ("acts", "expected"), [(2, (65, 18, 10, 7, 5)), (3, (76, 20, 10, 7, 4)), (5, (87, 23, 11, 7, 4))]
)
def test_seeds_needed(acts: int, expected: tuple[int, ...]) -> None:
    effects = (0.5, 1, 1.5, 2, 3)
    found = tuple(seeds_needed(0.7 * effect, sigma=0.7, candidates=acts - 1) for effect in effects)
    assert found == expected
    for effect, seeds in zip(effects, expected, strict=True):  # the fewest indeed
        assert power(effect, sigma=1, candidates=acts - 1, seeds=seeds) >= 0.8
        assert power(-effect, sigma=1, candidates=acts - 1, seeds=seeds - 1) < 0.8


def test_seeds_needed_stop_at_the_limit() -> None:
    assert seeds_needed(0.01, sigma=1, candidates=2) is None
    assert seeds_needed(0.5, sigma=1, candidates=2, limit=76) == 76
    assert seeds_needed(0.5, sigma=1, candidates=2, limit=75) is None
    assert seeds_needed(0.0, sigma=1, candidates=2) is None
    assert seeds_needed(1000.0, sigma=1, candidates=2) == 2


def test_seeds_for_equivalence() -> None:
    found = [seeds_for_equivalence(margin, sigma=1, candidates=2) for margin in (0.5, 1, 1.5, 2, 3)]
    assert found == [83, 22, 11, 7, 4]
    assert seeds_for_equivalence(0.001, sigma=1, candidates=2) is None


@pytest.mark.parametrize(
    ("acts", "seeds", "expected"),  # %, simulated with 10,000 sets
    [
        (2, 3, (12, 29, 51)), (2, 5, (23, 66, 94)), (2, 9, (45, 96, 100)), (3, 3, (10, 34, 66)),
        (3, 5, (20, 69, 96)), (5, 3, (9, 36, 72)), (5, 5, (16, 67, 97)),
    ],
)  # fmt: skip
def test_power(acts: int, seeds: int, expected: tuple[float, ...]) -> None:
    found = [100 * power(3.0 * effect, sigma=3.0, candidates=acts - 1, seeds=seeds) for effect in (1, 2, 3)]
    assert found == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_power_without_a_difference_is_alpha(alpha: float) -> None:
    assert power(0.0, sigma=1, candidates=1, seeds=4, alpha=alpha) == pytest.approx(alpha, rel=1e-5)


def test_one_seed_has_no_power() -> None:
    assert power(100, sigma=1, candidates=1, seeds=1) == 0
    assert minimal_detectable(sigma=1, candidates=1, seeds=1) == math.inf


def test_conservative_errors_increase_the_detectable_difference() -> None:
    for candidates, more in ((1, 1.0), (2, 1.10), (4, 1.1225), (7, 1.13)):
        plain, guarded = (
            minimal_detectable(sigma=1, candidates=candidates, seeds=4, conservative=g) for g in (False, True)
        )
        assert guarded == pytest.approx(more * plain)


@pytest.mark.slow
def test_upper_confidence_limit_of_sigma_covers_80_percent() -> None:
    generator = np.random.default_rng(1)
    estimates = np.sqrt(generator.chisquare(8, 20_000) / 8)  # of a true sd of 1
    above = statistics.fmean(sigma_upper(float(each), 8) < 1 for each in estimates)
    assert above == pytest.approx(0.2, abs=0.012)


# -------------------------------------------------------------------------------------------------- comparisons


def plain_dunnett(values: Values, baseline: str) -> tuple[dict[str, tuple[float, float]], float]:
    """Estimates, standard errors and the residual sd of complete blocks, by the definitions, in loops."""
    acts, seeds = list(values), list(values[baseline])
    grand = statistics.fmean(values[act][seed] for act in acts for seed in seeds)
    squares = 0.0
    for act in acts:
        for seed in seeds:
            of_act = statistics.fmean(values[act].values())
            of_seed = statistics.fmean(values[other][seed] for other in acts)
            squares += (values[act][seed] - of_act - of_seed + grand) ** 2
    candidates = [act for act in acts if act != baseline]
    gaps = {act: [values[act][seed] - values[baseline][seed] for seed in seeds] for act in candidates}
    variance = statistics.fmean(statistics.variance(gap) for gap in gaps.values())
    mean_square = squares / ((len(acts) - 1) * (len(seeds) - 1))
    sigma = math.sqrt(max(mean_square, variance / 2))
    errors = {
        act: max(sigma * math.sqrt(2), statistics.stdev(gap)) / math.sqrt(len(seeds)) for act, gap in gaps.items()
    }
    return {act: (statistics.fmean(gap), errors[act]) for act, gap in gaps.items()}, sigma


@pytest.mark.parametrize("seeds", [2, 3, 5, 9])
@pytest.mark.parametrize("number", range(3))
def test_one_candidate_matches_the_paired_t_test(seeds: int, number: int) -> None:
    values = drawn(2, seeds, number=number)
    found = compare(values, baseline="relu")
    oracle = stats.ttest_rel([*values["mish"].values()], [*values["relu"].values()])
    interval = oracle.confidence_interval(0.95)
    difference = found.differences["mish"]
    assert difference.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert difference.estimate == pytest.approx(np.mean(interval), rel=1e-9)
    assert (not interval.low <= 0 <= interval.high) == (oracle.pvalue < 0.05)
    inner = oracle.confidence_interval(0.90)
    assert difference.equivalence_interval == pytest.approx((inner.low, inner.high), rel=1e-9)
    assert found.degrees == seeds - 1 == oracle.df
    assert difference.pairs == seeds


@pytest.mark.parametrize(("acts", "seeds"), [(3, 2), (3, 5), (5, 3)])
@pytest.mark.parametrize("number", range(4))
def test_complete_runs_match_the_definitions(acts: int, seeds: int, number: int) -> None:
    values = drawn(acts, seeds, number=number)
    found = compare(values, baseline="mish", alpha=0.04)
    oracle, sigma = plain_dunnett(values, "mish")
    assert list(found.differences) == [act for act in values if act != "mish"]
    edge = critical_value(acts - 1, (acts - 1) * (seeds - 1), alpha=0.04)
    for each in found.differences.values():
        estimate, error = oracle[each.name]
        assert (each.estimate, each.standard_error) == pytest.approx((estimate, error), rel=1e-9)
        assert each.interval == pytest.approx((estimate - edge * error, estimate + edge * error), rel=1e-9)
        assert each.sigma == pytest.approx(error / math.sqrt(2 / seeds), rel=1e-9)
    assert found.sigma == pytest.approx(sigma, rel=1e-9)


def test_a_noisy_baseline_widens_the_intervals() -> None:
    """Two candidates that agree to the last digit in their course, and a baseline that does not."""
    course = [0.0, 1.0, 2.0, 3.0, 4.0]
    values = {
        "relu": dict(enumerate([2.0, -1.0, 5.0, 1.0, 3.0])),
        "mish": dict(enumerate(course)),
        "silu": {seed: value + 0.1 for seed, value in enumerate(course)},
    }
    found = compare(values, baseline="relu")
    gap = statistics.variance(values["mish"][seed] - values["relu"][seed] for seed in range(5))
    assert found.sigma == pytest.approx(math.sqrt(gap / 2))  # the two-way residual would be a third less in variance
    assert compare(values, baseline="mish").sigma == pytest.approx(math.sqrt(gap / 3))


def test_a_noisy_candidate_widens_its_own_interval_only() -> None:
    values = {
        "relu": {0: 40.0, 1: 41.0, 2: 39.5, 3: 40.3, 4: 40.1},
        "silu": {0: 42.1, 1: 43.0, 2: 41.7, 3: 42.3, 4: 42.2},
        "mish": {0: 46.0, 1: 30.0, 2: 52.0, 3: 38.0, 4: 41.0},
    }
    found = compare(values, baseline="relu")
    silu, mish = (found.differences[act] for act in ("silu", "mish"))
    assert found.sigma
    own = statistics.stdev(values["mish"][seed] - values["relu"][seed] for seed in range(5)) / math.sqrt(5)
    pooled = found.sigma * math.sqrt(2 / 5)
    assert silu.standard_error == pytest.approx(pooled) and mish.standard_error == pytest.approx(own) and own > pooled
    assert silu.sigma == pytest.approx(found.sigma) and mish.sigma == pytest.approx(own / math.sqrt(2 / 5))


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "least", "most"), [(5, 0.035, 0.066), (3, 0.05, 0.085)])
def test_error_rate_with_a_noisy_candidate(seeds: int, least: float, most: float) -> None:
    """One of four candidates with four times the sd: 11 % with the pooled error alone; three seeds exceed 5 %."""
    generator = np.random.default_rng(seeds)
    sets = 3000
    tables = generator.standard_normal((sets, 5, seeds)) * np.array([1, 1, 1, 1, 4])[:, None]
    errors = pooled = 0
    for table in tables:
        found = compare({NAMES[act]: dict(enumerate(table[act].tolist())) for act in range(5)}, baseline="relu")
        assert found.sigma and found.critical
        edge = found.critical * found.sigma * math.sqrt(2 / seeds)
        errors += any(abs(each.estimate) > found.critical * each.standard_error for each in found.differences.values())
        pooled += any(abs(each.estimate) > edge for each in found.differences.values())
    assert least < errors / sets < most and pooled / sets > 0.09


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss elimination with pivots, in loops."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(size):
            if row != column:
                factor = rows[row][column] / rows[column][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column], strict=True)]
    return [rows[row][size] / rows[row][row] for row in range(size)]


def plain_least_squares(values: Values, baseline: str) -> tuple[dict[str, tuple[float, float]], float, int]:
    """Estimates with their factors, residual sum of squares, degrees of freedom; the normal equations in loops."""
    candidates = [act for act in values if act != baseline]
    seeds = sorted({seed for cells in values.values() for seed in cells})
    cells = [(act, seed, value) for act in values for seed, value in values[act].items()]
    columns = [*candidates, *seeds]
    design = [[float(column in (act, seed)) for column in columns] for act, seed, _ in cells]
    normal = [[sum(row[i] * row[j] for row in design) for j in range(len(columns))] for i in range(len(columns))]
    right = [sum(row[i] * value for row, (_, _, value) in zip(design, cells, strict=True)) for i in range(len(columns))]
    solution = solve(normal, right)
    squares = sum(
        (value - sum(a * b for a, b in zip(row, solution, strict=True))) ** 2
        for row, (_, _, value) in zip(design, cells, strict=True)
    )
    found = {}
    for index, act in enumerate(candidates):
        unit = [float(other == index) for other in range(len(columns))]
        found[act] = (solution[index], math.sqrt(solve(normal, unit)[index]))
    return found, squares, len(cells) - len(values) - len(seeds) + 1


@pytest.mark.parametrize(("acts", "seeds", "missing"), [(2, 5, 1), (3, 5, 1), (3, 5, 3), (5, 3, 2), (5, 5, 4)])
@pytest.mark.parametrize("number", range(3))
def test_missing_runs_match_least_squares(acts: int, seeds: int, missing: int, number: int) -> None:
    values = drawn(acts, seeds, number=number, missing=missing)
    found = compare(values, baseline="relu")
    oracle, squares, degrees = plain_least_squares(values, "relu")
    gaps = [
        [values[act][seed] - values["relu"][seed] for seed in values[act] if seed in values["relu"]] for act in oracle
    ]
    variance = statistics.fmean(statistics.variance(gap) for gap in gaps if len(gap) > 1)
    sigma = math.sqrt(max(squares / degrees, variance / 2))
    assert found.degrees == degrees and found.sigma == pytest.approx(sigma, rel=1e-8)
    for each, gap in zip(found.differences.values(), gaps, strict=True):
        estimate, factor = oracle[each.name]
        error = max(sigma * factor, statistics.stdev(gap) / math.sqrt(len(gap)) if len(gap) > 1 else 0)
        assert (each.estimate, each.standard_error) == pytest.approx((estimate, error), rel=1e-8)
        assert each.pairs == len(gap)
    assert not found.complete


def test_a_seed_with_a_single_run_changes_nothing() -> None:
    """A seed with a single cell adds nothing: neither to an estimate nor to the error."""
    values = drawn(3, 4)
    more = {**values, "relu": {**values["relu"], 9: 55.0}}
    one, other = compare(values, baseline="relu"), compare(more, baseline="relu")
    for a, b in zip(one.differences.values(), other.differences.values(), strict=True):
        assert (a.estimate, a.standard_error) == pytest.approx((b.estimate, b.standard_error), rel=1e-9)
    assert one.degrees == other.degrees and other.seeds == (0, 1, 2, 3, 9)


def test_correlation_of_paired_runs() -> None:
    values = drawn(3, 6, missing=1)
    for each in compare(values, baseline="relu").differences.values():
        both = sorted(set(values["relu"]) & set(values[each.name]))
        oracle = statistics.correlation([values["relu"][s] for s in both], [values[each.name][s] for s in both])
        assert each.correlation == pytest.approx(oracle)
    assert compare(drawn(2, 2), baseline="relu").differences["mish"].correlation is None


def test_intervals_are_invariant_to_seed_offsets() -> None:
    values = drawn(3, 5, missing=2)
    moved = {act: {seed: value + 1e4 + 7 * seed for seed, value in cells.items()} for act, cells in values.items()}
    for a, b in zip(
        compare(values, baseline="relu").differences.values(),
        compare(moved, baseline="relu").differences.values(),
        strict=True,
    ):
        assert a.interval == pytest.approx(b.interval, rel=1e-6)


def test_candidate_without_a_common_seed() -> None:
    """By way of another candidate it can be compared, else not; the others' intervals are still meant for both."""
    values: dict[str, dict[int, float]] = {
        "relu": {0: 1.0, 1: 2.0, 2: 3.5}, "mish": {0: 2.0, 1: 3.1, 2: 4.0, 3: 9.0}, "silu": {3: 8.0}, "gelu": {7: 1.0},
        "elu": {},
    }  # fmt: skip
    found = compare(values, baseline="relu")
    assert list(found.differences) == ["mish", "silu"] and found.missing == ("gelu", "elu")
    mish, silu = found.differences.values()
    assert silu.estimate == pytest.approx(mish.estimate - 1.0) and silu.pairs == 0 and silu.correlation is None
    assert found.candidates == 4 and found.critical == critical_value(4, found.degrees)


def test_one_seed_has_no_interval() -> None:
    found = compare({"relu": {3: 40.0}, "mish": {3: 40.8}}, baseline="relu")
    assert (found.sigma, found.degrees, found.critical) == (None, 0, None)
    only = found.differences["mish"]
    assert only.estimate == pytest.approx(0.8)
    assert (only.standard_error, only.interval, only.equivalence_interval, only.correlation) == (None, None, None, None)


@pytest.mark.parametrize("offset", [0.0, 0.1, -17.3])
@pytest.mark.parametrize("missing", [False, True])
def test_zero_variance_gives_no_interval(offset: float, missing: bool) -> None:
    """The same difference in each seed, as of memory or of two identical runs: no division by zero, no certainty."""
    base = {0: 512.3, 1: 511.9, 2: 523.7}
    other = {seed: value + offset for seed, value in base.items()}
    if missing:
        del other[1]
    found = compare({"relu": base, "mish": other}, baseline="relu")
    assert found.sigma == 0 and found.differences["mish"].interval is None
    assert found.differences["mish"].estimate == pytest.approx(offset)
    assert classify(found.differences["mish"], margin=0.5) == "none"


def test_identical_values() -> None:
    found = compare({act: dict.fromkeys(range(3), 5.0) for act in NAMES[:3]}, baseline="relu")
    assert found.sigma == 0 and all(
        each.estimate == 0 and each.correlation is None for each in found.differences.values()
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mish": {0: 1.0}, "relu": {}}, "baseline relu has no value"),
        ({"mish": {0: 1.0}}, "baseline relu has no value"),
        ({"relu": {0: 1.0}}, "nothing to compare relu with"),
        ({"relu": {0: 1.0}, "mish": {0: math.nan}}, "expected finite values"),
    ],
)
def test_incomparable_values_are_rejected(values: Values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(values, baseline="relu")


def test_ratios_of_geometric_means() -> None:
    values = {
        "relu": {0: 100.0, 1: 200.0, 2: 80.0, 3: 150.0},
        "mish": {0: 110.0, 1: 222.0, 2: 87.0, 3: 166.0},
    }
    found = compare_ratio(values, baseline="relu")
    mean, base = (statistics.geometric_mean(values[act].values()) for act in ("mish", "relu"))
    logs = [[math.log(value) for value in values[act].values()] for act in ("mish", "relu")]
    interval = stats.ttest_rel(*logs).confidence_interval(0.95)
    assert found.ratio and found.differences["mish"].estimate == pytest.approx(mean / base)
    assert found.differences["mish"].interval == pytest.approx((math.exp(interval.low), math.exp(interval.high)))
    seconds = {act: {seed: 60 * value for seed, value in cells.items()} for act, cells in values.items()}
    assert compare_ratio(seconds, baseline="relu").differences["mish"].interval == pytest.approx(
        found.differences["mish"].interval
    )
    with pytest.raises(ValueError, match="relu, seed 1: expected a value above 0"):
        compare_ratio({"relu": {0: 1.0, 1: 0.0}, "mish": {0: 1.0}}, baseline="relu")


def test_wide_intervals_of_ratios_do_not_overflow() -> None:
    found = compare_ratio({"relu": {0: 1e-40, 1: 1e40}, "mish": {0: 1e40, 1: 1e-40}}, baseline="relu")
    assert found.differences["mish"].interval == (0.0, math.inf)


# ----------------------------------------------------------------------------------------------------- interim analyses


def test_alpha_spent_at_interim_analyses() -> None:
    assert [interim_alpha((3, 5), seeds) for seeds in (3, 5)] == pytest.approx([0.01, 0.04])
    assert [interim_alpha((3, 5, 9), seeds) for seeds in (3, 5, 9)] == pytest.approx([0.005, 0.015, 0.03])
    assert interim_alpha((5,), 5, alpha=0.1) == pytest.approx(0.1)
    assert sum(interim_alpha((2, 3, 5, 9, 12), seeds) for seeds in (2, 3, 5, 9, 12)) == pytest.approx(0.05)


@pytest.mark.parametrize(("looks", "seeds"), [((3, 5), 4), ((), 3), ((5, 3), 3), ((3, 3), 3)])
def test_unplanned_interim_analysis_is_rejected(looks: tuple[int, ...], seeds: int) -> None:
    with pytest.raises(ValueError, match="not a planned interim analysis"):
        interim_alpha(looks, seeds)


@pytest.mark.slow
def test_alpha_spending_controls_the_error_rate() -> None:
    """Looking after 3 and 5 seeds: each time at 5 % errs in more than 5 %, with the shares in at most 5."""
    generator = np.random.default_rng(5)
    honest = peeking = 0
    sets = 1500
    for _ in range(sets):
        table = generator.standard_normal((3, 5))
        found = {alpha: [False, False] for alpha in ("own", "full")}
        for index, seeds in enumerate((3, 5)):
            values = {NAMES[act]: dict(enumerate(table[act, :seeds].tolist())) for act in range(3)}
            for name, alpha in (("own", interim_alpha((3, 5), seeds)), ("full", 0.05)):
                differences = compare(values, baseline="relu", alpha=alpha).differences
                found[name][index] = any(
                    not d.interval[0] <= 0 <= d.interval[1] for d in differences.values() if d.interval
                )
        honest += any(found["own"])
        peeking += any(found["full"])
    assert honest / sets <= 0.04 < 0.05 < peeking / sets


# ----------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize(
    ("t", "value"), [(10, 1.0), (15, 2.0), (20, 3.0), (25, 2.5), (30, 2.0), (9.99, None), (30.01, None)]
)
def test_curves_are_interpolated_linearly(t: float, value: float | None) -> None:
    """What comes out at 25 is neither the best so far (3) nor the last before (3)."""
    assert value_at([10, 20, 30], [1, 3, 2], t) == (None if value is None else pytest.approx(value))


def test_curves_with_at_most_one_point() -> None:
    assert value_at([], [], 1.0) is None and value_at([2.0], [5.0], 2.0) == 5.0
    with pytest.raises(ValueError, match="must increase"):
        value_at([1, 1], [1, 2], 1)
