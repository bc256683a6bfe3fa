"""The verdict on each candidate, and what stands beside it.

"Higher" and "lower" always mean significantly so; an inconclusive result is never called "no difference".
"""

import math
from collections.abc import Mapping, Sequence

from comparison.all_pairs import PairDifference
from comparison.power import seeds_needed, sigma_upper
from comparison.statistics import Comparison, Difference, classify
from comparison.summary import (
    POINTS,
    Failures,
    ImageSampling,
    Kind,
    Metric,
    Outcome,
    Verdict,
)
from comparison.wording.numbers import (
    about,
    confidence_interval,
    count,
    ends,
    level,
    percent,
    ratio_interval,
    signed,
)

UNEQUAL = 2.0  # ratio of the largest to the smallest standard deviation from which it is pointed out


def scatter(deviations: Mapping[str, float], unit: str, *, p: float | None) -> tuple[str, ...]:
    """How much the runs of each activation scatter, by what factor this differs, and whether by more than chance."""
    if not deviations:
        return ()
    most, least = (choose(deviations, key=lambda act: deviations[act]) for choose in (max, min))
    listed = ", ".join(f"{act} {sd:.2f}" for act, sd in deviations.items())
    factor = deviations[most] / deviations[least] if deviations[least] else math.inf
    unequal = ""
    if math.isfinite(factor) and factor >= UNEQUAL:
        unequal = f"; {most} scatters {factor:.1f} times as much as {least}"
        if p is not None:
            unequal += f" ({'not chance alone' if p < 0.05 else 'within chance'}: Bartlett's test, p = {p:.2g})"
    return (f"Standard deviation over seeds: {listed} {unit}{unequal}.",)


def collapsed(runs: Mapping[tuple[str, int], tuple[float, float]], verdicts: Mapping[str, Verdict]) -> str:
    """Runs far below the others of their activation (value, median of the others), and the verdicts without them."""
    listed = "; ".join(
        f"{act}, seed {seed}: {value:.1f} points, median of its other runs {median:.1f}"
        for (act, seed), (value, median) in runs.items()
    )
    without = "; ".join(f"{act}: {verdict.text}" for act, verdict in verdicts.items())
    they, them = ("It counts", "it") if len(runs) == 1 else ("They count", "them")
    return f"Collapsed: {listed}. {they} in the verdict. Without {them} (exploratory): {without}."


def interim_analysis(seeds: int, of: int, alpha: float) -> tuple[str, ...]:
    """That an analysis is not the last one of its plan."""
    if seeds == of:
        return ()
    return (f"Interim analysis after {seeds} of the {of} planned seeds, at its own level of {level(alpha)}.",)


def failed_runs(act: str, baseline: str, failed: Mapping[str, Failures]) -> list[str]:
    """The failed runs of a candidate and of the baseline: a failure is an outcome."""
    both = {name: failed[name] for name in (act, baseline) if name in failed}
    return [f"{each.failed} of {each.ended} {name} runs failed" for name, each in both.items() if each.failed]


def missing_verdict(act: str, metric: Metric, baseline: str, failed: Mapping[str, Failures]) -> Verdict:
    """The verdict on a candidate that cannot be compared."""
    why = metric.note or "no completed run with this metric shares a seed with the baseline"
    return Verdict(kind="none", text=f"not compared ({'; '.join([*failed_runs(act, baseline, failed), why])})")


def map_verdict(
    difference: Difference,
    comparison: Comparison,
    *,
    margin: float,
    failed: Mapping[str, Failures],
    exploratory: bool,
    insensitive: str = "",
) -> Verdict:
    """The verdict on a candidate in the primary metric; `margin` in mAP points.

    `insensitive`: why nothing that relies on the margin can be concluded, if so.
    """
    act, base = difference.name, comparison.baseline
    kind: Kind = classify(difference, margin=margin)
    size = f"{signed(difference.estimate)} {POINTS}"
    lost = failed_runs(act, base, failed)
    first = f"{', '.join(lost)}; completed runs only: " if lost else ""
    if difference.interval is None or difference.equivalence_interval is None:
        return Verdict(
            kind="none", text=f"{first}no verdict ({_why_no_interval(comparison)}); observed {size} vs {base}"
        )
    basis = f"{count(comparison.candidates, 'candidate')}, {count(difference.pairs, 'pair')}"
    wide, narrow = confidence_interval(difference.interval, comparison.alpha), ends(difference.equivalence_interval)
    sure = f"({wide}, {level(2 * comparison.alpha)} CI {narrow}; {basis})"
    if exploratory:
        kind, text = "exploratory", f"exploratory, no verdict: {size} vs {base} {sure}"
    elif insensitive and kind not in ("higher", "lower", "inconclusive"):
        kind, text = "insensitive", f"{insensitive}, {size} vs {base} {sure}"
    elif kind in ("higher", "lower"):
        text = f"significantly {kind} than {base}, {size} {sure}"
    elif kind in ("higher-within-margin", "lower-within-margin"):
        word = kind.partition("-")[0]
        text = f"{word} than {base} by less than the declared margin of {margin:g} {POINTS}, {size} {sure}"
    elif kind == "equivalent":
        text = f"equivalent to {base} within ±{margin:g} {POINTS}, {size} {sure}"
    elif kind == "non-inferior":
        text = f"non-inferior to {base} (margin {margin:g} {POINTS}), superiority not shown, {size} {sure}"
    else:
        text = f"inconclusive, {size} vs {base} {sure}{more_seeds([difference], comparison, margin)}"
    few = "; with two pairs of runs, only large differences are detectable" if difference.pairs == 2 else ""
    return Verdict(kind=kind, text=f"{first}{text}{few}")


def time_verdict(difference: Difference, comparison: Comparison, *, exploratory: bool, sample: str = "pair") -> Verdict:
    """The verdict on a candidate's training time; it has no margin. Without significance, it is a bound."""
    size = f"{percent(difference.estimate)} vs {comparison.baseline}"
    if difference.interval is None:
        return Verdict(kind="none", text=f"{size}, no interval ({_why_no_interval(comparison)})")
    low, high = difference.interval
    kind: Kind = "higher" if low > 1 else "lower" if high < 1 else "inconclusive"
    sure = f"{ratio_interval(difference.interval, comparison.alpha)}, {count(difference.pairs, sample)}"
    if exploratory:
        return Verdict(kind="exploratory", text=f"{size} ({sure}, exploratory)")
    if kind == "inconclusive" and math.isfinite(high):
        most = [percent(high).lstrip("+"), percent(2 - low).lstrip("+")]  # 2 - low: as much less as low is below 1
        bound = f"at most {most[0]} more, at most {most[1]} less than {comparison.baseline}"
        return Verdict(kind=kind, text=f"{bound} ({sure}, inconclusive)")
    return Verdict(kind=kind, text=f"{size} ({sure}, {'inconclusive' if kind == 'inconclusive' else 'significant'})")


def _why_no_interval(comparison: Comparison) -> str:
    if comparison.sigma == 0.0:
        return "identical differences for every seed, so the variance cannot be estimated"
    return "one seed" if len(comparison.seeds) == 1 else "too few complete pairs of runs"


def more_seeds(differences: Sequence[Difference], comparison: Comparison, margin: float) -> str:
    """The additional seeds that detect a difference as large as the margin; what was observed plays no part in it.

    From two pairs of runs, the number for the upper confidence limit of the residual sd.
    """
    widest = max(differences, key=lambda each: each.sigma or 0.0)
    if not widest.sigma:
        return ""
    few = widest.pairs <= 2
    sigma = sigma_upper(widest.sigma, comparison.degrees) if few else widest.sigma
    needed = seeds_needed(margin, sigma=sigma, candidates=comparison.candidates, alpha=comparison.alpha)
    more = None if needed is None else needed - len(comparison.seeds)
    if more is not None and more <= 0:
        return ""
    careful = " (conservative estimate)" if few else ""
    return f"; {about(more)} more seeds needed to detect {margin:g} {POINTS}{careful}"


def image_effect(sampling: ImageSampling, act: str, outcome: Outcome) -> str:
    """How far the choice of images matters to a candidate's difference."""
    effect, what = sampling.effects.get(act), level(outcome.alpha)
    if effect is None:
        why = f" ({sampling.missing[0]})" if sampling.missing else ""
        return f"interval over {sampling.kind} images not available{why}"
    few = f" from {count(len(effect.seeds), 'seed')}" if len(effect.seeds) < len(outcome.seeds) else ""
    images = "" if sampling.images is None else f" ({sampling.images:,})"
    text = (
        f"{what} CI over {sampling.kind} images{images} {signed(effect.interval[0])} to {signed(effect.interval[1])}, "
        f"standard deviation {effect.sd:.2f} points{few}"
    )
    if effect.redrawn:
        return f"{text}; each seed has its own images, so the interval over seeds holds for new images as well"
    if effect.both is None:
        return text
    return f"{text}; for new seeds and new images {signed(effect.both[0])} to {signed(effect.both[1])}"


def causes(outcome: Outcome, error_kinds: Sequence[Metric]) -> list[str]:
    """The error kinds in which each candidate differs from the baseline, one sentence per candidate."""
    lines = []
    for act in outcome.candidates if error_kinds else ():
        parts = []
        for metric in error_kinds:
            each = metric.difference(act)
            if each is not None and each.interval is not None and (each.interval[0] > 0 or each.interval[1] < 0):
                parts.append((each.estimate, f"{metric.title} {signed(each.estimate)}"))
        listed = ", ".join(text for _, text in sorted(parts))
        found = (
            f"differs from {outcome.baseline} in AP50 lost to: {listed} points"
            if parts
            else "no error kind differs significantly"
        )
        lines.append(f"{act}: {found}.")
    return lines


def headline(metric: Metric, baseline: str) -> str:
    """The activation with the largest observed value: an observation, not a verdict."""
    if metric.comparison is None:
        return f"No comparison: {metric.note}."
    top = max(metric.comparison.differences.values(), key=lambda each: each.estimate, default=None)
    if top is None or top.estimate <= 0:
        return f"Largest observed {metric.title}: {baseline}, the baseline."
    return f"Largest observed {metric.title}: {top.name}, {signed(top.estimate)} {metric.unit} vs {baseline}."


def pair_verdict(pair: PairDifference) -> str:
    """Whether two candidates are separated, without the level of the intervals."""
    size = f"{signed(pair.estimate)} {POINTS}"
    if pair.interval is None:
        return f"{pair.one} vs {pair.other}: {size}, no interval"
    word = f"separated, {pair.one} is higher" if pair.separated else "not separated"
    return f"{pair.one} vs {pair.other}: {word}, {size} ({ends(pair.interval)}; {count(pair.pairs, 'pair')})"


def pair_lines(outcome: Outcome) -> list[str]:
    """The candidates against each other, with a heading; empty if the plan does not declare it."""
    if not outcome.pairs:
        return []
    head = f"candidates against each other, simultaneous {level(outcome.alpha)} CI (Tukey; a separate family of tests):"
    return [head, *(pair_verdict(pair) for pair in outcome.pairs)]
