"""What the numbers of a comparison mean for someone who has never seen the project: what to take, at what price.

Plain sentences from an ``Analysis``. The words follow its verdicts: "largest observed", never "best"; a difference that
is not shown is never called none.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from comparison.analysis import Analysis, Metric
from comparison.statistics import Difference, kind, minimal_detectable, seeds_for_same, seeds_needed, sigma_upper

FEWEST, USUAL = 3, 5  # seeds for a verdict worth having


def listed(names: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    return " ".join([", ".join(names[:-1]), last, names[-1]]) if len(names) > 1 else "".join(names)


def kinds(analysis: Analysis) -> dict[str, str]:
    """The words of every candidate on the primary figure."""
    comparison = analysis.primary.comparison
    found = {each.name: kind(each, margin=analysis.margin) for each in comparison.differences} if comparison else {}
    return {act: found.get(act, "none") for act in analysis.acts if act != analysis.baseline}


def difference_of(metric: Metric, act: str) -> Difference | None:
    """A candidate's difference or ratio in a metric, where there is one."""
    found = metric.comparison.differences if metric.comparison else ()
    return next((each for each in found if each.name == act), None)


def mean_of(metric: Metric, act: str) -> float | None:
    """An activation's mean in a metric, where there is one."""
    return next((cells.mean for cells in metric.cells if cells.act == act), None)


# ---------------------------------------------------------------------------------------------------------- what to do


def advice(analysis: Analysis) -> list[str]:
    """Which activation to take and what it costs, or that it cannot be told."""
    words, base = kinds(analysis), analysis.baseline
    if not words:
        return ["There is one activation only, so there is nothing to choose between."]
    if analysis.exploratory:
        return [
            "Do not choose by these numbers yet: they are exploratory. What looks good here is to be planned as a "
            "comparison of its own, with fresh seeds."
        ]
    lost = [act for act in words if mean_of(analysis.primary, act) is None]
    gone = [f"No run of {listed(lost, 'or')} was completed, so nothing speaks for taking it."] if lost else []
    words = {act: each for act, each in words.items() if act not in lost}
    if set(words.values()) <= {"none"}:
        return gone + ([_without_interval(analysis)] if words else [])
    found = {name: [act for act, each in words.items() if each == name] for name in set(words.values())}
    sentences = _gains(analysis, found["higher"]) if "higher" in found else _no_gain(base, found, analysis.margin)
    if "lower" in found:
        sentences.append(f"Do not take {listed(found['lower'], 'or')} for the mAP's sake: lower than {base}.")
    if "higher" in found and "open" in found:
        sentences.append(f"Of {listed(found['open'])} it cannot be told yet.")
    return sentences + gone + _failures(analysis, words)


def _failures(analysis: Analysis, words: Mapping[str, str]) -> list[str]:
    """What speaks against an activation that all else speaks for: runs of it that failed."""
    counts = {act: analysis.failed.get(act, (0, 0)) for act in (analysis.baseline, *words)}
    lost = [f"{failed} of {of} runs of {act}" for act, (failed, of) in counts.items() if failed]
    return [f"Before you choose, mind that {listed(lost)} failed: the rest is of completed runs."] if lost else []


def control(analysis: Analysis) -> list[str]:
    """What an A/A comparison says: of the method, as there is nothing to choose between."""
    what = f"This is a control: {analysis.baseline} against itself under other seeds, so there is nothing to choose."
    found = set(kinds(analysis).values())
    if found & {"higher", "lower"}:
        told = "The interval leaves 0 outside, which luck alone does in one such control of twenty; if others do so "
        return [what, told + "too, the method or the machine is at fault."]
    if found <= {"none"}:
        return [what, "There is no interval to judge the method by."]
    return [what, "The interval holds 0, as it should in nineteen such controls of twenty."]


def _without_interval(analysis: Analysis) -> str:
    if len(analysis.seeds) < 2:
        return (
            f"This is one run of each activation. The next seed may turn the order round, so it supports no choice: "
            f"run at least {FEWEST} seeds, better {USUAL}."
        )
    return "There is no interval to judge by, so these runs support no choice."


def _gains(analysis: Analysis, higher: Sequence[str]) -> list[str]:
    base = analysis.baseline
    if len(higher) == 1:
        take = f"For data and a training like these, take {higher[0]}: its mAP is higher than that of {base}"
        return [f"{take}, and {cost(analysis, higher[0])}."]
    observed = max(higher, key=lambda act: mean_of(analysis.primary, act) or -math.inf)
    sentences = [
        f"For data and a training like these, take one of {listed(higher, 'or')}: the mAP of each is higher than that "
        f"of {base}. The largest observed is {observed}; that it beats the others was not tested."
    ]
    return sentences + [f"With {act}, {cost(analysis, act)}." for act in higher]


def _no_gain(base: str, found: Mapping[str, Sequence[str]], margin: float) -> list[str]:
    sentences = []
    if "open" in found:
        gains = "gain" if len(found["open"]) > 1 else "gains"
        sentences.append(
            f"It cannot be told from these runs whether {listed(found['open'], 'or')} {gains} anything over {base}. "
            f"Until more seeds tell, nothing here speaks against staying with {base}."
        )
    else:
        sentences.append(f"Stay with {base}: no candidate is shown to reach a higher mAP.")
    if "not worse" in found:
        names = listed(found["not worse"])
        sentences.append(f"Not worse by more than {margin:g} points and perhaps better, though not shown: {names}.")
    if "same" in found:
        sentences.append(f"{listed([base, *found['same']])} may be chosen between by time and memory alone.")
    return sentences


def cost(analysis: Analysis, act: str) -> str:
    """What a candidate costs in training time, as the end of a sentence."""
    ratio, base = difference_of(analysis.time, act), analysis.baseline
    if ratio is None:
        return "what it costs in training time was not measured cleanly"
    percent = 100 * (ratio.estimate - 1)
    if ratio.interval is None:
        return f"its training took {_percent(percent)} than with {base} (no interval)"
    low, high = (100 * (end - 1) for end in ratio.interval)
    span = f"[{low:+.1f} %, {high:+.1f} %]"
    if low > 0 or high < 0:
        return f"training takes {_percent(percent)} {span}"
    return f"a difference in training time is not shown: {percent:+.1f} % {span}"


def _percent(percent: float) -> str:
    return f"{abs(percent):.1f} % {'longer' if percent > 0 else 'less long'}"


# ------------------------------------------------------------------------------------------------------ to know more


def further(analysis: Analysis, hours_per_seed: float | None) -> dict[str, Any]:
    """What it would take to know more: seeds and hours for differences of several sizes, and for "the same".

    `hours_per_seed`: all activations once. {} where the runs show no spread to reckon with.
    """
    comparison = analysis.primary.comparison
    if comparison is None or not comparison.sigma or comparison.degrees < 1:
        return {}
    sigma, upper = comparison.sigma, sigma_upper(comparison.sigma, comparison.degrees)
    options: dict[str, Any] = {"candidates": comparison.candidates, "alpha": analysis.alpha}
    rows = []
    for size in sorted({analysis.margin, 0.5, 1.0, 2.0}):
        seeds, cautious = (seeds_needed(size, sigma=each, **options) for each in (sigma, upper))
        rows.append(
            _price(f"show a difference of {size:g} point{'s' * (size != 1)}", size, seeds, cautious, hours_per_seed)
        )
    seeds, cautious = (seeds_for_same(analysis.margin, sigma=each, **options) for each in (sigma, upper))
    words = f"show that a candidate is the same within ±{analysis.margin:g} points, where it is"
    rows.append(_price(words, analysis.margin, seeds, cautious, hours_per_seed))
    shown = minimal_detectable(sigma=sigma, seeds=len(analysis.seeds), **options) if len(analysis.seeds) > 1 else None
    return {"sigma": sigma, "sigma_upper": upper, "detectable": shown, "hours_per_seed": hours_per_seed, "rows": rows}


def _price(
    words: str, size: float, seeds: int | None, cautious: int | None, hours_per_seed: float | None
) -> dict[str, Any]:
    hours, most = (
        None if hours_per_seed is None or each is None else each * hours_per_seed for each in (seeds, cautious)
    )
    return {"to": words, "points": size, "seeds": seeds, "cautious": cautious, "hours": hours, "cautious_hours": most}


# ---------------------------------------------------------------------------------------------------- picture titles


def answer_title(analysis: Analysis) -> str:
    """The message of the picture of differences."""
    words, base, seeds = kinds(analysis), analysis.baseline, len(analysis.seeds)
    count = f"{seeds}\N{NO-BREAK SPACE}seed{'s' * (seeds != 1)}"
    if analysis.exploratory:
        return f"Exploratory: differences from {base}, {count}"
    groups = {name: [act for act, each in words.items() if each == name] for name in ("higher", "lower", "same")}
    parts = [f"{listed(groups[name])} {name} than {base}" for name in ("higher", "lower") if groups[name]]
    if groups["same"]:
        parts.append(f"{listed(groups['same'])} the same as {base} within ±{analysis.margin:g} points")
    if set(words.values()) <= {"none"}:
        return f"Observed differences from {base}, {count}: no verdict"
    if not parts:
        return f"No activation can be told from {base} yet ({count})"
    return f"mAP: {'; '.join(parts)} ({count})"


def curves_title(analysis: Analysis) -> str:
    """The message of the curves: who is observed highest under either budget."""
    ends = _largest(analysis.primary)
    until = _largest(analysis.until)
    if ends is None:
        return "mAP as the training goes on"
    equal = f"; at equal time {until[0]}, {until[1]:.1f}" if until else ""
    return f"Largest observed mAP at equal epochs: {ends[0]}, {ends[1]:.1f}{equal}"


def runs_title(analysis: Analysis) -> str:
    """The message of the picture of single runs: how far seeds alone move the figure."""
    spans = [
        max(cells.values.values()) - min(cells.values.values()) for cells in analysis.primary.cells if cells.values
    ]
    if not spans or len(analysis.seeds) < 2:
        return "mAP of every run at its last epoch"
    return f"Every run: another seed alone moves the mAP by up to {max(spans):.1f} points"


def times_title(analysis: Analysis) -> str:
    """The message of the picture of times: each candidate's ratio."""
    found = analysis.time.comparison.differences if analysis.time.comparison else ()
    if not found:
        return "Training time of every run: no clean times to set against each other"
    if len(found) > 3:
        ratios = sorted(each.estimate for each in found)
        return f"Training time: ×{ratios[0]:.2f} to ×{ratios[-1]:.2f} of {analysis.baseline}'s"
    parts = [f"{each.name} ×{each.estimate:.2f}" for each in found]
    return f"Training time against {analysis.baseline}: {', '.join(parts)}"


def _largest(metric: Metric) -> tuple[str, float] | None:
    means = [(cells.act, cells.mean) for cells in metric.cells if cells.mean is not None]
    return max(means, key=lambda each: each[1]) if means else None


def timing_title(rows: Sequence[Mapping[str, Any]]) -> str:
    """The message of the picture of the clean timing."""
    slowest = max(rows, key=lambda row: row["ratio"])
    name, first = (f"{row['act']} ({row['norm_act']})" for row in (slowest, rows[0]))
    return f"Clean timing: the slowest step is that of {name}, ×{slowest['ratio']:.2f} of {first}"
