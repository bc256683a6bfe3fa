"""What a comparison must pass besides its intervals: failure rates, runs that collapsed, and assay sensitivity."""

import statistics
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from scipy.stats import bartlett, binomtest, fisher_exact

from comparison.summary import FailureRate, Failures, Insensitivity, LearningCurve

FLOOR = 10  # margins: at a lower mean mAP of the baseline, nothing counts as learned
CEILING = 95.0  # mAP points of the baseline: above it there is no room for a difference
RISING = 0.5  # of the last mAP: more than this, added by another schedule at the final rate, is an unfinished training
FINAL_FRACTION = 0.1  # of the epochs: the final rate is that of this last part
MAX_OTHER_CORES = 0.10  # mean cores used by other processes, above which a time is excluded
MAX_OTHER_CORES_ONCE = 0.50  # the same in any one epoch
MAX_UNTIMED_FRACTION = 0.01  # of the steps, left out of the time because the run was resumed
COLLAPSED = 5.0  # standard deviations below the median of the activation's other runs


def failure_rates(failed: Mapping[str, Failures], *, baseline: str, alpha: float) -> dict[str, FailureRate]:
    """Failure rates by activation: Clopper-Pearson intervals, Fisher's exact two-sided test against the baseline."""
    rates = {}
    base = failed[baseline]
    for act, each in failed.items():
        if each.ended == 0:
            continue
        low, high = _exact_interval(each, alpha)
        p = None if act == baseline else _fisher(each, base)
        rates[act] = FailureRate(**each._asdict(), low=low, high=high, p=p)
    return rates


@lru_cache(maxsize=1024)
def _exact_interval(failures: Failures, alpha: float) -> tuple[float, float]:
    interval = binomtest(failures.failed, failures.ended).proportion_ci(1 - alpha, method="exact")
    return float(interval.low), float(interval.high)


@lru_cache(maxsize=1024)
def _fisher(one: Failures, other: Failures) -> float:
    return float(fisher_exact([[each.failed, each.ended - each.failed] for each in (one, other)]).pvalue)


def contention(cores: Sequence[float | None], seconds: Sequence[float]) -> tuple[float, float] | None:
    """The time-weighted mean and the maximum of the cores that other processes used; None unless always recorded."""
    known = [each for each in cores if each is not None]
    if len(known) < len(cores) or not known:
        return None
    weights = seconds if sum(seconds) > 0 else [1.0] * len(known)
    return float(np.average(known, weights=weights)), max(known)


def insensitivity(curves: Sequence[LearningCurve], *, mean: float | None = None, margin: float) -> Insensitivity | None:
    """Why the baseline's runs allow neither equivalence nor non-inferiority; None if they do.

    ``mean``: its mAP points on the split of the verdict, by default those at the end of the curves, which are on val.

    At the floor or at the ceiling, all activations agree whatever they are; during a steep rise, a difference measures
    speed. The final rate is the mean rise per epoch over the last tenth of the epochs, at least one. ``margin`` in mAP
    points.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    final = statistics.fmean(curve.points[-1] for curve in curves)
    mean = final if mean is None else mean
    if mean < FLOOR * margin:
        return Insensitivity(reason="floor", mean=mean, rise=None)
    rises = [_projected_rise(curve) for curve in curves if len(curve.points) > 1]
    rise = statistics.fmean(rises) if rises else None
    if rise is not None and rise > RISING * final:
        return Insensitivity(reason="rising", mean=mean, rise=rise)
    return Insensitivity(reason="ceiling", mean=mean, rise=rise) if mean > CEILING else None


def _projected_rise(curve: LearningCurve) -> float:
    """Points that as many epochs again would add at the final rate."""
    epochs = curve.epochs[-1]
    back = max(1.0, float(round(FINAL_FRACTION * epochs)))
    sooner = float(np.interp(epochs - back, (0.0, *curve.epochs), (0.0, *curve.points)))
    return (curve.points[-1] - sooner) / back * epochs


def collapsed(values: Mapping[str, Mapping[int, float]], *, margin: float) -> dict[str, int]:
    """The seed of a run that lies far below the other runs of its activation, by activation; for a remark only.

    Far: more than the margin and than `COLLAPSED` times the standard deviation of the other runs, pooled over the
    activations or within its activation, whichever is larger.
    """
    found = {}
    for act, own in values.items():
        if len(own) < 3:
            continue
        seed = min(own, key=lambda each: own[each])
        rest = [value for each, value in own.items() if each != seed]
        arms = [rest, *([*other.values()] for name, other in values.items() if name != act)]
        freedom = sum(len(arm) - 1 for arm in arms if len(arm) > 1)
        variance = sum(statistics.variance(arm) * (len(arm) - 1) for arm in arms if len(arm) > 1) / freedom
        sd = max(variance**0.5, statistics.stdev(rest))
        if statistics.median(rest) - own[seed] > max(COLLAPSED * sd, margin):
            found[act] = seed
    return found


def unequal_scatter(values: Mapping[str, Mapping[int, float]]) -> float | None:
    """Bartlett's p-value that runs of the activations scatter alike; None with fewer than two runs or no scatter."""
    arms = [[*own.values()] for own in values.values()]
    if len(arms) < 2 or any(len(arm) < 2 or statistics.variance(arm) == 0 for arm in arms):
        return None
    return float(bartlett(*arms).pvalue)
