"""Simultaneous confidence intervals for the candidates against each other (Tukey's range)."""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from scipy.stats import studentized_range

from comparison.statistics import Values, compare


@dataclass(frozen=True, kw_only=True)
class PairDifference:
    """One candidate minus another, in the unit of the values."""

    one: str
    other: str
    estimate: float
    interval: tuple[float, float] | None  # simultaneous over all pairs of candidates; None without an estimate of it
    pairs: int  # seeds that both have

    @property
    def separated(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@lru_cache(maxsize=1024)
def tukey_critical(arms: int, degrees: int, *, alpha: float = 0.05) -> float:
    """The critical value of all differences between this many arms, in standard errors of a difference."""
    return float(studentized_range.isf(alpha, arms, degrees)) / math.sqrt(2)


def all_pairs(values: Values, *, baseline: str, alpha: float = 0.05) -> tuple[PairDifference, ...]:
    """All differences between candidates, the larger estimate first, with Tukey's intervals.

    The degrees of freedom are those of all activations; the standard error of a pair is the larger of those that
    ``compare`` gives with either as the baseline. Empty without two candidates that have values.
    """
    candidates = [act for act, own in values.items() if act != baseline and own]
    against = {act: compare(values, baseline=act, alpha=alpha) for act in candidates if len(candidates) > 1}
    found = []
    for one, other in itertools.combinations(candidates, 2):
        difference, reverse = against[other].differences.get(one), against[one].differences.get(other)
        if difference is None or reverse is None:
            continue
        interval = None
        if difference.standard_error and reverse.standard_error:
            error = max(difference.standard_error, reverse.standard_error)
            half = tukey_critical(len(candidates), against[one].degrees, alpha=alpha) * error
            interval = (difference.estimate - half, difference.estimate + half)
        pair = PairDifference(
            one=one, other=other, estimate=difference.estimate, interval=interval, pairs=difference.pairs
        )
        found.append(pair if pair.estimate >= 0 else _turned(pair))
    return tuple(found)


def _turned(pair: PairDifference) -> PairDifference:
    """The same pair, the other way round."""
    ends = None if pair.interval is None else (-pair.interval[1], -pair.interval[0])
    return PairDifference(one=pair.other, other=pair.one, estimate=-pair.estimate, interval=ends, pairs=pair.pairs)
