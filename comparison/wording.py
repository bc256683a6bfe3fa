"""Every sentence of a comparison: plan, verdicts, recommendation, captions and warnings.

"Higher" and "lower" always mean significantly so; an inconclusive result is never called "no difference".
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from comparison.plan import Plan
from comparison.statistics import Comparison, Difference, classify, seeds_for_equivalence, seeds_needed
from comparison.summary import (
    POINTS,
    Failures,
    ImageSampling,
    Kind,
    Metric,
    Outcome,
    Requirement,
    Summary,
    TimingRow,
    Verdict,
)
from core.limits import MAX_DATA_WAIT_FRACTION
from core.text import format_duration

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


def busy_machine(cores: float) -> str:
    """Why a run beside other processes is excluded from timing."""
    return f"other processes used {cores:.2f} of a core"


def _failed(act: str, baseline: str, failed: Mapping[str, Failures]) -> list[str]:
    """The failed runs of a candidate and of the baseline: a failure is an outcome."""
    both = {name: failed[name] for name in (act, baseline) if name in failed}
    return [f"{each.failed} of {each.ended} {name} runs failed" for name, each in both.items() if each.failed]


def missing_verdict(act: str, metric: Metric, baseline: str, failed: Mapping[str, Failures]) -> Verdict:
    """The verdict on a candidate that cannot be compared."""
    why = metric.note or "no completed run with this metric shares a seed with the baseline"
    return Verdict(kind="none", text=f"not compared ({'; '.join([*_failed(act, baseline, failed), why])})")


def map_verdict(
    difference: Difference, comparison: Comparison, *, margin: float, failed: Mapping[str, Failures], exploratory: bool
) -> Verdict:
    """The verdict on a candidate in the primary metric; `margin` in mAP points."""
    act, base = difference.name, comparison.baseline
    kind: Kind = classify(difference, margin=margin)
    size = f"{signed(difference.estimate)} {POINTS}"
    lost = _failed(act, base, failed)
    first = f"{', '.join(lost)}; completed runs only: " if lost else ""
    if difference.interval is None or difference.equivalence_interval is None:
        return Verdict(
            kind="none", text=f"{first}no verdict ({_why_no_interval(comparison)}); observed {size} vs {base}"
        )
    basis = f"{count(comparison.candidates, 'candidate')}, {count(len(comparison.seeds), 'seed')}"
    wide = _interval(difference.interval, comparison.alpha)
    narrow = _interval(difference.equivalence_interval, 2 * comparison.alpha)
    wide_level = wide.removeprefix("simultaneous ")
    if exploratory:
        kind, text = "exploratory", f"exploratory, no verdict: {size} vs {base} ({wide}; {basis})"
    elif kind in ("higher", "lower"):
        text = f"significantly {kind} than {base}, {size} ({wide}; {basis})"
    elif kind == "equivalent":
        text = f"equivalent to {base} within ±{margin:g} {POINTS}, {size} ({narrow}, {wide_level}; {basis})"
    elif kind == "non-inferior":
        text = (
            f"non-inferior to {base} (margin {margin:g} {POINTS}), superiority not shown, {size} "
            f"({narrow}, {wide_level}; {basis})"
        )
    else:
        text = f"inconclusive, {size} vs {base} ({wide}; {basis}){_more_seeds(comparison, margin)}"
    few = "; with two seeds, only large differences are detectable" if len(comparison.seeds) == 2 else ""
    return Verdict(kind=kind, text=f"{first}{text}{few}")


def time_verdict(difference: Difference, comparison: Comparison, *, exploratory: bool) -> Verdict:
    """The verdict on a candidate's training time; it has no margin."""
    size = f"{percent(difference.estimate)} vs {comparison.baseline}"
    if difference.interval is None:
        return Verdict(kind="none", text=f"{size}, no interval ({_why_no_interval(comparison)})")
    low, high = difference.interval
    kind: Kind = "higher" if low > 1 else "lower" if high < 1 else "inconclusive"
    if exploratory:
        kind = "exploratory"
    word = "significant" if kind in ("higher", "lower") else kind
    return Verdict(kind=kind, text=f"{size} ({_ratio_interval(difference.interval, comparison.alpha)}, {word})")


def _interval(interval: tuple[float, float], alpha: float) -> str:
    return f"simultaneous {level(alpha)} CI {signed(interval[0])} to {signed(interval[1])}"


def _ratio_interval(interval: tuple[float, float], alpha: float) -> str:
    return f"simultaneous {level(alpha)} CI {percent(interval[0])} to {percent(interval[1])}"


def _why_no_interval(comparison: Comparison) -> str:
    if comparison.sigma == 0.0:
        return "identical differences for every seed, so the variance cannot be estimated"
    return "one seed" if len(comparison.seeds) == 1 else "too few complete pairs of runs"


def _more_seeds(comparison: Comparison, margin: float) -> str:
    """The additional seeds that detect a difference as large as the margin; what was observed plays no part in it."""
    if not comparison.sigma:
        return ""
    needed = seeds_needed(margin, sigma=comparison.sigma, candidates=comparison.candidates, alpha=comparison.alpha)
    more = None if needed is None else needed - len(comparison.seeds)
    if more is not None and more <= 0:
        return ""
    return f"; about {seeds_or_more(more)} more seeds needed to detect {margin:g} {POINTS}"


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
    if len(outcome.of_kind("none")) == len(outcome.candidates):
        return (*missing, *([_no_interval(outcome)] if len(lost) < len(outcome.candidates) else []))
    higher, lower, unclear = (outcome.of_kind(kind) for kind in ("higher", "lower", "inconclusive"))
    sentences = _use(outcome, higher) if higher else _keep(outcome, unclear)
    if lower:
        sentences.append(f"Avoid {join(lower, 'or')}: significantly lower mAP than {base}.")
    if higher and unclear and outcome.primary.comparison:
        sentences.append(f"{join(unclear)}: inconclusive{_more_seeds(outcome.primary.comparison, outcome.margin)}.")
    failed = [
        f"{each.failed} of {each.ended} {act} runs"
        for act, each in outcome.failed.items()
        if each.failed and act not in lost
    ]
    warning = [f"Warning: {join(failed)} failed; the results are those of completed runs."] if failed else []
    return (*sentences, *missing, *warning)


def control(outcome: Outcome) -> tuple[str, ...]:
    """What an A/A control says about the method."""
    what = f"A/A control: {outcome.baseline} is compared with itself under other seeds, so there is nothing to choose."
    if outcome.exploratory:
        return (what, "It is not complete, so it does not check the method yet.")
    if outcome.of_kind("higher", "lower"):
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
    base, metric = outcome.baseline, outcome.primary
    sentences = [f"Use {join(higher, 'or')} for data and a schedule like these: significantly higher mAP than {base}."]
    if len(higher) > 1:
        largest = max(higher, key=lambda act: metric.mean(act) or -math.inf)
        sentences.append(
            f"The largest observed mAP is that of {largest}; candidates were not tested against each other."
        )
    for act in higher:
        if difference := metric.difference(act):
            gain = f"mAP {signed(difference.estimate)} points"
            sentences.append(f"{act}: {gain}, training time {outcome.time_verdicts[act].text}.")
    return sentences


def _keep(outcome: Outcome, unclear: Sequence[str]) -> list[str]:
    base, margin = outcome.baseline, outcome.margin
    if unclear:
        sentences = [
            f"Inconclusive: these runs do not show whether {join(unclear, 'or')} "
            f"{'changes' if len(unclear) == 1 else 'change'} the mAP compared with {base}. Keep {base} until more "
            "seeds are available."
        ]
    else:
        sentences = [f"Keep {base}: no candidate has a significantly higher mAP."]
    if non_inferior := outcome.of_kind("non-inferior"):
        sentences.append(
            f"Non-inferior to {base} (margin {margin:g} points), superiority not shown: {join(non_inferior)}."
        )
    if equivalent := outcome.of_kind("equivalent"):
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
    if row.seeds is None:
        return f"more than 1,000 seeds per activation to {goal(row)}."
    time = "" if row.hours is None else f": {hours(row.hours)} on this machine"
    return (
        f"about {row.seeds} seeds per activation to {goal(row)} ({seeds_or_more(row.seeds_conservative)}, conservative "
        f"estimate){time}."
    )


def variation(summary: Summary) -> str:
    """The seed variation and what these runs can detect."""
    required = summary.required_seeds
    if required is None:
        return ""
    sentences = [f"Residual standard deviation of one run: {required.sigma:.2f} {POINTS}."]
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
            lines.append(f"{failed} of {ended} {act} runs failed ({'; '.join(reasons)})")
    return lines


def budgets(summary: Summary) -> str:
    """The two budgets: equal epochs and equal training time."""
    until = list(summary.planned.until_seconds.values())
    if summary.equal_time_planned:
        text = (
            "The epochs of each activation were planned to fit the training time of the fastest one, so the last epoch "
            "compares them at equal time."
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


def memory(value: float, baseline: float) -> str:
    """The peak memory of a candidate beside that of the baseline, in MiB."""
    return f"{value:,.0f} MiB, baseline {baseline:,.0f} MiB (×{value / baseline:.2f})"


def method(outcome: Outcome, pairing: Sequence[str]) -> list[str]:
    """The statistical method of mAP and of time, and what was checked."""
    lines = [
        f"mAP50-95 of the last epoch: {_estimation(outcome.primary)}",
        f"Training time, as a ratio of geometric means: {_estimation(outcome.time)}",
        f"Equivalence within ±{outcome.margin:g} points: the {level(2 * outcome.alpha)} interval lies within the "
        "margin (two one-sided tests). mAP and training time are two families of tests, each with its own error rate; "
        "all other metrics are descriptive. The last epoch is compared, not the best one, and no outlier is removed.",
    ]
    paired = "Within each seed, all activations shared starting weights and batches (checked)."
    return lines + list(pairing or [paired])


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
        "the paired differences)."
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
        f"higher than {base}": outcome.of_kind("higher"),
        f"lower than {base}": outcome.of_kind("lower"),
        f"equivalent to {base} within ±{outcome.margin:g} points": outcome.of_kind("equivalent"),
        f"non-inferior to {base}": outcome.of_kind("non-inferior"),
    }
    parts = [f"{join(acts)} {what}" for what, acts in groups.items() if acts]
    if parts:
        return f"mAP: {'; '.join(parts)} ({seeds})"
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
            f"All activations share {'' if lr is None else f'the learning rate {lr} and '}all other settings. With "
            "settings tuned for each of them, the result may be another.",
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
    ratios = {name: each.estimate for name, each in comparison.differences.items()}
    if len(ratios) > 3:
        return (
            f"Training time: ×{min(ratios.values()):.2f} to ×{max(ratios.values()):.2f} relative to {outcome.baseline}"
        )
    listed = ", ".join(f"{name} ×{ratio:.2f}" for name, ratio in ratios.items())
    return f"Training time relative to {outcome.baseline}: {listed}"


def timing_title(rows: Sequence[TimingRow]) -> str:
    """The title of the figure of the isolated timing."""
    slowest = max(rows, key=lambda row: row.ratio)
    name, first = (f"{row.act} ({row.norm_act})" for row in (slowest, rows[0]))
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
        "its step time, and other processes used at most 10 % of a core, as far as recorded."
    ),
    "timing": (
        "Measured separately from training: preloaded batches, short blocks of steps, all networks alternating in "
        "one process, many repetitions"
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
    "latency": "Inference latency is that of the trained network on the machine of the training.",
    "correlation": (
        "Correlation: between the paired runs of a candidate and the baseline. Near 1, pairing by seed removes most"
        " of the seed variation; near 0, it removes none."
    ),
}

# ------------------------------------------------------------------------------------------------------------- the plan


def describe(plan: Plan) -> str:
    """The plan as printed before the runs."""
    return "\n".join(f"{name:<20}{text}" for name, text in plan_entries(plan))


def plan_entries(plan: Plan) -> list[tuple[str, str]]:
    """The plan as names and texts."""
    epochs_by_act = {act: plan.epochs[act] for act in (*plan.acts, *plan.added_acts)}
    same_epochs = len(set(epochs_by_act.values())) == 1
    epochs = f"{plan.epochs[plan.baseline]}" if same_epochs else ", ".join(f"{a} {n}" for a, n in epochs_by_act.items())
    budget = "" if plan.budget == "epochs" else ", planned to fit the training time of the fastest activation"
    runs = plan.runs
    interim = ", ".join(map(str, plan.interim or (len(plan.seeds),)))
    entries = [
        ("activations", f"{', '.join(plan.acts)} (baseline {plan.baseline})"),
        ("seeds", ", ".join(map(str, plan.seeds))),
        ("epochs", f"{epochs}{budget}"),
        ("order", ", ".join(run.name for run in runs[:6]) + (", ..." if len(runs) > 6 else "")),
        ("estimated time", _estimated_time(plan)),
        ("primary metric", f"{plan.primary} of the last epoch, EMA weights"),
        ("detectable", _detectable(plan)),
        ("equivalence", f"margin ±{100 * plan.margin:.2g} {POINTS}; {_seeds_for_equivalence(plan)}"),
        *([("data", "drawn anew for each seed, so that seeds cover the data as well")] if plan.redrawn else []),
        *([] if plan.target is None else [("target", f"epochs to mAP50-95 of {100 * plan.target:g} points")]),
        ("analyses", f"after {interim} seeds; family-wise error rate {plan.alpha:g} in total"),
    ]
    if plan.added_acts or plan.added_seeds:
        added = [*plan.added_acts, *(f"seed {seed}" for seed in plan.added_seeds)]
        entries.append(("added", f"{', '.join(added)}, beyond the plan: their results are exploratory"))
    return entries + [("note", note) for note in plan.notes]


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
    smallest = 100 * plan.detectable()
    if math.isinf(smallest):
        return "no interval and no verdict with one seed"
    few = "; with two seeds, only large differences are detectable" if len(plan.seeds) == 2 else ""
    return (
        f"a difference of {smallest:.2g} {POINTS} with 80 % probability{few} (assumes a residual standard deviation of "
        f"one run of {100 * plan.sigma_assumed:.2g} points, --sigma)"
    )


def _seeds_for_equivalence(plan: Plan) -> str:
    seeds = seeds_for_equivalence(
        plan.margin, sigma=plan.sigma_assumed, candidates=len(plan.acts) - 1, alpha=plan.alpha
    )
    return f"showing equivalence requires {seeds_or_more(seeds)} seeds (80 % probability, same assumption)"


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
