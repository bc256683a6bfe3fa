"""Which arm to use, or why no choice is supported, and how many seeds would decide it."""

import math
from collections.abc import Sequence

from comparison.summary import (
    POINTS,
    Outcome,
    Requirement,
    Summary,
)
from comparison.wording.numbers import about, confidence_interval, count, hours, join, level, seeds_or_more, signed
from comparison.wording.reasons import insensitivity, remedy
from comparison.wording.verdicts import more_seeds, pair_verdict

MIN_SEEDS, GOOD_SEEDS = 3, 5  # for a verdict; for a useful one


def recommendation(outcome: Outcome) -> tuple[str, ...]:
    """Which activation to use and what it costs, or why no choice is supported."""
    base, lost = outcome.baseline, [act for act in outcome.candidates if outcome.primary.mean(act) is None]
    if not outcome.candidates:
        return ("There is only one activation, so there is nothing to choose between.",)
    if outcome.exploratory:
        return (
            "No recommendation: these results are exploratory. Confirm them in a planned comparison with fresh seeds.",
        )
    missing = (
        [f"No run of {join(lost, 'or')} was completed, so {'its' if len(lost) == 1 else 'their'} mAP is unknown."]
        if lost
        else []
    )
    reliable = _reliability(outcome)
    if len(outcome.of_kind("none")) == len(outcome.candidates):
        return (*missing, *([_no_interval(outcome)] if len(lost) < len(outcome.candidates) else []), *reliable)
    lower, unclear = outcome.of_kind("lower"), outcome.of_kind("inconclusive")
    use = [act for act in outcome.of_kind("higher") if not _objection(outcome, act)]
    objections = {act: text for act in outcome.of_kind("higher") if (text := _objection(outcome, act))}
    sentences = _use(outcome, use) if use else _keep(outcome, unclear, list(objections))
    sentences += objections.values()
    if outcome.insensitive:
        found = insensitivity(outcome.insensitive, base, outcome.margin)
        sentences.append(f"{found[0].upper()}{found[1:]}. {remedy(outcome.insensitive.reason)}")
    if lower:
        sentences.append(f"Avoid {join(lower, 'or')}: significantly lower mAP than {base}.")
    if use and unclear and outcome.primary.comparison:
        differences = [each for act in unclear if (each := outcome.primary.difference(act))]
        more = more_seeds(differences, outcome.primary.comparison, outcome.margin)
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
    failed, ended, _ = outcome.failed[act]
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
    """The mAP at equal training time, where the times differ significantly; else empty."""
    until = outcome.metrics["until"]
    difference = until.difference(act)
    if outcome.time_verdicts[act].kind not in ("higher", "lower"):
        return ""
    if difference is None or until.comparison is None:
        return "at equal training time not known (--budget time)"
    interval = f" ({confidence_interval(difference.interval, until.comparison.alpha)})" if difference.interval else ""
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
        return (what, "It is exploratory, so it does not check the method.")
    differences = outcome.primary.comparison.differences.values() if outcome.primary.comparison else ()
    intervals = [each.interval for each in differences if each.interval is not None]
    if any(low > 0 or high < 0 for low, high in intervals):
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
            gain = f"mAP {signed(difference.estimate)} points, {outcome.cost.title} {outcome.time_verdicts[act].text}"
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


def _keep(outcome: Outcome, unclear: Sequence[str], objected: Sequence[str]) -> list[str]:
    base, margin = outcome.baseline, outcome.margin
    if unclear:
        sentences = [
            f"Inconclusive: these runs do not show whether {join(unclear, 'or')} "
            f"{'changes' if len(unclear) == 1 else 'change'} the mAP compared with {base}. Keep {base} until more "
            "seeds are available."
        ]
    elif undecided := outcome.of_kind("insensitive"):
        sentences = [f"No choice between {base} and {join(undecided, 'or')} is supported."]
    elif objected:
        sentences = [f"Keep {base}: the higher mAP of {join(objected)} has a drawback."]
    else:
        sentences = [
            f"Keep {base}: no candidate is shown to have a higher mAP by the declared margin of {margin:g} points."
        ]
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


def goal(row: Requirement) -> str:
    """What a number of seeds would show."""
    if row.goal == "equivalence":
        return f"show equivalence within ±{row.points:g} {POINTS} if there is no difference"
    return f"detect a difference of {row.points:g} {POINTS}"


def required_seeds(summary: Summary) -> str:
    """The seeds that would detect a difference as large as the margin, in one sentence; empty if unknown."""
    required, found = summary.required_seeds, summary.planned.insensitive
    if found is not None and found.reason == "floor":  # the seed variation of a trained network is not known
        return ""
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
            f"{about(row.seeds_conservative)} seeds per activation to {goal(row)} (conservative "
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
