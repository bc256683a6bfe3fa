"""Figures of a comparison, drawn from its summary: a PNG file each, and SVG inside the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from comparison import wording
from comparison.choices import TuningSummary
from comparison.figure_style import (
    INK,
    MUTED,
    Palette,
    add_legend,
    add_title,
    as_rows,
    fit_limits,
    in_style,
    label_row,
    new_figure,
    plain,
)
from comparison.place_views import plot_places
from comparison.run_figures import map_row, plot_curves, plot_runs, scaled_curves, time_row
from comparison.summary import PRIMARY, Metric, Outcome, Summary, TimingRow


def draw(summary: Summary, palette: Palette) -> dict[str, Figure]:
    """All figures by name, without those that would be empty."""
    outcome, drawn = summary.planned, {}
    metrics = [each for each in (outcome.primary, outcome.cost) if each.comparison and each.comparison.differences]
    if metrics:
        drawn["answer"] = plot_effects(metrics, outcome, palette)
        if len(metrics) > 1:
            drawn["answer_wide"] = plot_effects(metrics, outcome, palette, wide=True)
    if len(metrics) > 1:
        drawn["tradeoff"] = plot_tradeoff(summary, palette)
    curves, until = scaled_curves(summary)
    if curves:
        for name, wide in (("curves", False), ("curves_wide", True)):
            drawn[name] = plot_curves(
                curves, palette, title=wording.titles.curves_title(outcome), until=until, wide=wide
            )
    drawn["runs"] = plot_runs(
        [map_row(outcome, act) for act in outcome.acts],
        palette,
        title=wording.titles.runs_title(outcome),
        xlabel="mAP50-95 of the last epoch, points",
        pairs=len(outcome.seeds) > 1,
    )
    drawn["times"] = plot_runs(
        [time_row(summary, act) for act in outcome.acts],
        palette,
        title=wording.titles.times_title(outcome),
        xlabel="training time per epoch, seconds",
        pairs=False,
    )
    if summary.tuning is not None:
        drawn["tuning"] = plot_tuning(summary.tuning, palette)
    if summary.timing.rows:
        drawn["timing"] = plot_timing(summary.timing.rows, palette, excluded=summary.timing.excluded)
    if any(place.latency.measured for place in summary.places):
        drawn["places"] = plot_places(summary, palette)
    return drawn


@in_style
def plot_effects(metrics: Sequence[Metric], outcome: Outcome, palette: Palette, *, wide: bool = False) -> Figure:
    """The gain and the cost of each candidate relative to the baseline, with intervals and all seeds."""
    height = 0.8 * max(1, len(outcome.candidates)) + 0.75
    figure = new_figure(height + 1.1 if wide else height * len(metrics) + 1.5, wide=wide)
    shape = (1, len(metrics)) if wide else (len(metrics), 1)
    for axis, metric in zip(figure.subplots(*shape, squeeze=False).flat, metrics, strict=True):
        _effects(axis, metric, outcome, palette)
    add_title(figure, wording.titles.effects_title(outcome))
    add_legend(figure, _effect_keys(metrics, outcome), 5 if wide else 2)
    return figure


def _effects(axis: Axes, metric: Metric, outcome: Outcome, palette: Palette) -> None:
    assert metric.comparison is not None
    base, differences = outcome.baseline, metric.comparison.differences
    ratio, margin = metric.comparison.ratio, outcome.margin
    as_rows(axis, len(differences))
    if ratio:
        title, xlabel = f"cost: {metric.title} relative to {base}", f"× that of {plain(base)}"
    else:
        title, xlabel = f"gain: mAP relative to {base}", f"difference from {plain(base)}, mAP points"
        axis.axvspan(-margin, margin, color=MUTED, alpha=0.16, lw=0)
    axis.set(title=plain(title, 90), xlabel=xlabel)
    neutral = 1.0 if ratio else 0.0
    axis.axvline(neutral, color=INK, lw=1.2)
    seen = [neutral] if ratio else [neutral, -margin, margin]
    for row, (name, each) in enumerate(differences.items()):
        color, mark = palette[name]
        words = (wording.numbers.times_ratio if ratio else wording.numbers.signed_points)(each.estimate, each.interval)
        label_row(axis, row, name, color, words)
        for interval, width in ((each.interval, 1.4), (each.equivalence_interval, 4.5)):
            if interval is not None:
                axis.plot(interval, (row, row), color=color, lw=width, solid_capstyle="butt")
                seen += interval
        if each.interval is not None:
            axis.plot(each.interval, (row, row), "|", color=color, markersize=11, markeredgewidth=1.4)
        axis.plot(each.estimate, row, mark, color=color, markersize=8.5, markeredgecolor="white", zorder=4)
        values, reference = metric.arms[name].values, metric.arms[base].values
        pairs = [(values[seed], reference[seed]) for seed in sorted(values.keys() & reference.keys())]
        singles = [a / b if ratio else a - b for a, b in pairs]
        axis.plot(singles, [row + 0.24] * len(singles), "o", color=color, markersize=5, alpha=0.6, markeredgewidth=0)
        seen += [each.estimate, *singles]
    fit_limits(axis, seen)


def _effect_keys(metrics: Sequence[Metric], outcome: Outcome) -> list[Line2D | Patch]:
    """The legend, for what is drawn."""
    differences = [each for m in metrics if m.comparison for each in m.comparison.differences.values()]
    keys: list[Line2D | Patch] = [
        Line2D([], [], color=INK, marker="D", ls="", markersize=7, label="mean over seeds"),
        Line2D([], [], color=INK, marker="o", ls="", markersize=5, alpha=0.6, label="one seed"),
    ]
    if any(each.interval for each in differences):
        words = f"simultaneous {wording.numbers.level(outcome.alpha)} CI"
        keys.append(Line2D([], [], color=INK, lw=1.4, marker="|", markersize=10, label=words))
        words = f"simultaneous {wording.numbers.level(2 * outcome.alpha)} CI"
        keys.append(Line2D([], [], color=INK, lw=4.5, solid_capstyle="butt", label=words))
    if any(metric.key == PRIMARY for metric in metrics):
        keys.append(Patch(color=MUTED, alpha=0.16, lw=0, label=f"equivalence margin ±{outcome.margin:g}"))
    return keys


@in_style
def plot_tradeoff(summary: Summary, palette: Palette) -> Figure:
    """Gain against cost: one mark per candidate at its time ratio and mAP difference, with both intervals.

    The baseline is at ×1 and 0. A thin line extends the interval of the gain to new images.
    """
    outcome = summary.planned
    gains, costs, margin = outcome.primary.comparison, outcome.cost.comparison, outcome.margin
    assert gains is not None and costs is not None
    shown = [act for act in gains.differences if act in costs.differences]
    figure = new_figure(3.9 + 0.22 * math.ceil((len(shown) + 3) / 2))
    axis = figure.subplots()
    axis.axhspan(-margin, margin, color=MUTED, alpha=0.16, lw=0)
    axis.axhline(0, color=INK, lw=1.0)
    axis.axvline(1, color=INK, lw=1.0)
    axis.plot(1, 0, palette[outcome.baseline][1], color=INK, markersize=8)
    across, up = [1.0], [0.0, -margin, margin]
    for act in shown:
        color, mark = palette[act]
        gain, cost = gains.differences[act], costs.differences[act]
        effect = summary.image_sampling.effects.get(act)
        if cost.interval is not None:
            ends = tuple(min(max(end, cost.estimate / 3), 3 * cost.estimate) for end in cost.interval)
            axis.plot(ends, (gain.estimate, gain.estimate), color=color, lw=2)
            across += ends
        for interval, width in ((gain.interval, 2.0), (effect.both if effect else None, 0.9)):
            if interval is not None:
                axis.plot((cost.estimate, cost.estimate), interval, color=color, lw=width, marker="_", ms=8)
                up += interval
        axis.plot(cost.estimate, gain.estimate, mark, color=color, markersize=9, markeredgecolor="white", zorder=4)
        across.append(cost.estimate)
        up.append(gain.estimate)
    fit_limits(axis, across)
    low, high = min(up), max(up)
    axis.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    base = plain(outcome.baseline, 24)
    axis.set(xlabel=f"cost: {outcome.cost.title}, × that of {base}", ylabel=f"gain: mAP points above {base}")
    axis.grid()
    add_title(figure, wording.titles.tradeoff_title(outcome))
    add_legend(figure, _tradeoff_keys(summary, shown, palette), 2)
    return figure


def _tradeoff_keys(summary: Summary, shown: Sequence[str], palette: Palette) -> list[Line2D | Patch]:
    outcome = summary.planned
    keys: list[Line2D | Patch] = [
        Line2D([], [], color=palette[act][0], marker=palette[act][1], ls="", ms=7, label=plain(act, 26))
        for act in (outcome.baseline, *shown)
    ]
    words = f"simultaneous {wording.numbers.level(outcome.alpha)} CI"
    keys.append(Line2D([], [], color=INK, lw=2, label=f"{words}, seeds"))
    if any(each.both for each in summary.image_sampling.effects.values()):
        keys.append(Line2D([], [], color=INK, lw=0.9, marker="_", ms=8, label="seeds and images"))
    return [*keys, Patch(color=MUTED, alpha=0.16, lw=0, label=f"margin ±{outcome.margin:g} points")]


# ---------------------------------------------------------------------------------------------------------- the tuning


@in_style
def plot_tuning(tuning: TuningSummary, palette: Palette) -> Figure:
    """The mAP on held-out images against the tuned value, by arm; a ring marks the chosen value."""
    numbers = [float(value) for value in tuning.values if isinstance(value, int | float)]
    continuous = len(numbers) == len(tuning.values)
    places = numbers if continuous else [float(number) for number in range(len(tuning.values))]
    figure = new_figure(3.4)
    axis = figure.subplots()
    if continuous and min(places) > 0 and max(places) >= 3 * min(places):
        axis.set_xscale("log")
    axis.set_xticks(places, [plain(str(value), 14) for value in tuning.values])
    axis.minorticks_off()
    axis.set(xlabel=plain(tuning.key), ylabel="held-out mAP50-95, points")
    axis.margins(x=0.09)
    axis.grid(axis="y")
    if tuning.common in tuning.values:
        axis.axvline(places[tuning.values.index(tuning.common)], color=MUTED, lw=1.0, ls="--")
    for curve in tuning.curves:
        color, mark = palette[curve.act]
        known = sorted((x, mean) for x, mean in zip(places, curve.means, strict=True) if mean is not None)
        axis.plot(*zip(*known, strict=True), color=color, marker=mark, markersize=6, lw=1.6)
        singles = [(x, score) for x, row in zip(places, curve.runs, strict=True) for score in row if score is not None]
        axis.plot(*zip(*singles, strict=True), "o", color=color, markersize=3.5, alpha=0.6, markeredgewidth=0)
        if (best := curve.means[curve.chosen]) is not None:
            axis.plot(places[curve.chosen], best, "o", color=color, markersize=13, fillstyle="none", mew=1.6)
    add_title(figure, wording.titles.tuning_title(tuning))
    handles = [
        Line2D([], [], color=palette[curve.act][0], marker=palette[curve.act][1], label=plain(curve.act, 30))
        for curve in tuning.curves
    ]
    add_legend(figure, handles, 3)
    return figure


# -------------------------------------------------------------------------------------------------------------- timing


@in_style
def plot_timing(rows: Sequence[TimingRow], palette: Palette, *, excluded: bool = False) -> Figure:
    """The isolated timing: ratios to the first row with their intervals."""
    figure = new_figure(0.62 * len(rows) + 1.4)
    axis = figure.subplots()
    as_rows(axis, len(rows))
    axis.set_xlabel("time of a training step, × that of the first row")
    axis.axvline(1, color=INK, lw=1.2)
    for number, row in enumerate(rows):
        color, mark = palette[row.act]
        label_row(
            axis, number, f"{row.act}, {row.norm_act}", color, f"×{row.ratio:.3f}  [{row.low:.3f}, {row.high:.3f}]"
        )
        axis.plot((row.low, row.high), (number, number), color=color, lw=1.6, marker="|", markersize=10)
        axis.plot(row.ratio, number, mark, color=color, markersize=7.5, markeredgecolor="white", zorder=4)
    fit_limits(axis, [1.0, *(value for row in rows for value in (row.ratio, row.low, row.high))])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    add_title(figure, wording.titles.timing_title(rows, excluded=excluded))
    return figure
