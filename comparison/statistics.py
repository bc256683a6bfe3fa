"""Candidates against a baseline over common seeds: intervals that hold together, what would be needed, and the words.

The model of the values is mean + activation + seed + residual. Intervals and tests are one thing: the two-sided
Dunnett intervals for m candidates (at one candidate the paired t), with a residual sd that is guarded against a
baseline noisier than the rest: the larger of the two-way residual and of half the mean variance of the differences.
Error rates, coverage and power of all this are simulated by ``python -m benchmarks.simulate``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2
from scipy.stats import t as student

Values = Mapping[str, Mapping[int, float]]
"""Activation label -> seed -> value; a missing cell is simply not there."""

ROUNDING = 1e-12  # of the largest value: residuals below it are none
LOOKS = {1: (1.0,), 2: (0.2, 0.8), 3: (0.1, 0.3, 0.6)}  # shares of alpha, simulated; for more looks as 1, 4, 9, 16, ...
GUARD = {1: 1.0, 2: 1.05, 3: 1.06}  # by candidates, above 1.07: what the guarded sd adds to the detectable difference
CAUTION = 0.2  # the upper value of a sd is exceeded by the true one in this share of cases


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Candidate minus baseline in the unit of the values; of a ratio comparison, candidate divided by baseline."""

    name: str
    estimate: float
    standard_error: float | None  # of a ratio that of its log; None with one seed or without any spread
    interval: tuple[float, float] | None  # simultaneous, 1 - alpha; None where there is no standard error
    inner: tuple[float, float] | None  # simultaneous, 1 - 2 alpha: for "same within" and "not worse"
    pairs: int  # seeds that both have
    correlation: float | None  # between seeds' partners; None below three pairs


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All candidates against the baseline. A candidate that shares no seed with it, not even by way of others, is in
    `missing` and not in `differences`."""

    baseline: str
    seeds: tuple[int, ...]
    differences: tuple[Difference, ...]  # in the order of the candidates
    sigma: float | None  # guarded residual sd of one run (of its log for ratios); None without a degree of freedom
    degrees: int  # of freedom
    critical: float | None
    alpha: float
    method: str
    ratio: bool = False
    missing: tuple[str, ...] = ()

    @property
    def candidates(self) -> int:
        """How many the intervals are meant for."""
        return len(self.differences) + len(self.missing)


# -------------------------------------------------------------------------------------------------- the distribution


@lru_cache(maxsize=256)
def _scales(degrees: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights for a mean over s = sqrt(chi2 / degrees): Gauss-Legendre in log s."""
    low, high = (0.5 * math.log(edge / degrees) for edge in (chi2.ppf(1e-13, degrees), chi2.isf(1e-13, degrees)))
    nodes, weights = np.polynomial.legendre.leggauss(128)
    s = np.exp(low + (high - low) * (nodes + 1) / 2)
    weights = weights * chi2.pdf(degrees * s**2, degrees) * s**2
    return s, weights / weights.sum()


@lru_cache(maxsize=1)
def _normal() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights for a mean over a standard normal: Gauss-Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    return nodes, weights / weights.sum()


def probability_within(critical: float, candidates: int, degrees: int) -> float:
    """Probability that no candidate of none different lies beyond `critical` standard errors from the baseline."""
    s, over_s = _scales(degrees)
    z, over_z = _normal()
    half = math.sqrt(2) * critical * s[:, None]
    return float(over_s @ ((ndtr(z + half) - ndtr(z - half)) ** candidates) @ over_z)


@lru_cache(maxsize=4096)
def critical_value(candidates: int, degrees: int, *, alpha: float = 0.05) -> float:
    """Two-sided critical value of Dunnett's test, correlation 1/2 (Dunnett 1955, 1964); Student's at one candidate.

    By quadrature: the integral over the baseline's error and over the residual sd (``multivariate_t.cdf`` of scipy
    gives other digits at each call).
    """
    if candidates < 1 or degrees < 1 or not 0 < alpha < 1:
        raise ValueError(f"candidates {candidates}, degrees {degrees}, alpha {alpha}: expected >= 1, >= 1, in (0, 1)")
    lowest = float(student.isf(alpha / 2, degrees))
    if candidates == 1:
        return lowest
    highest = float(student.isf(alpha / (2 * candidates), degrees))  # Bonferroni's
    return float(brentq(lambda c: probability_within(c, candidates, degrees) - (1 - alpha), lowest, highest, xtol=1e-9))


# ------------------------------------------------------------------------------------------------------- comparisons


def compare(values: Values, *, baseline: str, alpha: float = 0.05) -> Comparison:
    """Differences of all other activations from the baseline. ValueError without a value of the baseline.

    Complete or with missing cells: least squares of activation + seed. One seed: differences alone.
    """
    acts = [baseline, *(act for act in values if act != baseline)]
    if not values.get(baseline):
        raise ValueError(f"there is no value of the baseline {baseline}")
    if len(acts) < 2:
        raise ValueError(f"there is nothing to compare {baseline} with")
    seeds = sorted({seed for cells in values.values() for seed in cells})
    table = np.array([[values[act].get(seed, math.nan) for seed in seeds] for act in acts])
    if not np.isfinite(np.concatenate([list(values[act].values()) for act in acts])).all():
        raise ValueError("expected finite values; a run without a figure has no cell")
    known = _connected(table)
    estimates, factors, squares, degrees = _least_squares(table[known])
    gaps = table[known][1:] - table[known][0]
    sigma = _guarded(squares, degrees, gaps)
    if sigma is not None and sigma <= ROUNDING * float(np.nanmax(np.abs(table))):
        sigma = 0.0  # identical in every seed: nothing that a test could rest on
    candidates = len(acts) - 1
    critical = critical_value(candidates, degrees, alpha=alpha) if degrees else None
    inner = critical_value(candidates, degrees, alpha=2 * alpha) if degrees else 0.0
    found = [act for act, there in zip(acts, known, strict=True) if there][1:]
    differences = []
    for row, (name, estimate, factor) in enumerate(zip(found, estimates, factors, strict=True), 1):
        error = sigma * factor if sigma else None
        differences.append(
            Difference(
                name=name,
                estimate=estimate,
                standard_error=error,
                interval=(estimate - critical * error, estimate + critical * error) if error and critical else None,
                inner=(estimate - inner * error, estimate + inner * error) if error else None,
                pairs=int(np.isfinite(gaps[row - 1]).sum()),
                correlation=_correlation(table[known][0], table[known][row]),
            )
        )
    return Comparison(
        baseline=baseline,
        seeds=tuple(seeds),
        differences=tuple(differences),
        sigma=sigma,
        degrees=degrees,
        critical=critical,
        alpha=alpha,
        method=_method(
            candidates, len(seeds), degrees, critical, sigma, alpha, complete=bool(np.isfinite(table).all())
        ),
        missing=tuple(act for act, there in zip(acts, known, strict=True) if not there),
    )


def compare_ratio(values: Values, *, baseline: str, alpha: float = 0.05) -> Comparison:
    """The same on logarithms: estimates and intervals are ratios of geometric means, sigma and errors those of logs."""
    low = [(act, seed) for act, cells in values.items() for seed, value in cells.items() if not value > 0]
    if low:
        raise ValueError(f"{low[0][0]}, seed {low[0][1]}: expected a value above 0 for a ratio")
    logs = {act: {seed: math.log(value) for seed, value in cells.items()} for act, cells in values.items()}
    found = compare(logs, baseline=baseline, alpha=alpha)

    def ends(interval: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if interval is None else (_exp(interval[0]), _exp(interval[1]))

    differences = tuple(
        replace(each, estimate=_exp(each.estimate), interval=ends(each.interval), inner=ends(each.inner))
        for each in found.differences
    )
    method = f"On logarithms, a ratio being that of geometric means: {found.method}"
    return replace(found, differences=differences, method=method, ratio=True)


def _exp(value: float) -> float:
    """exp, infinite where it would overflow (the interval of two seeds may be as wide)."""
    return math.exp(value) if value < 700 else math.inf


def _connected(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows that are joined to the first by seeds in common, if need be by way of other rows."""
    there = np.isfinite(table)
    known = np.zeros(len(table), bool)
    known[0] = True
    while True:
        further = there[:, there[known].any(axis=0)].any(axis=1) | known
        if (further == known).all():
            return known
        known = further


def _least_squares(table: NDArray[np.float64]) -> tuple[list[float], list[float], float, int]:
    """Differences from row 0, their standard errors in units of sigma, the residual sum of squares, its degrees."""
    there = np.isfinite(table)
    table, there = table[:, there.any(axis=0)], there[:, there.any(axis=0)]
    acts, seeds = table.shape
    degrees = int(there.sum()) - acts - seeds + 1
    if there.all():
        means = table.mean(axis=1)
        residuals = table - means[:, None] - table.mean(axis=0) + table.mean()
        factor = math.sqrt(2 / seeds)
        return (
            [float(mean - means[0]) for mean in means[1:]],
            [factor] * (acts - 1),
            float((residuals**2).sum()),
            degrees,
        )
    row, column = np.nonzero(there)
    level = table[there].mean()  # taken off first, for the digits' sake
    design = np.hstack([row[:, None] == np.arange(1, acts), column[:, None] == np.arange(seeds)]).astype(float)
    inverse = np.linalg.inv(design.T @ design)
    solution = inverse @ (design.T @ (table[there] - level))
    residuals = table[there] - level - design @ solution
    factors = np.sqrt(np.diag(inverse))[: acts - 1]
    return solution[: acts - 1].tolist(), factors.tolist(), float((residuals**2).sum()), degrees


def _guarded(squares: float, degrees: int, gaps: NDArray[np.float64]) -> float | None:
    """The residual sd: the larger of the model's and of that which the differences from the baseline show."""
    if degrees < 1:
        return None
    variances = [float(np.var(gap[np.isfinite(gap)], ddof=1)) for gap in gaps if np.isfinite(gap).sum() > 1]
    guard = sum(variances) / len(variances) / 2 if variances else 0.0
    return math.sqrt(max(squares / degrees, guard))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < 3:
        return None
    one, other = one[both] - one[both].mean(), other[both] - other[both].mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(np.clip(one @ other / size, -1, 1)) if size > 0 else None


def _method(
    candidates: int,
    seeds: int,
    degrees: int,
    critical: float | None,
    sigma: float | None,
    alpha: float,
    *,
    complete: bool,
) -> str:
    """The method in words, with its numbers."""
    if critical is None or sigma is None:
        return "One value an activation: differences as they are, no interval."
    if sigma == 0:
        return "The differences are the same in every seed: there is no spread that an interval could rest on."
    name = "Student's paired t" if candidates == 1 else f"Dunnett's two-sided intervals for {candidates} candidates"
    fit = "complete blocks" if complete else "least squares of activation and seed on the cells that are there"
    return (
        f"{name}, simultaneous {100 * (1 - alpha):g} %, over {seeds} seeds ({fit}): estimate +- {critical:.3f} standard"
        f" errors, {degrees} degrees of freedom, residual sd {sigma:.4g}, guarded: the larger of the two-way residual"
        " and of what the differences from the baseline show."
    )


# ------------------------------------------------------------------------------------------------ before the runs


def _degrees(candidates: int, seeds: int) -> int:
    return candidates * (seeds - 1)


def power(difference: float, *, sigma: float, candidates: int, seeds: int, alpha: float = 0.05) -> float:
    """Chance that a true difference of one candidate is told from 0, in either direction, with complete blocks."""
    return _chance(difference / sigma, candidates, seeds, alpha)


def _chance(effect: float, candidates: int, seeds: int, alpha: float) -> float:
    """The power at a difference given in residual sds."""
    if seeds < 2:
        return 0.0
    degrees = _degrees(candidates, seeds)
    s, weights = _scales(degrees)
    edge = critical_value(candidates, degrees, alpha=alpha) * s
    shift = effect / math.sqrt(2 / seeds)
    return float(weights @ (ndtr(shift - edge) + ndtr(-shift - edge)))


def minimal_detectable(
    *, sigma: float, candidates: int, seeds: int, alpha: float = 0.05, power: float = 0.8, guarded: bool = False
) -> float:
    """The difference that is told from 0 with this chance; infinite with one seed.

    `guarded`: with what the guard of the residual sd adds, 5 % at two candidates, 7 % from four on (simulated);
    right where `sigma` is the true one. A sigma that ``compare`` estimated has it in it already.
    """
    if seeds < 2:
        return math.inf
    top = 1.0
    while _chance(top, candidates, seeds, alpha) < power:
        top *= 2
    effect = brentq(lambda effect: _chance(effect, candidates, seeds, alpha) - power, 0, top, xtol=1e-6)
    return sigma * effect * (GUARD.get(candidates, 1.07) if guarded else 1.0)


def seeds_needed(
    difference: float, *, sigma: float, candidates: int, alpha: float = 0.05, power: float = 0.8, limit: int = 1000
) -> int | None:
    """Fewest seeds with which a true difference is told from 0 with this chance; None where `limit` does not do."""
    return _fewest(lambda seeds: _chance(abs(difference) / sigma, candidates, seeds, alpha), power, limit)


def seeds_for_same(
    margin: float, *, sigma: float, candidates: int, alpha: float = 0.05, power: float = 0.8, limit: int = 1000
) -> int | None:
    """Fewest seeds with which two that do not differ are found "the same within +-margin" with this chance."""

    def chance(seeds: int) -> float:
        degrees = _degrees(candidates, seeds)
        s, weights = _scales(degrees)
        room = margin / (sigma * math.sqrt(2 / seeds)) - critical_value(candidates, degrees, alpha=2 * alpha) * s
        return float(weights @ np.maximum(2 * ndtr(room) - 1, 0))

    return _fewest(chance, power, limit)


def _fewest(chance: Callable[[int], float], wanted: float, limit: int) -> int | None:
    """The fewest seeds, from two on, whose chance is as wanted; the chance grows with the seeds."""
    if chance(limit) < wanted:
        return None
    low, high = 1, 2
    while chance(high) < wanted:
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= wanted else (middle, high)
    return high


def sigma_upper(sigma: float, degrees: int) -> float:
    """The 80 % upper value of a residual sd estimated with these degrees of freedom."""
    return sigma * math.sqrt(degrees / float(chi2.ppf(CAUTION, degrees)))


def look_alpha(looks: Sequence[int], seeds: int, *, alpha: float = 0.05) -> float:
    """The share of alpha spent at the look after `seeds` seeds, of looks declared before the runs.

    The shares sum to alpha, so the error over all looks is at most alpha, whatever is done between them.
    """
    if list(looks) != sorted(set(looks)) or seeds not in looks:
        raise ValueError(f"{seeds} seeds are no declared look; expected one of {', '.join(map(str, looks))}, rising")
    weights = LOOKS.get(len(looks)) or [(number + 1) ** 2 for number in range(len(looks))]
    return alpha * weights[list(looks).index(seeds)] / sum(weights)


# ------------------------------------------------------------------------------------------------------------- words


def signed(value: float, unit: str = "", *, digits: int = 2) -> str:
    """A difference with its sign, as +0.80; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    text = text[1:] if float(text) == 0 else text
    return f"{text} {unit}".rstrip()


def _ends(interval: tuple[float, float], digits: int) -> str:
    return f"[{signed(interval[0], digits=digits)}, {signed(interval[1], digits=digits)}]"


def kind(difference: Difference, *, margin: float) -> str:
    """What holds of a difference, the first that does: none (no interval), higher, lower, same, not worse, open."""
    if difference.interval is None or difference.inner is None:
        return "none"
    if difference.interval[0] > 0 or difference.interval[1] < 0:
        return "higher" if difference.interval[0] > 0 else "lower"
    if difference.inner[0] > -margin:
        return "same" if difference.inner[1] < margin else "not worse"
    return "open"


def verdict(
    difference: Difference,
    comparison: Comparison,
    *,
    margin: float,
    unit: str,
    failed: Mapping[str, tuple[int, int]] | None = None,
    exploratory: bool = False,
    digits: int = 2,
) -> str:
    """What may be said of a candidate, the first that holds: higher or lower, the same, not worse, cannot tell.

    `margin`: within it two count as the same, in the unit of the values. `failed`: activation -> (failed, of).
    An exploratory comparison gives its numbers and no verdict. Never "no difference", "equal" or "trend".
    """
    lost = _lost((difference.name, comparison.baseline), failed or {})
    found = kind(difference, margin=margin)
    if difference.interval is None or difference.inner is None:
        return lost + _unspread(difference, comparison, unit, digits)
    percent, inner_percent = (f"{100 * (1 - share):g} %" for share in (comparison.alpha, 2 * comparison.alpha))
    low, high = difference.interval
    count = comparison.candidates
    basis = f"{percent} simultaneous, {count} candidate{'s' * (count > 1)}, {len(comparison.seeds)} seeds"
    name, base = difference.name, comparison.baseline
    numbers = f"{_ends(difference.interval, digits)} ({basis})"
    inner = f"{_ends(difference.inner, digits)} ({inner_percent} simultaneous)"
    if exploratory:
        words = f"exploratory, no verdict: {name} - {base} {signed(difference.estimate, unit, digits=digits)} {numbers}"
    elif found in ("higher", "lower"):
        words = f"{name} is {found} than {base} by {abs(difference.estimate):.{digits}f} {unit} {numbers}"
    elif found == "same":
        words = f"{name} and {base} are the same within ±{margin:g} {unit} {inner}"
    elif found == "not worse":
        words = f"{name} is not worse than {base} by more than {margin:g} {unit}; a gain is not shown {inner}"
    else:
        remain = f"{signed(low, digits=digits)} to {signed(high, unit, digits=digits)} remain possible"
        words = f"{name} against {base}: cannot tell; {remain} ({basis}){_price(comparison, margin, unit)}"
    few = "; two seeds show gross differences only" if len(comparison.seeds) == 2 else ""
    return lost + words + few


def _lost(names: Sequence[str], failed: Mapping[str, tuple[int, int]]) -> str:
    """The prefix of a verdict in which runs failed: a failure is an outcome."""
    lost = [
        f"{failed[name][0]} of {failed[name][1]} runs of {name} failed" for name in names if failed.get(name, (0,))[0]
    ]
    return f"{', '.join(lost)}; among completed runs " if lost else ""


def _unspread(difference: Difference, comparison: Comparison, unit: str, digits: int) -> str:
    """The words where there is no interval: one seed, or no spread at all."""
    observed = f"{difference.name} - {comparison.baseline}: observed {signed(difference.estimate, unit, digits=digits)}"
    if comparison.sigma == 0.0:
        return f"{observed} in each seed; without any spread between seeds there is no interval and no verdict"
    seeds = len(comparison.seeds)
    return f"{observed}; {'one seed' if seeds == 1 else f'too few complete pairs in {seeds} seeds'}, no verdict"


def _price(comparison: Comparison, margin: float, unit: str) -> str:
    """The seeds that would show a difference as large as the margin: what is asked for, not what was observed."""
    if not comparison.sigma or margin <= 0:
        return ""

    def needed(sigma: float) -> str:
        seeds = seeds_needed(margin, sigma=sigma, candidates=comparison.candidates, alpha=comparison.alpha)
        return "more than 1000" if seeds is None else str(seeds)

    likely, careful = needed(comparison.sigma), needed(sigma_upper(comparison.sigma, comparison.degrees))
    return f"; about {likely} seeds ({careful} cautiously) would show {margin:g} {unit}"


def verdict_ratio(
    difference: Difference,
    comparison: Comparison,
    *,
    what: str,
    failed: Mapping[str, tuple[int, int]] | None = None,
    exploratory: bool = False,
) -> str:
    """The same for a ratio, such as one of training times; there is no margin for it."""
    lost = _lost((difference.name, comparison.baseline), failed or {})
    name, base = difference.name, comparison.baseline
    size = f"{name} takes {difference.estimate:.3f} times the {what} of {base}"
    if difference.interval is None:
        return f"{lost}{size}; no spread or one seed, no interval"
    low, high = difference.interval
    basis = f"[{low:.3f}, {high:.3f}] ({100 * (1 - comparison.alpha):g} % simultaneous, {len(comparison.seeds)} seeds)"
    if exploratory:
        return f"{lost}exploratory, no verdict: {size} {basis}"
    if low > 1 or high < 1:
        return f"{lost}{size} {basis}"
    return f"{lost}{what} of {name} against {base}: cannot tell; {low:.3f} to {high:.3f} times remain possible"


# ------------------------------------------------------------------------------------------------------------ curves


def at_time(times: Sequence[float], values: Sequence[float], t: float) -> float | None:
    """The curve through (times, values) at t, linear in between; None outside it. `times` must rise.

    Neither the best so far nor a mean over the last ones: both flatter the curve that has more points or more noise.
    """
    if any(later <= sooner for sooner, later in pairwise(times)):
        raise ValueError("the times of a curve must rise")
    if len(times) == 0 or not times[0] <= t <= times[-1]:
        return None
    return float(np.interp(t, times, values))
