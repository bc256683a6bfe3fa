"""The statistics of each published row: Welch's test, the noise that a difference survives, and the noise of a run."""

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from studies.intervals import ALPHA
from studies.published_tables import CIFAR10, COCO, DEPTH, LAYERS, MISH, RUNS, SEED_SD, CifarRow
from studies.rows import Row
from studies.verdicts import holm

T_OF_RUNS = float(stats.t.isf(ALPHA / 2, RUNS - 1))
Z = float(stats.norm.isf(ALPHA / 2))
BELOW = "< 0.0001"


# ------------------------------------------------------------------------------------------------------------- CIFAR-10


def welch(first: tuple[float, float], second: tuple[float, float], runs: int) -> tuple[float, float, float, float]:
    """Difference of two means (mean, sd) of as many runs each, its 95 % interval and two-sided p."""
    variances = [sd**2 / runs for _, sd in (first, second)]
    error = math.sqrt(sum(variances))
    degrees = sum(variances) ** 2 / sum(each**2 / (runs - 1) for each in variances)
    difference = first[0] - second[0]
    reach = float(stats.t.isf(ALPHA / 2, degrees)) * error
    return difference, difference - reach, difference + reach, float(2 * stats.t.sf(abs(difference) / error, degrees))


def exact(row: CifarRow) -> tuple[float, float]:
    """Mean and standard deviation by the profile, which has more digits than the table."""
    return row.profile_mean, row.profile_half * math.sqrt(RUNS) / T_OF_RUNS


def cifar10(name: str) -> Row:
    """The statistics of an activation of the CIFAR-10 table."""
    row, mish = CIFAR10[name], exact(MISH)
    mean, sd = exact(row)
    difference, low, high, p = welch(mish, (mean, sd), RUNS)
    printed = welch((MISH.mean, MISH.sd), (row.mean, row.sd), RUNS)
    ps = [welch(mish, exact(each), RUNS)[3] for each in CIFAR10.values()]
    half = (row.high - row.low) / 2
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "p": p,
        "p_holm": dict(zip(CIFAR10, holm(ps), strict=True))[name],
        "p_printed": BELOW if row.p is None else row.p,
        "p_of_table": printed[3],  # from the table's rounded mean and standard deviation
        "d": difference / math.sqrt((mish[1] ** 2 + sd**2) / 2),
        "d_printed": row.cohens_d,
        "mean_printed": row.mean,
        "mean_of_interval": MISH.mean + (row.low + row.high) / 2,
        "sd_printed": row.sd,
        "sd_of_profile": sd,
        "half_width_printed": half,
        # The table's mean and deviation are those of its profile; the interval's width is that of the deviations.
        "row_consistent": abs(row.mean - mean) < 0.006 and abs(row.sd - sd) < 0.01,
        "width_consistent": abs(half / ((high - low) / 2) - 1) < 0.05,
    }


# ----------------------------------------------------------------------------------------------------------------- COCO


def largest_sds(differences: Mapping[str, float]) -> dict[str, float]:
    """The largest standard deviation of a run at which each difference of two runs is significant by Holm, else 0."""
    limits, least = {}, math.inf
    ordered = sorted(differences.items(), key=lambda item: -abs(item[1]))
    for rank, (name, difference) in enumerate(ordered):
        critical = float(stats.norm.isf(ALPHA / 2 / (len(ordered) - rank)))
        limits[name] = least = min(least, abs(difference) / (math.sqrt(2) * critical))
    return limits


def coco(name: str) -> Row:
    """The statistics of a pair of detectors on COCO."""
    row = COCO[name]
    family = {key: each.ap[1] - each.ap[0] for key, each in COCO.items() if each.group == row.group}
    difference = row.ap[1] - row.ap[0]
    reach = Z * math.sqrt(2) * SEED_SD
    return {
        "group": row.group,
        "difference": difference,
        "low": difference - reach,  # if the standard deviation is SEED_SD
        "high": difference + reach,
        "p": float(2 * stats.norm.sf(abs(difference) / (math.sqrt(2) * SEED_SD))),
        "difference_ap50": row.ap50[1] - row.ap50[0],
        "largest_sd": abs(difference) / (Z * math.sqrt(2)),
        "largest_sd_holm": largest_sds(family)[name],
        "largest_sd_ap50": abs(row.ap50[1] - row.ap50[0]) / (Z * math.sqrt(2)),
    }


# ---------------------------------------------------------------------------------------------------------------- depth


def depth(name: str) -> Row:
    """How far the two versions of the depth figure differ for an activation."""
    first, second = (np.array(each) for each in DEPTH[name])
    gaps = np.abs(first - second)
    deep = np.array(LAYERS) >= 20
    return {
        "run_sd": float(np.sqrt((gaps**2).mean() / 2)),
        "run_sd_from_20": float(np.sqrt((gaps[deep] ** 2).mean() / 2)),
        "largest_gap": float(gaps.max()),
        "largest_gap_layers": int(LAYERS[gaps.argmax()]),
        "mean_first": float(first.mean()),
        "mean_second": float(second.mean()),
    }
