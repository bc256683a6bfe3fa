"""Every sentence of a comparison: plan, verdicts, recommendation, captions and warnings.

"Higher" and "lower" always mean significantly so; an inconclusive result is never called "no difference".
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from comparison.all_pairs import PairDifference
from comparison.checks import MAX_OTHER_CORES, MAX_OTHER_CORES_ONCE
from comparison.plan import Plan, Tuning
from comparison.statistics import Comparison, Difference, classify, seeds_for_equivalence, seeds_needed, sigma_upper
from comparison.summary import (
    POINTS,
    Failures,
    ImageSampling,
    Insensitivity,
    Kind,
    Metric,
    Outcome,
    Requirement,
    Setting,
    Summary,
    TimingRow,
    TuningCurve,
    TuningSummary,
    Verdict,
)
from core.limits import MAX_DATA_WAIT_FRACTION
from core.text import format_duration

POSSIBLE_SIGMAS = (0.5, 1.0, 2.0, 3.5)  # residual sd of one run in mAP points, as measured on small data
MAX_TIME_GAP = 0.02  # relative difference in training time up to which times count as equal
UNEQUAL = 2.0  # ratio of the largest to the smallest standard deviation from which it is pointed out
MIN_SEEDS, GOOD_SEEDS = 3, 5  # for a verdict; for a useful one
MAX_LISTED = 5  # runs in a sentence

# ------------------------------------------------------------------------------------------------- numbers in sentences


def signed(value: float, *, digits: int = 2) -> str:
    """A number with its sign, as in +0.80; zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def percent(ratio: float) -> str:
    """A ratio as a relative change, as in +4.0 %."""
    change = 100 * (ratio - 1)
    if math.isinf(change):
        return "unbounded"
    return f"{change:+.0e} %" if change >= 1e6 else f"{signed(change, digits=1)} %"


def level(alpha: float) -> str:
    """The confidence level, as in 95 %."""
    return f"{100 * (1 - alpha):g} %"


def join(names: Sequence[str], last: str = "and") -> str:
    """The list "a, b and c"."""
    return " ".join([", ".join(names[:-1]), last, names[-1]]) if len(names) > 1 else "".join(names)


def count(number: int, noun: str) -> str:
    """A number with its noun, as in "1 seed" and "3 seeds"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def hours(value: float | None) -> str:
    """A number of hours in readable units."""
    if value is None:
        return "unknown"
    if value < 1:
        return f"{60 * value:.0f} min" if value > 1 / 6 else format_duration(3600 * value)
    return format_duration(3600 * value) if value < 48 else f"{value:,.0f} h ({value / 24:,.0f} days)"


def seeds_or_more(seeds: int | None) -> str:
    """A required number of seeds; None stands for more than the limit of the search."""
    return "more than 1,000" if seeds is None else str(seeds)


# --------------------------------------------------------------------------------------------------------- the verdicts


def no_plan() -> str:
    """Why runs without a plan are exploratory."""
    return "no plan was written before the runs"


def other_baseline(baseline: str, planned: str) -> str:
    """Why a report against another baseline is exploratory."""
    return f"the baseline is {baseline}, but the plan's is {planned}"


def seeds_missing(complete: int, planned: int) -> str:
    """Why an incomplete comparison is exploratory."""
    return f"{complete} of the {planned} planned seeds are complete, and no interim analysis is planned here"


def beyond_plan(seeds: int, runs: Sequence[tuple[str, int]]) -> str:
    """Why an analysis of more runs than planned is exploratory."""
    by_act: dict[str, list[int]] = {}
    for act, seed in runs:
        by_act.setdefault(act, []).append(seed)
    listed = "; ".join(f"{act} {', '.join(map(str, sorted(each)))}" for act, each in by_act.items())
    return f"runs beyond the planned analysis after {count(seeds, 'seed')}: {listed}"


def not_named(runs: Sequence[str]) -> str:
    """Why runs that were not started by this plan are exploratory."""
    return f"{join(runs)} {'does' if len(runs) == 1 else 'do'} not name this plan, which was written or changed later"


def older_than_plan(runs: Sequence[str]) -> str:
    """Why runs from before the plan are exploratory."""
    return f"the plan was written after {join(runs)} had started"


def unlike_plan(run: str, key: str, found: object, planned: object) -> str:
    """Why a run with other settings than the plan's is exploratory."""
    return f"{run}: {key} is {found}, but the plan says {planned}"


def unsealed(runs: Sequence[str]) -> str:
    """Why runs without a seal are exploratory."""
    return f"{join(runs)}: no seal, so changes after the end of the run cannot be detected"


def stopped_early(run: str, epochs: int, of: int) -> str:
    """Why a run that train.patience has stopped is exploratory."""
    return f"{run} stopped after {epochs} of {of} epochs (train.patience)"


def not_in_plan(runs: Sequence[str]) -> str:
    """The finished runs of a folder that its plan does not name."""
    return (
        f"not in the plan and not included: {count(len(runs), 'finished run')} of this folder ({', '.join(runs)}); "
        "--report shows all of them"
    )


def waited_for_data(fraction: float) -> str:
    """Why a run that waited for data is excluded from timing."""
    return f"waited for data {100 * fraction:.0f} % of its step time"


def busy_machine(mean: float, most: float) -> str:
    """Why a run beside other processes is excluded from timing."""
    return f"other processes used {mean:.2f} of a core on average, {most:.2f} in one epoch"


def load_unknown() -> str:
    """Why a run is excluded from timing if the load by other processes is not recorded for every epoch."""
    return "the load by other processes was not recorded"


def not_timed() -> str:
    """Why a run without a timed step is excluded from timing."""
    return "no training step was timed (0 s)"


def no_primary() -> str:
    """Why a finished run counts as failed."""
    return "finished without mAP50-95 in its last epoch"


def insensitivity(found: Insensitivity | None, baseline: str, margin: float) -> str:
    """Why neither equivalence nor non-inferiority can be shown; empty if they can."""
    if found is None:
        return ""
    if found.reason == "floor":
        return (
            f"nothing was learned yet (mean mAP of {baseline} {found.mean:.2f} points, less than 10 times the margin "
            f"of {margin:g})"
        )
    if found.reason == "rising":
        return (
            f"training is unfinished (mean mAP of {baseline} {found.mean:.1f} points and still rising steeply: as many "
            f"epochs again would add {found.rise or 0:.1f} points at the final rate)"
        )
    return f"there is no room for a difference (mean mAP of {baseline} {found.mean:.1f} points)"


def scatter(deviations: Mapping[str, float], unit: str) -> tuple[str, ...]:
    """How much the runs of each activation scatter, and by what factor this differs."""
    if not deviations:
        return ()
    most, least = (choose(deviations, key=lambda act: deviations[act]) for choose in (max, min))
    listed = ", ".join(f"{act} {sd:.2f}" for act, sd in deviations.items())
    factor = deviations[most] / deviations[least] if deviations[least] else math.inf
    unequal = ""
    if math.isfinite(factor) and factor >= UNEQUAL:
        unequal = f"; {most} scatters {factor:.1f} times as much as {least}"
    return (f"Standard deviation over seeds: {listed} {unit}{unequal}.",)


def collapsed(runs: Mapping[tuple[str, int], tuple[float, float]], verdicts: Mapping[str, Verdict]) -> str:
    """Runs far below the others of their activation (value, median of the others), and the verdicts without them."""
    listed = "; ".join(
        f"{act}, seed {seed}: {value:.1f} points, median of its other runs {median:.1f}"
        for (act, seed), (value, median) in runs.items()
    )
    without = "; ".join(f"{act}: {verdict.text}" for act, verdict in verdicts.items())
    return f"Collapsed: {listed}. Such runs count; without {'it' if len(runs) == 1 else 'them'}: {without}."


def _failed(act: str, baseline: str, failed: Mapping[str, Failures]) -> list[str]:
    """The failed runs of a candidate and of the baseline: a failure is an outcome."""
    both = {name: failed[name] for name in (act, baseline) if name in failed}
    return [f"{each.failed} of {each.ended} {name} runs failed" for name, each in both.items() if each.failed]


def missing_verdict(act: str, metric: Metric, baseline: str, failed: Mapping[str, Failures]) -> Verdict:
    """The verdict on a candidate that cannot be compared."""
    why = metric.note or "no completed run with this metric shares a seed with the baseline"
    return Verdict(kind="none", text=f"not compared ({'; '.join([*_failed(act, baseline, failed), why])})")


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
    lost = _failed(act, base, failed)
    first = f"{', '.join(lost)}; completed runs only: " if lost else ""
    if difference.interval is None or difference.equivalence_interval is None:
        return Verdict(
            kind="none", text=f"{first}no verdict ({_why_no_interval(comparison)}); observed {size} vs {base}"
        )
    basis = f"{count(comparison.candidates, 'candidate')}, {count(difference.pairs, 'pair')}"
    wide, narrow = _interval(difference.interval, comparison.alpha), _ends(difference.equivalence_interval)
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
        text = f"inconclusive, {size} vs {base} {sure}{_more_seeds([difference], comparison, margin)}"
    few = "; with two pairs of runs, only large differences are detectable" if difference.pairs == 2 else ""
    return Verdict(kind=kind, text=f"{first}{text}{few}")


def time_verdict(difference: Difference, comparison: Comparison, *, exploratory: bool) -> Verdict:
    """The verdict on a candidate's training time; it has no margin. Without significance, it is a bound."""
    size = f"{percent(difference.estimate)} vs {comparison.baseline}"
    if difference.interval is None:
        return Verdict(kind="none", text=f"{size}, no interval ({_why_no_interval(comparison)})")
    low, high = difference.interval
    kind: Kind = "higher" if low > 1 else "lower" if high < 1 else "inconclusive"
    sure = _ratio_interval(difference.interval, comparison.alpha)
    if exploratory:
        return Verdict(kind="exploratory", text=f"{size} ({sure}, exploratory)")
    if kind == "inconclusive" and math.isfinite(high):
        most = [percent(high).lstrip("+"), percent(2 - low).lstrip("+")]  # 2 - low: as much less as low is below 1
        bound = f"at most {most[0]} more, at most {most[1]} less than {comparison.baseline}"
        return Verdict(kind=kind, text=f"{bound} ({sure}, inconclusive)")
    return Verdict(kind=kind, text=f"{size} ({sure}, {'inconclusive' if kind == 'inconclusive' else 'significant'})")


def _interval(interval: tuple[float, float], alpha: float) -> str:
    return f"simultaneous {level(alpha)} CI {_ends(interval)}"


def _ends(interval: tuple[float, float]) -> str:
    return f"{signed(interval[0])} to {signed(interval[1])}"


def _ratio_interval(interval: tuple[float, float], alpha: float) -> str:
    return f"simultaneous {level(alpha)} CI {percent(interval[0])} to {percent(interval[1])}"


def _why_no_interval(comparison: Comparison) -> str:
    if comparison.sigma == 0.0:
        return "identical differences for every seed, so the variance cannot be estimated"
    return "one seed" if len(comparison.seeds) == 1 else "too few complete pairs of runs"


def _more_seeds(differences: Sequence[Difference], comparison: Comparison, margin: float) -> str:
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
    return f"; about {seeds_or_more(more)} more seeds needed to detect {margin:g} {POINTS}{careful}"


def image_effect(sampling: ImageSampling, act: str, outcome: Outcome) -> str:
    """How far the choice of validation images matters to a candidate's difference."""
    effect, what = sampling.effects.get(act), level(outcome.alpha)
    if effect is None:
        why = f" ({sampling.missing[0]})" if sampling.missing else ""
        return f"interval over validation images not available{why}"
    few = f" from {count(len(effect.seeds), 'seed')}" if len(effect.seeds) < len(outcome.seeds) else ""
    images = "" if sampling.images is None else f" ({sampling.images:,})"
    text = (
        f"{what} CI over validation images{images} {signed(effect.interval[0])} to {signed(effect.interval[1])}, "
        f"standard deviation {effect.sd:.2f} points{few}"
    )
    if effect.redrawn:
        return f"{text}; each seed has its own images, so the interval over seeds holds for new images as well"
    if effect.both is None:
        return text
    return f"{text}; for new seeds and new images {signed(effect.both[0])} to {signed(effect.both[1])}"


def image_sampling(sampling: ImageSampling) -> list[str]:
    """How the intervals over validation images were computed, and the runs without them."""
    lines = []
    if sampling.effects:
        lines.append(
            f"Over validation images: paired bootstrap of {sampling.resamples:,} resamples of the stored detections of "
            "the last epoch, the same images for all runs, of the difference averaged over seeds; simultaneous for all "
            "candidates. The seeds are held fixed. For new seeds and new images: the variances are added (squares of "
            "the half-widths); what depends on seed and image together is counted twice, so this interval is rather "
            "too wide."
        )
    if sampling.missing:
        shown = "; ".join(sampling.missing[:MAX_LISTED])
        more = len(sampling.missing) - MAX_LISTED
        lines.append(f"Without stored detections: {shown}{f'; and {more} more' if more > 0 else ''}.")
    return lines


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


# --------------------------------------------------------------------------------------------------- the recommendation


def recommendation(outcome: Outcome) -> tuple[str, ...]:
    """Which activation to use and what it costs, or why no choice is supported."""
    base, lost = outcome.baseline, [act for act in outcome.candidates if outcome.primary.mean(act) is None]
    if not outcome.candidates:
        return ("There is only one activation, so there is nothing to choose between.",)
    if outcome.exploratory:
        return (
            "No recommendation: these results are exploratory. Confirm them in a planned comparison with fresh seeds.",
        )
    missing = [f"No run of {join(lost, 'or')} was completed, so there is no evidence for it."] if lost else []
    reliable = _reliability(outcome)
    if len(outcome.of_kind("none")) == len(outcome.candidates):
        return (*missing, *([_no_interval(outcome)] if len(lost) < len(outcome.candidates) else []), *reliable)
    lower, unclear = outcome.of_kind("lower"), outcome.of_kind("inconclusive")
    use = [act for act in outcome.of_kind("higher") if not _objection(outcome, act)]
    sentences = _use(outcome, use) if use else _keep(outcome, unclear)
    sentences += [text for act in outcome.of_kind("higher") if (text := _objection(outcome, act))]
    if outcome.insensitive:
        found = insensitivity(outcome.insensitive, base, outcome.margin)
        sentences.append(f"{found[0].upper()}{found[1:]}: a longer or an easier training may decide otherwise.")
    if lower:
        sentences.append(f"Avoid {join(lower, 'or')}: significantly lower mAP than {base}.")
    if use and unclear and outcome.primary.comparison:
        differences = [each for act in unclear if (each := outcome.primary.difference(act))]
        more = _more_seeds(differences, outcome.primary.comparison, outcome.margin)
        sentences.append(f"{join(unclear)}: inconclusive{more}.")
    failed = [
        f"{each.failed} of {each.ended} {act} runs"
        for act, each in outcome.failed.items()
        if each.failed and act not in lost
    ]
    warning = [f"Warning: {join(failed)} failed; the results are those of completed runs."] if failed else []
    return (*sentences, *missing, *warning, *reliable)


def _objection(outcome: Outcome, act: str) -> str:
    """Why a candidate with a significantly higher mAP is not recommended, if so."""
    difference, base = outcome.primary.difference(act), outcome.baseline
    gain = f"{signed(difference.estimate)} {POINTS}" if difference else ""
    failed, ended = outcome.failed[act]
    if outcome.fails_more(act):
        other = outcome.failed[base]
        return (
            f"{act}: higher mAP than {base} where it trains ({gain}), but {failed} of {ended} runs did not "
            f"({base}: {other.failed} of {other.ended}), so it is not recommended."
        )
    equal = outcome.metrics["until"].difference(act)
    if equal and equal.interval and equal.interval[1] < 0 and outcome.time_verdicts[act].kind == "higher":
        return (
            f"{act}: higher mAP than {base} at equal epochs ({gain}, training time {outcome.time_verdicts[act].text}), "
            f"but {_equal_time(outcome, act)}, so it is not recommended for a fixed training time."
        )
    return ""


def _equal_time(outcome: Outcome, act: str) -> str:
    """The mAP at equal training time, where the training times differ significantly; else empty."""
    until = outcome.metrics["until"]
    difference = until.difference(act)
    if outcome.time_verdicts[act].kind not in ("higher", "lower") or difference is None or until.comparison is None:
        return ""
    interval = f" ({_interval(difference.interval, until.comparison.alpha)})" if difference.interval else ""
    return f"at equal training time {signed(difference.estimate)} {POINTS}{interval} by an unfinished schedule"


def _reliability(outcome: Outcome) -> list[str]:
    """Candidates that fail significantly more or less often than the baseline (Fisher's exact test, Bonferroni)."""
    base, sentences = outcome.failure_rates.get(outcome.baseline), []
    for act, rate in outcome.failure_rates.items():
        if base is None or rate.p is None or rate.p * len(outcome.candidates) >= outcome.alpha:
            continue
        word = "more" if outcome.fails_more(act) else "fewer"
        sentences.append(
            f"Significantly {word} runs of {act} failed: {rate.failed} of {rate.ended}, {outcome.baseline} "
            f"{base.failed} of {base.ended} (Fisher's exact test, p = {rate.p:.2g})."
        )
    return sentences


def control(outcome: Outcome) -> tuple[str, ...]:
    """What an A/A control says about the method."""
    what = f"A/A control: {outcome.baseline} is compared with itself under other seeds, so there is nothing to choose."
    if outcome.exploratory:
        return (what, "It is not complete, so it does not check the method yet.")
    if outcome.of_kind("higher", "lower", "higher-within-margin", "lower-within-margin"):
        return (
            what,
            f"The interval excludes 0, which happens by chance in {100 * outcome.alpha:g} % of such controls; if it "
            "recurs, suspect the method or the machine.",
        )
    if len(outcome.of_kind("none")) == len(outcome.candidates):
        return (what, "There is no interval, so it does not check the method.")
    return (what, f"The interval contains 0, as expected in {level(outcome.alpha)} of such controls.")


def _no_interval(outcome: Outcome) -> str:
    if len(outcome.seeds) < 2:
        return (
            "No recommendation: one run per activation cannot separate the activation from seed variation. Run at "
            f"least {MIN_SEEDS} seeds, preferably {GOOD_SEEDS}."
        )
    return "No recommendation: no confidence interval can be estimated from these runs."


def _use(outcome: Outcome, higher: Sequence[str]) -> list[str]:
    """The candidates to use: gain, training time and, where the times differ, gain at equal time in one sentence."""
    base, metric = outcome.baseline, outcome.primary
    price = {}
    for act in higher:
        if difference := metric.difference(act):
            gain = f"mAP {signed(difference.estimate)} points, training time {outcome.time_verdicts[act].text}"
            price[act] = ", ".join(filter(None, (gain, _equal_time(outcome, act))))
    first = f"Use {join(higher, 'or')} for data and a schedule like these: significantly higher mAP than {base}"
    if len(higher) == 1:
        return [f"{first}; {'; '.join(price.values())}."]
    largest = max(higher, key=lambda act: metric.mean(act) or -math.inf)
    return [
        f"{first}.",
        f"The largest observed mAP is that of {largest}; {_choice(outcome, higher)}.",
        *(f"{act}: {text}." for act, text in price.items()),
    ]


def _choice(outcome: Outcome, acts: Sequence[str]) -> str:
    """Whether these candidates are separated from each other."""
    pairs = [pair for pair in outcome.pairs if {pair.one, pair.other} <= set(acts)]
    if not pairs:
        return "candidates were not tested against each other (--all-pairs)"
    return "; ".join(pair_verdict(pair) for pair in pairs)


def pair_verdict(pair: PairDifference) -> str:
    """Whether two candidates are separated, without the level of the intervals."""
    size = f"{signed(pair.estimate)} {POINTS}"
    if pair.interval is None:
        return f"{pair.one} vs {pair.other}: {size}, no interval"
    word = f"separated, {pair.one} is higher" if pair.separated else "not separated"
    return f"{pair.one} vs {pair.other}: {word}, {size} ({_ends(pair.interval)}; {count(pair.pairs, 'pair')})"


def pair_lines(outcome: Outcome) -> list[str]:
    """The candidates against each other, with a heading; empty if the plan does not declare it."""
    if not outcome.pairs:
        return []
    head = f"candidates against each other, simultaneous {level(outcome.alpha)} CI (Tukey; a separate family of tests):"
    return [head, *(pair_verdict(pair) for pair in outcome.pairs)]


def _keep(outcome: Outcome, unclear: Sequence[str]) -> list[str]:
    base, margin = outcome.baseline, outcome.margin
    if unclear:
        sentences = [
            f"Inconclusive: these runs do not show whether {join(unclear, 'or')} "
            f"{'changes' if len(unclear) == 1 else 'change'} the mAP compared with {base}. Keep {base} until more "
            "seeds are available."
        ]
    elif undecided := outcome.of_kind("insensitive"):
        sentences = [f"No choice between {base} and {join(undecided, 'or')} is supported."]
    else:
        sentences = [f"Keep {base}: no candidate has a higher mAP by the declared margin of {margin:g} points."]
    for word in ("higher", "lower"):
        if small := outcome.of_kind("higher-within-margin" if word == "higher" else "lower-within-margin"):
            sentences.append(f"{word.capitalize()} than {base} by less than the margin: {join(small)}.")
    if non_inferior := outcome.of_kind("non-inferior"):
        sentences.append(
            f"Non-inferior to {base} (margin {margin:g} points), superiority not shown: {join(non_inferior)}."
        )
    alike = outcome.of_kind("equivalent", "higher-within-margin", "lower-within-margin")
    if equivalent := [act for act in alike if not outcome.fails_more(act)]:
        sentences.append(
            f"Equivalent within ±{margin:g} points: {join([base, *equivalent])}. Choose between them by training time "
            "and memory."
        )
    return sentences


# -------------------------------------------------------------------------------------------------- further information


def goal(row: Requirement) -> str:
    """What a number of seeds would show."""
    if row.goal == "equivalence":
        return f"show equivalence within ±{row.points:g} {POINTS} if there is no difference"
    return f"detect a difference of {row.points:g} {POINTS}"


def required_seeds(summary: Summary) -> str:
    """The seeds that would detect a difference as large as the margin, in one sentence; empty if unknown."""
    required = summary.required_seeds
    if required is None:
        if len(summary.planned.seeds) > 1:
            return ""
        return (
            f"one seed gives no estimate of seed variation; {MIN_SEEDS} seeds allow a first verdict, {GOOD_SEEDS} a "
            "useful one."
        )
    row = next(each for each in required.rows if each.points == summary.planned.margin)
    if only_conservative(summary):
        return (
            f"about {seeds_or_more(row.seeds_conservative)} seeds per activation to {goal(row)} (conservative "
            "estimate, from two pairs of runs)."
        )
    if row.seeds is None:
        return f"more than 1,000 seeds per activation to {goal(row)}."
    time = "" if row.hours is None else f": {hours(row.hours)} on this machine"
    return (
        f"about {row.seeds} seeds per activation to {goal(row)} ({seeds_or_more(row.seeds_conservative)}, conservative "
        f"estimate){time}."
    )


def only_conservative(summary: Summary) -> bool:
    """Whether the residual sd is known from two pairs of runs only, which supports no more than a cautious number."""
    comparison = summary.planned.primary.comparison
    return comparison is not None and all(each.pairs <= 2 for each in comparison.differences.values())


def variation(summary: Summary) -> str:
    """The seed variation and what these runs can detect."""
    required = summary.required_seeds
    if required is None:
        return ""
    comparison = summary.planned.primary.comparison
    each = {name: difference.sigma for name, difference in comparison.differences.items()} if comparison else {}
    known = {name: sigma for name, sigma in each.items() if sigma}
    sentences = [
        "Residual standard deviation of one run, by comparison with the baseline (conservative): "
        f"{', '.join(f'{name} {sigma:.2f}' for name, sigma in known.items())} {POINTS}. Seeds are those for "
        f"{required.sigma:.2f}."
    ]
    if required.detectable is not None:
        seeds = count(len(summary.planned.seeds), "seed")
        sentences.append(
            f"With {seeds}, a true difference of {required.detectable:.2f} points is detected with 80 % probability."
        )
    if required.hours_per_seed is not None:
        sentences.append(f"One seed of all activations takes {hours(required.hours_per_seed)}.")
    return " ".join(sentences)


def failures(summary: Summary) -> list[str]:
    """The failed runs of each activation, with reasons, and those that finished at a later attempt."""
    lines = [
        f"{run['activation']}, seed {run['seed']}: attempt {run['attempts']}; failed before: {run['earlier_failures']}"
        for run in summary.runs
        if run["earlier_failures"]
    ]
    for act, (failed, ended) in summary.planned.failed.items():
        reasons = [
            f"seed {run['seed']}: {run['reason'] or 'no reason recorded'}"
            for run in summary.runs
            if run["activation"] == act and run["status"] == "failed"
        ]
        if failed:
            rate = summary.planned.failure_rates[act]
            test = (
                "" if rate.p is None else f", Fisher's exact test against {summary.planned.baseline} p = {rate.p:.2g}"
            )
            ends = f"{level(summary.planned.alpha)} CI {100 * rate.low:.0f} to {100 * rate.high:.0f} %"
            lines.append(f"{failed} of {ended} {act} runs failed ({'; '.join(reasons)}); {ends}{test}")
    return lines


def budgets(summary: Summary) -> str:
    """The two budgets: equal epochs and equal training time."""
    until = list(summary.planned.until_seconds.values())
    if summary.equal_time_planned:
        text = (
            "The epochs of each activation were planned to fit the training time of the fastest one. "
            f"{realised_times(summary.planned)}"
        )
    else:
        text = "Equal epochs: every activation was trained on the same number of images."
    if not until:
        return f"{text} Equal time is unavailable: every run is excluded from timing."
    at = format_duration(math.fsum(until) / len(until))
    return (
        f"{text} Equal time: for each seed, the curves are read by linear interpolation at the time at which the "
        f"fastest run ends ({at} on average). Slower runs are read before their learning rate has decayed (“unfinished "
        "schedule”), which puts them at a disadvantage; --budget time plans a comparison without it."
    )


def realised_times(outcome: Outcome) -> str:
    """Whether the training times that were planned to be equal are, with their ratios."""
    comparison = outcome.time.comparison
    if comparison is None or not comparison.differences:
        return "The realised times are unknown, as no run was timed, so nothing shows that they are equal."
    base = outcome.baseline
    listed = join([f"{name} {_bound(each)}" for name, each in comparison.differences.items()])
    apart = [name for name, each in comparison.differences.items() if abs(each.estimate - 1) > MAX_TIME_GAP]
    realised = f"Realised training time relative to {base} (simultaneous {level(comparison.alpha)} CI): {listed}"
    if apart:
        return (
            f"{realised}. More than {100 * MAX_TIME_GAP:g} % apart from {base}: {join(apart)}; the last epoch does not "
            "compare at equal time."
        )
    return f"{realised}: within {100 * MAX_TIME_GAP:g} %, so the last epoch compares at about equal time."


def memory(value: float, baseline: float) -> str:
    """The peak memory of a candidate beside that of the baseline, in MiB."""
    return f"{value:,.0f} MiB, baseline {baseline:,.0f} MiB (×{value / baseline:.2f})"


def method(outcome: Outcome, setting: Setting) -> list[str]:
    """The statistical method of mAP and of time, and what was checked."""
    lines = [
        f"{outcome.primary.title}: {_estimation(outcome.primary)}",
        f"Training time, as a ratio of geometric means: {_estimation(outcome.time)}",
        f"Equivalence within ±{outcome.margin:g} points: the {level(2 * outcome.alpha)} interval lies within the "
        "margin (two one-sided tests). mAP and training time are two families of tests, each with its own error rate; "
        "all other metrics are descriptive. The last epoch is compared, not the best one, and no outlier is removed.",
    ]
    return lines + list(setting.pairing or [paired(setting.unpaired)])


def paired(unpaired: Mapping[str, Sequence[str]]) -> str:
    """What the runs of a seed shared, as far as the arms leave it alike; all of it was checked."""
    parts = [
        f"{what} as far as the arms have the same {join(unpaired[key])}" if key in unpaired else what
        for key, what in (("weights", "starting weights"), ("batches", "batches"))
    ]
    return f"Within each seed, all runs shared {join(parts)} (checked)."


def _estimation(metric: Metric) -> str:
    comparison = metric.comparison
    if comparison is None:
        return f"{metric.note}."
    if comparison.critical is None or comparison.sigma is None:
        return "one value per activation: differences without intervals."
    if comparison.sigma == 0:
        return "the differences are identical for every seed, so no interval can be estimated."
    candidates, alpha = comparison.candidates, comparison.alpha
    name = "paired t interval" if candidates == 1 else f"Dunnett's two-sided intervals for {candidates} candidates"
    fit = "all runs complete" if comparison.complete else "least squares of activation + seed, some runs missing"
    return (
        f"{name}, simultaneous {level(alpha)}, {count(len(comparison.seeds), 'seed')} ({fit}): estimate ± "
        f"{comparison.critical:.3f} standard errors, {comparison.degrees} degrees of freedom, residual standard "
        f"deviation {comparison.sigma:.4g} (conservative: the larger of the two-way residual and of that implied by "
        "the paired differences). A candidate whose own paired differences scatter more gets its own, larger standard "
        "error."
    )


# --------------------------------------------------------------------------------------------------------------- titles


def subtitle(summary: Summary) -> str:
    """What was compared, how often, on what."""
    outcome = summary.planned
    compared = f"{', '.join(outcome.candidates)} vs {outcome.baseline} (baseline)"
    images = summary.image_sampling.images
    pictures = "number of validation images not recorded" if images is None else count(images, "validation image")
    return " · ".join([compared, count(len(outcome.seeds), "seed"), pictures, *summary.setting.words])


def effects_title(outcome: Outcome) -> str:
    """The title of the figure of differences."""
    base, seeds = outcome.baseline, count(len(outcome.seeds), "seed").replace(" ", "\N{NO-BREAK SPACE}")
    if outcome.exploratory:
        return f"Exploratory: differences from {base}, {seeds}"
    groups = {
        f"higher than {base}": [act for act in outcome.of_kind("higher") if not outcome.fails_more(act)],
        f"higher than {base} where training does not fail": [
            act for act in outcome.of_kind("higher") if outcome.fails_more(act)
        ],
        f"lower than {base}": outcome.of_kind("lower"),
        f"higher than {base} by less than the margin": outcome.of_kind("higher-within-margin"),
        f"lower than {base} by less than the margin": outcome.of_kind("lower-within-margin"),
        f"equivalent to {base} within ±{outcome.margin:g} points": outcome.of_kind("equivalent"),
        f"non-inferior to {base}": outcome.of_kind("non-inferior"),
    }
    parts = [f"{join(acts)} {what}" for what, acts in groups.items() if acts]
    if parts:
        return f"mAP: {'; '.join(parts)} ({seeds})"
    if outcome.of_kind("insensitive"):
        return f"Observed differences from {base}, {seeds}: {insensitivity(outcome.insensitive, base, outcome.margin)}"
    if outcome.of_kind("inconclusive"):
        return f"mAP: inconclusive vs {base} ({seeds})"
    return f"Observed differences from {base}, {seeds}: no verdict"


def tradeoff_title(outcome: Outcome) -> str:
    """The title of the figure of gain against cost."""
    return f"{'Exploratory: gain' if outcome.exploratory else 'Gain'} against cost, relative to {outcome.baseline}"


def limits(summary: Summary) -> list[tuple[str, str]]:
    """What the result does not say, by subject."""
    same, sampling = summary.setting.same, summary.image_sampling
    data = Path(str(same.get("config.data.root", "one data set"))).name
    epochs, lr = same.get("config.train.epochs"), same.get("config.train.lr")
    images = "the validation images" if sampling.images is None else count(sampling.images, "validation image")
    if any(effect.redrawn for effect in sampling.effects.values()):
        chance = "Each seed has its own images of the same kind."
    elif sampling.effects:
        chance = "The interval over seeds holds for these images; that for new seeds and new images is given beside it."
    else:
        chance = "The interval over seeds holds for these images alone; how far others would change it is not known."
    return [
        ("Data", f"All runs are of one kind of data ({data}). On other data the order may be another."),
        (
            "Schedule",
            f"{'' if epochs is None else f'Every run was trained for {epochs} epochs. '}A longer or shorter training "
            "may change the size of a difference, and its sign.",
        ),
        (
            "Tuning",
            f"{summary.tuning.key} was tuned for each {summary.noun}; all other settings are shared."
            if summary.tuning is not None
            else f"All {summary.noun}s share {'' if lr is None else f'the learning rate {lr} and '}all other settings. "
            "With settings tuned for each of them, the result may be another.",
        ),
        ("Images", f"The mAP is that on {images}. {chance}"),
        (
            "Machine",
            f"Time, memory and latency are those of {same.get('device', 'the machine of the runs')}. Another device, "
            "image size or batch size may change the ratios.",
        ),
    ]


def curves_title(outcome: Outcome) -> str:
    """The title of the learning curves: the largest observed mAP under either budget."""

    def largest(metric: Metric) -> str:
        means = [(mean, act) for act in metric.arms if (mean := metric.mean(act)) is not None]
        return "{1}, {0:.1f}".format(*max(means)) if means else ""

    if not (last := largest(outcome.primary)):
        return "mAP during training"
    equal = largest(outcome.metrics["until"])
    return f"Largest observed mAP at equal epochs: {last}{f'; at equal time: {equal}' if equal else ''}"


def runs_title(outcome: Outcome) -> str:
    """The title of the figure of single runs: the seed variation."""
    ranges = [
        max(each.values.values()) - min(each.values.values()) for each in outcome.primary.arms.values() if each.values
    ]
    if not ranges or len(outcome.seeds) < 2:
        return "mAP of every run at its last epoch"
    return f"Every run: between seeds, the mAP of one activation varies by up to {max(ranges):.1f} points"


def times_title(outcome: Outcome) -> str:
    """The title of the figure of training times: the ratio of each candidate."""
    comparison = outcome.time.comparison
    if comparison is None or not comparison.differences:
        return "Training time of every run: none left to compare"
    if len(comparison.differences) > 3:
        ratios = [each.estimate for each in comparison.differences.values()]
        return f"Training time: observed ×{min(ratios):.2f} to ×{max(ratios):.2f} relative to {outcome.baseline}"
    listed = ", ".join(f"{name} {_bound(each)}" for name, each in comparison.differences.items())
    return f"Training time relative to {outcome.baseline}: {listed}"


def _bound(ratio: Difference) -> str:
    """A time ratio with the bounds of its interval."""
    if ratio.interval is None or math.isinf(ratio.interval[1]):
        return f"×{ratio.estimate:.2f} (no interval)"
    low, high = ratio.interval
    return f"×{ratio.estimate:.2f} ({low:.2f} to {high:.2f})"


def timing_title(rows: Sequence[TimingRow], *, excluded: bool = False) -> str:
    """The title of the figure of the isolated timing."""
    slowest = max(rows, key=lambda row: row.ratio)
    name, first = (f"{row.act} ({row.norm_act})" for row in (slowest, rows[0]))
    if excluded:
        return f"Isolated timing, excluded because of other processes: ratios to {first}"
    return f"Isolated timing: slowest step {name}, ×{slowest.ratio:.2f} relative to {first}"


# ---------------------------------------------------------------------------------------------------- texts of the page

PAGE = {
    "title": "Which activation should this detector use?",
    "failed": (
        "A diverged loss is an outcome of the activation; other failures may be those of the machine. All results "
        "below are those of completed runs."
    ),
    "unfinished": "not finished, not included",
    "exploratory": "The numbers are correct, but they carry no verdict.",
    "effects": (
        "One row per activation, compared with the baseline. A difference is significant if its interval excludes "
        "0, a time ratio if its interval excludes ×1. Small dots are single seeds."
    ),
    "tradeoff": (
        "Up is a higher mAP, right is a longer training. A mark whose interval crosses a black line is not "
        "distinguished from the baseline in that direction."
    ),
    "table": (
        "mAP and AP in points (100 × the fraction), of the EMA weights after the last epoch: mean ± standard "
        "deviation over seeds. Click a column header to sort."
    ),
    "secondary": (
        "Only mAP50-95 of the last epoch was declared as the primary metric. With several other metrics, one of "
        "them is likely to stand out by chance."
    ),
    "curves": (
        "Mean over seeds and the range from the lowest to the highest seed. Time is training time without warm-up, "
        "validation, saving and waiting for data."
    ),
    "runs": (
        "Each mark is one run. A thin line joins the runs of a seed, which share starting weights and batches. "
        "Parallel lines mean that pairing by seed has reduced the variance."
    ),
    "times": "Training time per epoch. A cross marks a run excluded from timing.",
    "all_timed": (
        f"No run is excluded from timing: none waited for data for more than {100 * MAX_DATA_WAIT_FRACTION:g} % of "
        f"its step time, and other processes used at most {MAX_OTHER_CORES:g} of a core on average and "
        f"{MAX_OTHER_CORES_ONCE:g} in any epoch."
    ),
    "timing": (
        "Measured separately from training: preloaded batches, short blocks of steps, all networks alternating in "
        "one process, many repetitions"
    ),
    "tuning_figure": (
        "mAP50-95 of the last epoch on the held-out training images: the mean over the tuning seeds, and small dots for"
        " single runs. A ring marks the chosen value, the dashed line the common one. These scores chose a value; they "
        "are no estimate of its mAP."
    ),
    "timing_figure": "Ratio to the first row, with simultaneous 95 % intervals.",
    "causes": (
        "Descriptive: each interval holds for all candidates in one quantity, not over all quantities, so one of them "
        "is likely to stand out by chance. Differences are paired by seed."
    ),
    "causes_how": (
        "Of the detections of the last epoch: AP50 that would be gained if the errors of a kind were removed (TIDE), "
        "and the expected calibration error of the scores. Of the weights after the last epoch, on the first "
        "validation images: the share of channels whose activation is constant, and the norm of the loss gradient."
    ),
    "no_energy": "Energy: not measured (no counter of the GPU or the CPU could be read).",
    "no_causes": "No stored detections and no diagnostics in these runs.",
    "required": (
        "“Conservative” uses the 80 % upper confidence limit of the residual standard deviation. Hours are those of"
        " all activations, one run after another on this machine."
    ),
    "larger": (
        "The verdict above remains that of the plan: adding runs until a result is significant inflates the error "
        "rate. With all runs:"
    ),
    "no_difference": "No difference between runs other than activation and seed, as far as recorded.",
    "no_plan": "No plan was written before the runs, so the result is exploratory.",
    "no_candidate": "no candidate has a completed run to compare with the baseline",
    "files": "The same numbers in full precision are in this folder:",
}
NOTES = {
    "best": "The best epoch is selected on the set it is measured on, which favours noisy curves; it is descriptive.",
    "memory": (
        "Peak memory is what training adds: on a GPU the peak allocation of PyTorch, on a CPU the peak size of the "
        "process minus its size after the model was built. It is descriptive."
    ),
    "latency": (
        "Inference latency is that of the trained network on the machine of the training, per image in batches of the "
        "validation, not at batch 1; runs excluded from timing have none. It is descriptive."
    ),
    "correlation": (
        "Correlation: between the paired runs of a candidate and the baseline. Near 1, pairing by seed removes most"
        " of the seed variation; near 0, it removes none."
    ),
}


def tuning(tuned: Tuning, curves: Sequence[TuningCurve], *, compared: bool) -> tuple[str, ...]:
    """How the arms were tuned, what was chosen, and where the verdict stands at the common value."""
    values, seeds = ", ".join(map(str, tuned.values)), ", ".join(map(str, tuned.seeds))
    chosen = ", ".join(f"{act} {value}" for act, value in tuned.chosen.items())
    sentences = [
        f"{tuned.key}: every arm was trained with {values} under seeds {seeds} and scored on {100 * tuned.holdout:g} % "
        f"of the training images, which these runs did not train on; no run of the tuning saw the validation images. "
        f"Chosen by the largest mean: {chosen}."
    ]
    if edge := [curve.act for curve in curves if curve.at_edge]:
        sentences.append(f"{join(edge)} chose the end of the range, so a better value may lie beyond it.")
    if all(value == tuned.common for value in tuned.chosen.values()):
        sentences.append(f"All arms chose the common value {tuned.common}, so there is one verdict.")
    elif compared:
        sentences.append(f"The result above is at each arm's own value; with {tuned.key}={tuned.common} for all:")
    elif tuned.common_trained:
        sentences.append(f"The comparison with {tuned.key}={tuned.common} for all has not been trained yet.")
    else:
        sentences.append(
            f"The comparison with {tuned.key}={tuned.common} for all was not run (--tune-common), so what tuning "
            "changes in the verdict is unknown."
        )
    return tuple(sentences)


def tuning_title(summary: TuningSummary) -> str:
    """The title of the figure of the tuning: the chosen values."""
    chosen = ", ".join(f"{curve.act} {summary.values[curve.chosen]}" for curve in summary.curves)
    return f"Sensitivity to {summary.key}: chosen {chosen}"


def over_tasks(
    act: str,
    baseline: str,
    differences: Sequence[float | None],
    effect: tuple[float, float, float, float] | None,
    *,
    wins: Sequence[Kind],
    alpha: float,
) -> str:
    """The summary of a candidate over data sets; `effect`: mean, interval and sd between data sets, in points."""
    known = [each for each in differences if each is not None]
    higher, total = sum(each > 0 for each in known), len(differences)
    counts = (
        f"observed higher than {baseline} on {higher} of {total} data sets, significantly higher on "
        f"{wins.count('higher')}, significantly lower on {wins.count('lower')}"
    )
    if effect is None:
        return f"{act}: {counts}; no mean, which needs two data sets with an interval."
    mean, low, high, heterogeneity = effect
    word = "significantly higher" if low > 0 else "significantly lower" if high < 0 else "inconclusive"
    return (
        f"{act}: {counts}. Mean difference over data sets {signed(mean)} {POINTS} ({word}; simultaneous "
        f"{level(alpha)} CI {signed(low)} to {signed(high)}, random effects; the true difference varies between data "
        f"sets with an estimated standard deviation of {heterogeneity:.2f})."
    )


def page_text(noun: str) -> dict[str, str]:
    """The texts of the page for what is compared, "activation" or "arm"."""
    if noun == "activation":
        return PAGE
    texts = {key: text.replace("an activation", "an arm").replace("activation", "arm") for key, text in PAGE.items()}
    return {**texts, "title": "Which setting should this detector use?"}


# ------------------------------------------------------------------------------------------------------------- the plan


def describe(plan: Plan) -> str:
    """The plan as printed before the runs."""
    return "\n".join(f"{name:<20}{text}" for name, text in plan_entries(plan))


def describe_tuning(plan: Plan) -> str:
    """The plan of a tuning as printed before its runs: it carries no verdict."""
    shown = ("arms", "seeds", "epochs", "order", "estimated time")
    lines = [f"{name:<20}{text}" for name, text in plan_entries(plan) if name in shown]
    return "\n".join(["tuning, on held-out training images", *lines])


def plan_entries(plan: Plan) -> list[tuple[str, str]]:
    """The plan as names and texts."""
    epochs_by_act = {act: plan.epochs[act] for act in (*plan.acts, *plan.added_acts)}
    same_epochs = len(set(epochs_by_act.values())) == 1
    epochs = f"{plan.epochs[plan.baseline]}" if same_epochs else ", ".join(f"{a} {n}" for a, n in epochs_by_act.items())
    budget = (
        "" if plan.budget == "epochs" else f", planned to fit the training time of the fastest activation{_gaps(plan)}"
    )
    runs = plan.runs
    interim = ", ".join(map(str, plan.interim or (len(plan.seeds),)))
    entries = [
        ("arms" if plan.varies else "activations", f"{', '.join(plan.acts)} (baseline {plan.baseline})"),
        *([("arms differ in", ", ".join(plan.varies))] if plan.varies else []),
        ("seeds", ", ".join(map(str, plan.seeds))),
        ("epochs", f"{epochs}{budget}"),
        ("order", ", ".join(run.name for run in runs[:6]) + (", ..." if len(runs) > 6 else "")),
        ("estimated time", _estimated_time(plan)),
        ("primary metric", f"{plan.primary} of the last epoch, EMA weights{_split(plan)}"),
        ("detectable", _detectable(plan)),
        ("equivalence", f"margin ±{100 * plan.margin:.2g} {POINTS}; {_seeds_for_equivalence(plan)}"),
        *([("data", "drawn anew for each seed, so that seeds cover the data as well")] if plan.redrawn else []),
        *([] if plan.target is None else [("target", f"epochs to mAP50-95 of {100 * plan.target:g} points")]),
        ("analyses", f"after {interim} seeds; family-wise error rate {plan.alpha:g} in total"),
    ]
    if plan.tuning is not None:
        tuned = plan.tuning
        chosen = ", ".join(f"{act} {value}" for act, value in tuned.chosen.items())
        values = ", ".join(map(str, tuned.values))
        entries.append(
            ("tuning", f"{tuned.key} from {values}, {count(len(tuned.seeds), 'seed')} on held-out images: {chosen}")
        )
    if plan.all_pairs:
        entries.append(("all pairs", "candidates also against each other (Tukey), a family with its own error rate"))
    if plan.added_acts or plan.added_seeds:
        added = [*plan.added_acts, *(f"seed {seed}" for seed in plan.added_seeds)]
        entries.append(("added", f"{', '.join(added)}, beyond the plan: their results are exploratory"))
    return entries + [("note", note) for note in plan.notes]


def _split(plan: Plan) -> str:
    return "" if plan.split == "val" else f", on the split {plan.split}, scored once after the last run"


def _gaps(plan: Plan) -> str:
    """Which planned training times differ from the baseline's after rounding to whole epochs, and by how much."""
    times = {act: plan.epochs[act] * plan.step_ms[act] for act in plan.acts if act in plan.step_ms}
    base = times.get(plan.baseline)
    gaps = {act: time / base for act, time in times.items() if base and abs(time / base - 1) > MAX_TIME_GAP}
    listed = ", ".join(f"{act} {percent(ratio)}" for act, ratio in gaps.items())
    return f"; not equal after rounding to whole epochs: {listed} vs {plan.baseline}" if gaps else ""


def plan_record(plan: Plan | None) -> tuple[tuple[str, str], ...]:
    """The plan for the report, with all runs in their order."""
    if plan is None:
        return ()
    entries = [("written", plan.created), ("config", plan.cfg)]
    entries += [entry for entry in plan_entries(plan) if entry[0] != "order"]
    if plan.overrides:
        entries.append(("overrides", ", ".join(f"{key}={value}" for key, value in plan.overrides.items())))
    return (*entries, ("order", ", ".join(run.name for run in plan.runs)))


def _estimated_time(plan: Plan) -> str:
    estimates = [plan.seconds(run) for run in plan.runs]
    known = [each for each in estimates if each is not None]
    if len(known) < len(estimates):
        return f"{len(estimates)} runs; no probe, so an estimate follows after the first epoch"
    return (
        f"{len(estimates)} runs, about {format_duration(sum(known))} on one device, from a probe of each activation's "
        "step (a validation batch counted as a third of a step; without final evaluation and plots)"
    )


def _detectable(plan: Plan) -> str:
    if len(plan.seeds) < 2:
        return "no interval and no verdict with one seed"
    few = "; with two seeds, only large differences are detectable" if len(plan.seeds) == 2 else ""
    if plan.sigma_assumed is None:
        smallest = join([f"{100 * plan.detectable(sigma / 100):.2g}" for sigma in POSSIBLE_SIGMAS])
        return (
            f"unknown without an estimate of the residual standard deviation of one run: {smallest} {POINTS} (80 % "
            f"probability) if it is {join([f'{sigma:g}' for sigma in POSSIBLE_SIGMAS])} points; two or three pilot "
            f"seeds tell (--sigma){few}"
        )
    return (
        f"a difference of {100 * plan.detectable(plan.sigma_assumed):.2g} {POINTS} with 80 % probability{few} (assumes "
        f"a residual standard deviation of one run of {100 * plan.sigma_assumed:.2g} points, --sigma)"
    )


def _seeds_for_equivalence(plan: Plan) -> str:
    def seeds(sigma: float) -> str:
        needed = seeds_for_equivalence(plan.margin, sigma=sigma, candidates=len(plan.acts) - 1, alpha=plan.alpha)
        return seeds_or_more(needed)

    if plan.sigma_assumed is None:
        known = join([seeds(sigma / 100) for sigma in POSSIBLE_SIGMAS])
        return f"showing equivalence requires {known} seeds (80 % probability, same standard deviations)"
    return f"showing equivalence requires {seeds(plan.sigma_assumed)} seeds (80 % probability, same assumption)"


def timing_setting(content: Mapping[str, object]) -> str:
    """What an isolated timing measured, from timing.json."""
    templates = {
        "device": "{}",
        "imgsz": "{} pixels",
        "batch": "batch {}",
        "rounds": "{} rounds",
        "block": "{} steps each",
    }
    return ", ".join(text.format(content[key]) for key, text in templates.items() if content.get(key) is not None)


def timing_load(cores: float | None) -> str:
    """The load by other processes during an isolated timing, in mean cores, and whether it invalidates the times."""
    if cores is None:
        return "The load by other processes was not recorded, so these times are not known to be clean."
    if cores > MAX_OTHER_CORES:
        return (
            f"Excluded: other processes used {cores:.2f} of a core, more than {MAX_OTHER_CORES:g}, so nothing follows "
            "from these times."
        )
    return f"Other processes used {cores:.2f} of a core."


def setting(same: Mapping[str, str | int | float | bool]) -> tuple[str, ...]:
    """What was trained, as far as all runs share it."""
    templates = {
        "config.data.root": "data {}",
        "config.model.size": "model {}",
        "config.train.imgsz": "{} pixels",
        "config.train.epochs": "{} epochs",
        "device": "{}",
    }
    return tuple(
        text.format(Path(str(same[key])).name if key == "config.data.root" else same[key])
        for key, text in templates.items()
        if key in same
    )
