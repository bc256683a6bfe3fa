"""When a claim is supported, contradicted or inconclusive: the rules of docs/results/paper/plan.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from studies.intervals import ALPHA, mean_and_reach
from studies.tables import Table

Verdict = Literal["supported", "contradicted", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Differences by seed, positive as claimed: their mean, and whether it counts."""

    estimate: float
    interval: tuple[float, float]  # 95 %
    margin: float  # the difference that counts
    p: float  # two-sided, that there is none
    verdict: Verdict
    seeds_needed: int  # see `seeds_needed`


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim, and what was found."""

    claim: str
    published: str
    found: str  # sentences with numbers and intervals
    brief: str  # the deciding figure
    verdict: Verdict  # without Holm's correction
    part: str = ""  # of the study's claim, in the table of all claims; empty if it is not in it
    note: str = "descriptive"  # what it is, if it is not judged
    judged: Judged | None = None  # of a primary figure; None where nothing is random, or it is descriptive
    tables: tuple[Table, ...] = ()


def finding(
    *,
    claim: str,
    published: str,
    found: str,
    judged: Judged | None,
    unit: str = "points",
    ratio: Literal[-1, 1] | None = None,
    part: str = "",
    brief: str = "",
    primary: bool = True,
    tables: tuple[Table, ...] = (),
) -> Finding:
    """A finding with the verdict on its figure, inconclusive without one.

    The figure is in ``unit``, or the logarithm of a ratio times ``ratio``, its sign as claimed. Only a primary
    figure is kept, as Holm's correction covers those alone. ``brief`` is put before the figure.
    """
    figure = found.split(". ")[0].rstrip(".")
    if judged is not None:
        figure = _in_units(judged, unit) if ratio is None else _as_ratio(judged, unit, ratio)
    brief = f"{brief}; {figure}" if brief else figure
    verdict = judged.verdict if judged else "inconclusive"
    kept = judged if primary else None
    return Finding(
        claim=claim,
        published=published,
        found=found,
        brief=brief,
        verdict=verdict,
        part=part,
        judged=kept,
        tables=tables,
    )


def _in_units(judged: Judged, unit: str) -> str:
    low, high = judged.interval
    text = f"{judged.estimate:+.3g} [{low:+.3g}, {high:+.3g}] {unit}"
    return f"{text}; {judged.margin:+.3g} counts" if judged.margin else text


def _as_ratio(judged: Judged, unit: str, sign: int) -> str:
    """The ratio itself, below 1 as claimed for a negative sign."""
    low, high = sorted(math.exp(sign * end) for end in judged.interval)
    text = f"{math.exp(sign * judged.estimate):.3f} [{low:.3f}, {high:.3f}] {unit}"
    return f"{text}; {math.exp(sign * judged.margin):.2f} counts"


def judge(differences: Sequence[float], margin: float) -> Judged:
    """Judge differences by seed, two or more, positive as claimed, by Student's t."""
    values = np.asarray(differences, float)
    mean, reach = map(float, mean_and_reach(values))
    sd = float(values.std(ddof=1))
    p = float(2 * stats.t.sf(abs(mean) / sd * math.sqrt(len(values)), len(values) - 1)) if sd else float(mean == 0)
    interval = (mean - reach, mean + reach)
    verdict = decide(mean, interval, margin, p)
    needed = seeds_needed(mean, sd, margin)
    return Judged(estimate=mean, interval=interval, margin=margin, p=p, verdict=verdict, seeds_needed=needed)


def decide(estimate: float, interval: tuple[float, float], margin: float, p: float) -> Verdict:
    """The verdict on a difference."""
    if interval[1] < margin:
        return "contradicted"
    return "supported" if p < ALPHA and estimate >= margin else "inconclusive"


def holm(ps: Sequence[float]) -> list[float]:
    """P-values by Holm's correction, in their order."""
    order = np.argsort(ps)
    factors = np.arange(len(ps), 0, -1)
    result = np.empty(len(ps))
    result[order] = np.minimum(np.maximum.accumulate(factors * np.asarray(ps)[order]), 1)
    return [float(p) for p in result]


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with Holm's correction of the p-values over all that have one."""
    ps = iter(holm([each.judged.p for each in findings if each.judged is not None]))
    return [each if each.judged is None else _with_p(each, each.judged, next(ps)) for each in findings]


def _with_p(each: Finding, judged: Judged, p: float) -> Finding:
    verdict = decide(judged.estimate, judged.interval, judged.margin, p)
    return replace(each, verdict=verdict, judged=replace(judged, p=p, verdict=verdict))


def seeds_needed(mean: float, sd: float, margin: float) -> int:
    """Seeds that decide with 80 % probability by a t test, if mean and standard deviation are as estimated.

    A mean of the margin or more is told from 0, a smaller one from the margin; 1001 if it takes more than 1000.
    """
    distance = mean if mean >= margin else margin - mean
    for seeds in range(3, 1001):
        critical = stats.t.isf(ALPHA / 2, seeds - 1)
        if sd == 0 or stats.nct.sf(critical, seeds - 1, distance * math.sqrt(seeds) / sd) >= 0.8:
            return seeds
    return 1001
