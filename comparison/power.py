"""Power and required seeds of a comparison with simultaneous intervals."""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2

from comparison.statistics import critical_value, scales

# The conservative standard errors increase the detectable difference by this over sqrt(seeds), by candidates (simulated
# for 2 to 15 seeds and up to 7 candidates, within 2 %).
CONSERVATIVE_EXCESS = {1: 0.0, 2: 0.20, 3: 0.23, 4: 0.245}
MAX_CONSERVATIVE_EXCESS = 0.26
UPPER_LIMIT_ERROR = 0.2  # probability that the true sd exceeds its upper confidence limit


def _degrees(candidates: int, seeds: int) -> int:
    return candidates * (seeds - 1)


def power(difference: float, *, sigma: float, candidates: int, seeds: int, alpha: float = 0.05) -> float:
    """Probability that a true difference of one candidate is significant in either direction, with all runs present."""
    return _power(difference / sigma, candidates, seeds, alpha)


def _power(effect: float, candidates: int, seeds: int, alpha: float) -> float:
    """The power for a difference in units of the residual sd."""
    if seeds < 2:
        return 0.0
    degrees = _degrees(candidates, seeds)
    s, weights = scales(degrees)
    edge = critical_value(candidates, degrees, alpha=alpha) * s
    shift = effect / math.sqrt(2 / seeds)
    return float(weights @ (ndtr(shift - edge) + ndtr(-shift - edge)))


def minimal_detectable(
    *, sigma: float, candidates: int, seeds: int, alpha: float = 0.05, power: float = 0.8, conservative: bool = False
) -> float:
    """The smallest difference detected with this power; infinite with one seed.

    `conservative` adds what the conservative standard errors cost: with two candidates, 12 % at three seeds and 9 % at
    five (simulated). Use it if `sigma` is the true sd; a candidate's sigma from ``compare`` includes it already.
    """
    if seeds < 2:
        return math.inf
    top = 1.0
    while _power(top, candidates, seeds, alpha) < power:
        top *= 2
    effect = brentq(lambda effect: _power(effect, candidates, seeds, alpha) - power, 0, top, xtol=1e-6)
    excess = CONSERVATIVE_EXCESS.get(candidates, MAX_CONSERVATIVE_EXCESS) / math.sqrt(seeds)
    return sigma * effect * (1 + excess if conservative else 1)


def seeds_needed(
    difference: float, *, sigma: float, candidates: int, alpha: float = 0.05, power: float = 0.8, limit: int = 1000
) -> int | None:
    """The fewest seeds that detect a true difference with this power; None if more than `limit`."""
    return _fewest(lambda seeds: _power(abs(difference) / sigma, candidates, seeds, alpha), power, limit)


def seeds_for_equivalence(
    margin: float, *, sigma: float, candidates: int, alpha: float = 0.05, power: float = 0.8, limit: int = 1000
) -> int | None:
    """The fewest seeds that show equivalence within ±margin with this power if there is no difference."""

    def probability(seeds: int) -> float:
        degrees = _degrees(candidates, seeds)
        s, weights = scales(degrees)
        room = margin / (sigma * math.sqrt(2 / seeds)) - critical_value(candidates, degrees, alpha=2 * alpha) * s
        return float(weights @ np.maximum(2 * ndtr(room) - 1, 0))

    return _fewest(probability, power, limit)


def _fewest(probability: Callable[[int], float], target: float, limit: int) -> int | None:
    """The fewest seeds, from two on, that reach the target; the probability increases with the seeds."""
    if probability(limit) < target:
        return None
    low, high = 1, 2
    while probability(high) < target:
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if probability(middle) >= target else (middle, high)
    return high


def sigma_upper(sigma: float, degrees: int) -> float:
    """The 80 % upper confidence limit of a residual sd estimated with these degrees of freedom."""
    return sigma * math.sqrt(degrees / float(chi2.ppf(UPPER_LIMIT_ERROR, degrees)))
