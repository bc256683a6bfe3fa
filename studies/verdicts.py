"""When a claim is supported, contradicted or inconclusive: the rules of docs/results/paper/plan.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["supported", "contradicted", "inconclusive"]
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Differences by seed, positive as claimed: their mean, and whether it counts."""

    estimate: float
    interval: tuple[float, float]  # 95 %
    margin: float  # the difference that counts
    p: float  # two-sided, that there is none
    verdict: Verdict
    seeds_needed: int | None = None  # to decide an inconclusive claim with 80 % probability, if it is as estimated


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim, and what was found."""

    claim: str
    published: str
    found: str  # with numbers and intervals
    verdict: Verdict  # without Holm's correction
    judged: Judged | None = None  # of the claim's primary figure; None where nothing is random, or it is descriptive


def judge(differences: Sequence[float], margin: float) -> Judged:
    """Judge differences by seed, two or more, positive as claimed, by Student's t."""
    values = np.asarray(differences, float)
    mean, error, degrees = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1
    reach = float(stats.t.isf(ALPHA / 2, degrees)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, degrees)) if error else float(mean == 0)
    interval = (mean - reach, mean + reach)
    verdict = decide(mean, interval, margin, p)
    needed = _seeds_needed(mean, error * math.sqrt(len(values)), margin) if verdict == "inconclusive" else None
    return Judged(estimate=mean, interval=interval, margin=margin, p=p, verdict=verdict, seeds_needed=needed)


def decide(estimate: float, interval: tuple[float, float], margin: float, p: float) -> Verdict:
    """The verdict on a difference."""
    if interval[1] < margin:
        return "contradicted"
    return "supported" if p < ALPHA and estimate >= margin else "inconclusive"


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with Holm's correction of the p-values over all that have one."""
    judged = {number: each.judged for number, each in enumerate(findings) if each.judged is not None}
    result, largest = list(findings), 0.0
    for rank, (number, each) in enumerate(sorted(judged.items(), key=lambda item: item[1].p)):
        largest = max(largest, min(1.0, (len(judged) - rank) * each.p))
        verdict = decide(each.estimate, each.interval, each.margin, largest)
        result[number] = replace(findings[number], verdict=verdict, judged=replace(each, p=largest, verdict=verdict))
    return result


def _seeds_needed(mean: float, sd: float, margin: float) -> int | None:
    """Seeds that decide with 80 % probability between no difference and the margin, None above 1000."""
    distance = max(abs(mean), abs(margin - mean))
    for seeds in range(3, 1001):
        critical = stats.t.isf(ALPHA / 2, seeds - 1)
        if sd == 0 or stats.nct.sf(critical, seeds - 1, distance * math.sqrt(seeds) / sd) >= 0.8:
            return seeds
    return None
