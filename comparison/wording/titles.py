"""Titles of the figures of a comparison, each the result that the figure shows."""

from collections.abc import Sequence

from comparison.choices import TuningSummary
from comparison.summary import (
    Metric,
    Outcome,
    TimingRow,
)
from comparison.wording.numbers import count, join, time_ratio
from comparison.wording.reasons import insensitivity


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
    listed = ", ".join(f"{name} {time_ratio(each)}" for name, each in comparison.differences.items())
    return f"Training time relative to {outcome.baseline}: {listed}"


def timing_title(rows: Sequence[TimingRow], *, excluded: bool = False) -> str:
    """The title of the figure of the isolated timing."""
    slowest = max(rows, key=lambda row: row.ratio)
    name, first = (f"{row.act} ({row.norm_act})" for row in (slowest, rows[0]))
    if excluded:
        return f"Isolated timing, excluded because of other processes: ratios to {first}"
    return f"Isolated timing: slowest step {name}, ×{slowest.ratio:.2f} relative to {first}"


def tuning_title(summary: TuningSummary) -> str:
    """The title of the figure of the tuning: the chosen values."""
    chosen = ", ".join(f"{curve.act} {summary.values[curve.chosen]}" for curve in summary.curves)
    return f"Sensitivity to {summary.key}: chosen {chosen}"
