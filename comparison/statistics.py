"""Simultaneous confidence intervals for candidates against a baseline over common seeds.

Model: value = mean + activation + seed + residual. Tests are read off two-sided Dunnett intervals for m candidates (the
paired t interval for one). Standard errors are conservative, as activations may scatter unequally. The residual sd is
the larger of the two-way residual sd and the sd implied by half the mean variance of the paired differences, which
protects against a baseline noisier than the rest; the standard error of a candidate is the larger of the one from this
sd and that of its own paired differences, which protects against a noisy candidate.
``python -m benchmarks.simulate`` simulates error rates, coverage and power.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2
from scipy.stats import t as student

Values = Mapping[str, Mapping[int, float]]
"""Activation label -> seed -> value; missing runs have no entry."""

ROUNDING = 1e-12  # relative to the largest value: a smaller residual sd counts as zero
# Fractions of alpha spent at each interim analysis, by their number (simulated); 1, 4, 9, 16, ... for more.
ALPHA_SPENDING = {1: (1.0,), 2: (0.2, 0.8), 3: (0.1, 0.3, 0.6)}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Candidate minus baseline in the unit of the values; candidate / baseline in a comparison of ratios."""

    name: str
    estimate: float
    standard_error: float | None  # on the log scale for ratios; None with one seed or zero variance
    sigma: float | None = None  # residual sd of one run that the standard error stands for; `Comparison.sigma` or more
    interval: tuple[float, float] | None  # simultaneous, level 1 - alpha; None without a standard error
    equivalence_interval: tuple[float, float] | None  # simultaneous, level 1 - 2 alpha: equivalence, non-inferiority
    pairs: int  # seeds that both have
    correlation: float | None  # between paired runs; None below three pairs


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All candidates against the baseline.

    A candidate that shares no seed with the baseline, directly or through other candidates, is listed in `missing`.
    """

    baseline: str
    seeds: tuple[int, ...]
    differences: Mapping[str, Difference]  # by candidate, in their order
    sigma: float | None  # conservative residual sd of one run (log scale for ratios); None without degrees of freedom
    degrees: int  # degrees of freedom
    critical: float | None
    alpha: float
    complete: bool  # every activation has a value for every seed
    ratio: bool = False
    missing: tuple[str, ...] = ()

    @property
    def candidates(self) -> int:
        """The number of candidates that the intervals hold for simultaneously."""
        return len(self.differences) + len(self.missing)


# -------------------------------------------------------------------------------------------------- the distribution


@lru_cache(maxsize=1)
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(128)
    return nodes, weights


@lru_cache(maxsize=256)
def scales(degrees: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights for the expectation over s = sqrt(chi2 / degrees): Gauss-Legendre in log s."""
    low, high = (0.5 * math.log(edge / degrees) for edge in (chi2.ppf(1e-13, degrees), chi2.isf(1e-13, degrees)))
    nodes, weights = _legendre()
    s = np.exp(low + (high - low) * (nodes + 1) / 2)
    weights = weights * chi2.pdf(degrees * s**2, degrees) * s**2
    return s, weights / weights.sum()


@lru_cache(maxsize=1)
def _normal() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights for the expectation over a standard normal: Gauss-Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    return nodes, weights / weights.sum()


def probability_within(critical: float, candidates: int, degrees: int) -> float:
    """Probability under the null hypothesis that no candidate differs by more than `critical` standard errors."""
    s, over_s = scales(degrees)
    z, over_z = _normal()
    half = math.sqrt(2) * critical * s[:, None]
    return float(over_s @ ((ndtr(z + half) - ndtr(z - half)) ** candidates) @ over_z)


@lru_cache(maxsize=4096)
def critical_value(candidates: int, degrees: int, *, alpha: float = 0.05) -> float:
    """Two-sided critical value of Dunnett's test, correlation 1/2 (Dunnett 1955, 1964); Student's t for one candidate.

    Computed by quadrature over the baseline's error and the residual sd, because scipy's ``multivariate_t.cdf`` is
    randomised.
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
    """Compare all other activations with the baseline. ValueError if the baseline has no value.

    Least squares of activation + seed, also if runs are missing. With one seed, differences without intervals.
    """
    acts = [baseline, *(act for act in values if act != baseline)]
    if not values.get(baseline):
        raise ValueError(f"the baseline {baseline} has no value")
    if len(acts) < 2:
        raise ValueError(f"nothing to compare {baseline} with")
    seeds = sorted({seed for by_seed in values.values() for seed in by_seed})
    table = np.array([[values[act].get(seed, math.nan) for seed in seeds] for act in acts])
    if not np.isfinite(np.concatenate([list(values[act].values()) for act in acts])).all():
        raise ValueError("expected finite values; leave out runs without a value")
    known = _connected(table)
    estimates, factors, squares, degrees = _least_squares(table[known])
    gaps = table[known][1:] - table[known][0]
    sigma = _conservative_sd(squares, degrees, gaps)
    if sigma is not None and sigma <= ROUNDING * float(np.nanmax(np.abs(table))):
        sigma = 0.0  # identical for every seed: no variance to test against
    candidates = len(acts) - 1
    critical = critical_value(candidates, degrees, alpha=alpha) if degrees else None
    critical_90 = critical_value(candidates, degrees, alpha=2 * alpha) if degrees else 0.0
    compared = [act for act, connected in zip(acts, known, strict=True) if connected][1:]
    differences = {}
    for row, (name, estimate, factor) in enumerate(zip(compared, estimates, factors, strict=True), 1):
        error = max(sigma * factor, _own_error(gaps[row - 1])) if sigma else None
        differences[name] = Difference(
            name=name,
            estimate=estimate,
            standard_error=error,
            sigma=error / factor if error else None,
            interval=(estimate - critical * error, estimate + critical * error) if error and critical else None,
            equivalence_interval=(estimate - critical_90 * error, estimate + critical_90 * error) if error else None,
            pairs=int(np.isfinite(gaps[row - 1]).sum()),
            correlation=_correlation(table[known][0], table[known][row]),
        )
    return Comparison(
        baseline=baseline,
        seeds=tuple(seeds),
        differences=differences,
        sigma=sigma,
        degrees=degrees,
        critical=critical,
        alpha=alpha,
        complete=bool(np.isfinite(table).all()),
        missing=tuple(act for act, connected in zip(acts, known, strict=True) if not connected),
    )


def compare_ratio(values: Values, *, baseline: str, alpha: float = 0.05) -> Comparison:
    """Compare on the log scale: estimates and intervals are ratios of geometric means; sigma and errors are of logs."""
    wrong = [(act, seed) for act, by_seed in values.items() for seed, value in by_seed.items() if not value > 0]
    if wrong:
        raise ValueError(f"{wrong[0][0]}, seed {wrong[0][1]}: expected a value above 0 for a ratio")
    logs = {act: {seed: math.log(value) for seed, value in by_seed.items()} for act, by_seed in values.items()}
    comparison = compare(logs, baseline=baseline, alpha=alpha)

    def ends(interval: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if interval is None else (_exp(interval[0]), _exp(interval[1]))

    differences = {
        name: replace(
            each,
            estimate=_exp(each.estimate),
            interval=ends(each.interval),
            equivalence_interval=ends(each.equivalence_interval),
        )
        for name, each in comparison.differences.items()
    }
    return replace(comparison, differences=differences, ratio=True)


def _exp(value: float) -> float:
    """exp, or infinity on overflow, as the interval of two seeds may be that wide."""
    return math.exp(value) if value < 700 else math.inf


def _connected(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows that share seeds with the first, directly or through other rows."""
    present = np.isfinite(table)
    known = np.zeros(len(table), bool)
    known[0] = True
    while True:
        reached = present[:, present[known].any(axis=0)].any(axis=1) | known
        if (reached == known).all():
            return known
        known = reached


def _least_squares(table: NDArray[np.float64]) -> tuple[list[float], list[float], float, int]:
    """Differences from row 0, their standard errors in units of sigma, residual sum of squares, degrees of freedom."""
    present = np.isfinite(table)
    table, present = table[:, present.any(axis=0)], present[:, present.any(axis=0)]
    acts, seeds = table.shape
    degrees = int(present.sum()) - acts - seeds + 1
    if present.all():
        means = table.mean(axis=1)
        residuals = table - means[:, None] - table.mean(axis=0) + table.mean()
        factor = math.sqrt(2 / seeds)
        return (
            [float(mean - means[0]) for mean in means[1:]],
            [factor] * (acts - 1),
            float((residuals**2).sum()),
            degrees,
        )
    row, column = np.nonzero(present)
    level = table[present].mean()  # subtracted first to keep precision
    design = np.hstack([row[:, None] == np.arange(1, acts), column[:, None] == np.arange(seeds)]).astype(float)
    inverse = np.linalg.inv(design.T @ design)
    solution = inverse @ (design.T @ (table[present] - level))
    residuals = table[present] - level - design @ solution
    factors = np.sqrt(np.diag(inverse))[: acts - 1]
    return solution[: acts - 1].tolist(), factors.tolist(), float((residuals**2).sum()), degrees


def _conservative_sd(squares: float, degrees: int, gaps: NDArray[np.float64]) -> float | None:
    """The larger of the model's residual sd and the sd implied by the paired differences."""
    if degrees < 1:
        return None
    variances = [float(np.var(gap[np.isfinite(gap)], ddof=1)) for gap in gaps if np.isfinite(gap).sum() > 1]
    paired = sum(variances) / len(variances) / 2 if variances else 0.0
    return math.sqrt(max(squares / degrees, paired))


def _own_error(gap: NDArray[np.float64]) -> float:
    """The standard error of a candidate's own paired differences; 0 below two pairs."""
    gap = gap[np.isfinite(gap)]
    return float(np.std(gap, ddof=1)) / math.sqrt(len(gap)) if len(gap) > 1 else 0.0


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < 3:
        return None
    one, other = one[both] - one[both].mean(), other[both] - other[both].mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(np.clip(one @ other / size, -1, 1)) if size > 0 else None


# ------------------------------------------------------------------------------------------------- conclusions


def interim_alpha(interim: Sequence[int], seeds: int, *, alpha: float = 0.05) -> float:
    """The alpha spent at the analysis after `seeds` seeds, one of the planned `interim` analyses (the final included).

    The fractions sum to alpha, so the error rate over all analyses is at most alpha.
    """
    if list(interim) != sorted(set(interim)) or seeds not in interim:
        raise ValueError(
            f"{seeds} is not a planned interim analysis; expected one of {', '.join(map(str, interim))}, increasing"
        )
    weights = ALPHA_SPENDING.get(len(interim)) or [(number + 1) ** 2 for number in range(len(interim))]
    return alpha * weights[list(interim).index(seeds)] / sum(weights)


def classify(
    difference: Difference, *, margin: float
) -> Literal[
    "higher",
    "lower",
    "higher-within-margin",
    "lower-within-margin",
    "equivalent",
    "non-inferior",
    "inconclusive",
    "none",
]:
    """The first conclusion that holds; "none" without an interval."""
    if difference.interval is None or difference.equivalence_interval is None:
        return "none"
    low, high = difference.equivalence_interval
    within = -margin < low and high < margin
    if difference.interval[0] > 0:
        return "higher-within-margin" if within else "higher"
    if difference.interval[1] < 0:
        return "lower-within-margin" if within else "lower"
    if within:
        return "equivalent"
    return "non-inferior" if low > -margin else "inconclusive"


# ------------------------------------------------------------------------------------------------------------ curves


def value_at(times: Sequence[float], values: Sequence[float], t: float) -> float | None:
    """The curve through (times, values) at t by linear interpolation; None outside it. `times` must increase.

    The best value so far or a mean of the last ones would favour curves with more points or more noise.
    """
    if any(later <= sooner for sooner, later in pairwise(times)):
        raise ValueError("the times of a curve must increase")
    if len(times) == 0 or not times[0] <= t <= times[-1]:
        return None
    return float(np.interp(t, times, values))
