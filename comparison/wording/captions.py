"""Titles, captions and explanations of the page, the figures and the terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from comparison.checks import MAX_OTHER_CORES
from comparison.choices import Tuning, TuningCurve
from comparison.summary import (
    POINTS,
    STEP,
    ImageSampling,
    Kind,
    Metric,
    Outcome,
    Setting,
    Summary,
)
from comparison.wording.numbers import count, join, level, signed, time_ratio
from core.text import format_duration

MAX_TIME_GAP = 0.02  # relative difference in training time up to which times count as equal
LENGTH = ("train.epochs", "train.last_epoch_batches")  # config keys of the number of training images seen
SEALS = (
    "Hashes in the runs, the plan and the journal find files that were edited, removed or exchanged by accident or to "
    "tidy up. They are no signature: whoever computes them again can change anything."
)
MAX_LISTED = 5  # runs in a sentence


def image_sampling(sampling: ImageSampling) -> list[str]:
    """How the intervals over images were computed, and the runs without them."""
    lines = []
    if sampling.effects:
        lines.append(
            f"Over {sampling.kind} images: paired bootstrap of {sampling.resamples:,} resamples of the stored "
            "detections of the last epoch, the same images for all runs, of the difference averaged over seeds; "
            "simultaneous for all candidates. The seeds are held fixed. For new seeds and new images: the variances "
            "are added (squares of the half-widths); what depends on seed and image together is counted twice, so "
            "this interval is rather too wide."
        )
    if sampling.missing:
        shown = "; ".join(sampling.missing[:MAX_LISTED])
        more = len(sampling.missing) - MAX_LISTED
        lines.append(f"Without stored detections: {shown}{f'; and {more} more' if more > 0 else ''}.")
    return lines


def failures(summary: Summary) -> list[str]:
    """The failed runs of each activation, with reasons, and those that finished at a later attempt."""
    lines = [
        f"{run['activation']}, seed {run['seed']}: attempt {run['attempts']}; failed before: {run['earlier_failures']}"
        for run in summary.runs
        if run["earlier_failures"]
    ]
    for act, (failed, ended, _) in summary.planned.failed.items():
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
    elif own := [key for key in summary.varies if key.split(".")[0] == "data" or key in LENGTH]:
        text = f"The arms differ in {join(own)}, so they were not trained on the same number of images."
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
    listed = join([f"{name} {time_ratio(each)}" for name, each in comparison.differences.items()])
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
        f"{outcome.cost.title.capitalize()}, as a ratio of geometric means: {_estimation(outcome.cost)}",
        f"Equivalence within ±{outcome.margin:g} points: the {level(2 * outcome.alpha)} interval lies within the "
        "margin (two one-sided tests). mAP and training time are two families of tests, each with its own error rate; "
        "all other metrics are descriptive. The last epoch is compared, not the best one, and no outlier is removed.",
    ]
    return [*lines, *(setting.pairing or [paired(setting.unpaired)]), *_correlation(outcome.primary), SEALS]


def _correlation(metric: Metric) -> list[str]:
    """What pairing by seed has brought, if three pairs or more are known."""
    differences = metric.comparison.differences.values() if metric.comparison else ()
    known = {each.name: each.correlation for each in differences if each.correlation is not None}
    if not known:
        return []
    listed = join([f"{name} {signed(value)}" for name, value in known.items()])
    useless = [name for name, value in known.items() if value <= 0]
    found = f"; it has not reduced the variance for {join(useless)}" if useless else ""
    return [
        f"Correlation between the mAP of paired runs: {listed}. Pairing reduces the variance of a difference by this "
        f"fraction{found}."
    ]


def paired(unpaired: Mapping[str, Sequence[str]]) -> str:
    """What the runs of a seed shared, as far as the arms leave it alike; all of it was checked."""
    parts = [
        f"{what} as far as the arms have the same {join(unpaired[key])}" if key in unpaired else what
        for key, what in (("weights", "starting weights"), ("batches", "batches"))
    ]
    return f"Within each seed, all runs shared {join(parts)} (checked)."


def runs(setting: Setting) -> str:
    """The caption of the figure of single runs; that those of a seed are paired only where it was checked."""
    shared = "" if setting.pairing or setting.unpaired else ", which share starting weights and batches"
    return (
        f"Each mark is one run. A thin line joins the runs of a seed{shared}. Parallel lines mean that pairing by seed "
        "has reduced the variance."
    )


def _estimation(metric: Metric) -> str:
    comparison, sample = metric.comparison, "round" if metric.key == STEP else "seed"
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
        f"{name}, simultaneous {level(alpha)}, {count(len(comparison.seeds), sample)} ({fit}): estimate ± "
        f"{comparison.critical:.3f} standard errors, {comparison.degrees} degrees of freedom, residual standard "
        f"deviation {comparison.sigma:.4g} (conservative: the larger of the two-way residual and of that implied by "
        "the paired differences). A candidate whose own paired differences scatter more gets its own, larger standard "
        "error."
    )


def subtitle(summary: Summary) -> str:
    """What was compared, how often, on what."""
    outcome = summary.planned
    compared = f"{', '.join(outcome.candidates)} vs {outcome.baseline} (baseline)"
    sampling = summary.image_sampling
    images = sampling.images
    if images is None:
        pictures = f"number of {sampling.kind} images not recorded"
    else:
        pictures = count(images, f"{sampling.kind} image")
    return " · ".join([compared, count(len(outcome.seeds), "seed"), pictures, *summary.setting.words])


def limits(summary: Summary) -> list[tuple[str, str]]:
    """What the result does not say, by subject."""
    same, sampling = summary.setting.same, summary.image_sampling
    data = Path(str(same.get("config.data.root", "one data set"))).name
    device = same.get("device")
    epochs, lr = same.get("config.train.epochs"), same.get("config.train.lr")
    images = f"{sampling.kind} image"
    images = f"the {images}s" if sampling.images is None else count(sampling.images, images)
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
            "may change the size of a difference, and its sign. How soon each reaches a given mAP was not tested.",
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
            f"Time, memory and latency are those of one machine{f' ({device})' if device else ''}. Another device, "
            "image size or batch size may change the ratios.",
        ),
    ]


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
    if tuned.chose_common:
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


def tuning_unconfirmed(runs: tuple[Sequence[str], Sequence[str]] | None) -> str:
    """What the runs of the tuning do not confirm: missing ones and those with other scores; None for no runs at all."""
    if runs is None:
        return "The runs of the tuning are not in this folder, so its scores cannot be checked."
    named = [
        f"{what}: {', '.join(each[:MAX_LISTED])}{f' and {len(each) - MAX_LISTED} more' * (len(each) > MAX_LISTED)}"
        for what, each in zip(("missing", "scores are not those of the plan"), runs, strict=True)
        if each
    ]
    return f"Warning: the runs of the tuning do not confirm the choice ({'; '.join(named)})."


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


def timing_doubts(*, sealed: bool, unlike: Sequence[str]) -> list[str]:
    """Why an isolated timing may not be that of the comparison."""
    doubts = [] if sealed else ["It has no seal, so changes after the measurement cannot be detected."]
    if unlike:
        doubts.append(f"Unlike the runs in {', '.join(unlike)}, so these times are not those of this comparison.")
    return doubts


def timed_again(times: int) -> list[str]:
    """That an isolated timing was repeated; what was measured before is not known."""
    return [f"It was measured {times} times, of which this is the last."] if times > 1 else []


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
