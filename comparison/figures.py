"""Figures of a comparison, drawn from its summary: a PNG file each, and SVG inside the page.

Every figure is narrow enough for a phone, with labels inside the rows. An activation has the same colour and marker in
all figures; the baseline has the colour of the text. In the page, colours are CSS variables, which follow the light or
dark scheme.
"""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from comparison import wording
from comparison.summary import PRIMARY, LearningCurve, Metric, Outcome, Summary, TimingRow, TuningSummary
from core.files import replacing
from core.fonts import save_figure

INK, FAINT, MUTED = "#1b1f24", "#c9ced6", "#6e7681"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d46", "#7f7f7f")
"""The palette of Okabe and Ito for colour-blind readers, and two more; assigned to candidates in order."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "h")
VARIABLES = {INK: "--ink", FAINT: "--faint", MUTED: "--muted"} | {color: f"--c{k}" for k, color in enumerate(COLORS)}
STYLE: Any = {
    "text.color": INK, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": FAINT, "grid.linewidth": 0.6, "font.size": 10.5, "axes.titlesize": 11, "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 9.5, "svg.fonttype": "path", "svg.hashsalt": "comparison", "figure.titlesize": 11.5,
}  # fmt: skip
NARROW, WIDE = 5.0, 10.4  # inches
MAX_LABEL = 41  # characters of a label and its numbers in a row


class Palette:
    """Colour and marker of each activation, the same in all figures."""

    def __init__(self, names: Sequence[str], *, baseline: str) -> None:
        others = [name for name in dict.fromkeys(names) if name != baseline]
        self.colors = {name: COLORS[k % len(COLORS)] for k, name in enumerate(others)} | {baseline: INK}
        self.marks = {name: MARKS[(k + 1) % len(MARKS)] for k, name in enumerate(others)} | {baseline: MARKS[0]}

    def __getitem__(self, name: str) -> tuple[str, str]:
        """Colour and marker; muted for an unknown name."""
        return self.colors.get(name, MUTED), self.marks.get(name, "o")

    def variable(self, name: str) -> str:
        """The CSS variable of an activation's colour."""
        return VARIABLES[self[name][0]]


def plain(name: str, limit: int = MAX_LABEL) -> str:
    """A label for matplotlib: one line of at most `limit` characters, dollar signs escaped (no formulas)."""
    short = name if len(name) <= limit else f"{name[: limit - 1]}…"
    shown = (char if char.isprintable() or char == "\N{NO-BREAK SPACE}" else "?" for char in short)
    return "".join(shown).replace("$", r"\$")


def folded(name: str, room: int) -> list[str]:
    """A label in one line or, if longer than `room`, in two, broken after a comma or bracket if possible."""
    if len(name) <= room:
        return [name]
    wide = round(1.25 * room)  # two lines are set smaller
    cuts = [index + 1 for index, char in enumerate(name[:wide]) if char in ",([ " and index > wide // 3]
    cut = cuts[-1] if cuts else wide
    rest = name[cut:].strip()
    return [name[:cut].rstrip(), rest if len(rest) <= wide else f"{rest[: wide - 1]}…"]


# ------------------------------------------------------------------------------------------------------------- figures


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, text: str) -> None:
    """The title, left-aligned and wrapped."""
    characters = round(figure.get_figwidth() * 9.2)
    lines = "\n".join(textwrap.wrap(plain(text, 400), characters))
    figure.suptitle(lines, x=0.008, ha="left", weight="bold")


def _legend(figure: Figure, handles: Sequence[Line2D | Patch], columns: int) -> None:
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handletextpad=0.5, columnspacing=1.2)


def _rows(axis: Axes, count: int) -> None:
    """A vertical list of rows, the first at the top; labels are inside, so there are no ticks."""
    axis.set_ylim(count - 0.5, -0.62)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    for k in range(1, count):
        axis.axhline(k - 0.56, color=FAINT, lw=0.6)


def _label(axis: Axes, row: int, name: str, color: str, words: str) -> None:
    """The row's name at the left and its numbers at the right, above its marks."""
    transform, box = axis.get_yaxis_transform(), {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    lines = folded(name, max(MAX_LABEL - len(words), 18))
    size = 10.5 if len(lines) == 1 else 8.5
    text = "\n".join(map(plain, lines))
    name_text = axis.text(0.002, row - 0.36, text, weight="bold", color=color, fontsize=size, linespacing=1.0)
    numbers_text = axis.text(0.998, row - 0.36, plain(words), ha="right", fontsize=9.5)
    for label in (name_text, numbers_text):
        label.set(transform=transform, va="center", zorder=5, bbox=box)


def _limits(axis: Axes, values: Sequence[float]) -> None:
    """Limits with room at both ends, also if all values are equal."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    pad = 0.06 * (high - low) or max(abs(high) * 0.02, 1e-6)
    axis.set_xlim(low - pad, high + pad)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))


# ---------------------------------------------------------------------------------------------------------- all figures


def draw(summary: Summary, palette: Palette) -> dict[str, Figure]:
    """All figures by name, without those that would be empty."""
    outcome, drawn = summary.planned, {}
    metrics = [each for each in (outcome.primary, outcome.time) if each.comparison and each.comparison.differences]
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
                curves, palette, title=wording.captions.curves_title(outcome), until=until, wide=wide
            )
    drawn["runs"] = plot_runs(
        [_map_row(outcome, act) for act in outcome.acts],
        palette,
        title=wording.captions.runs_title(outcome),
        xlabel="mAP50-95 of the last epoch, points",
        pairs=len(outcome.seeds) > 1,
    )
    drawn["times"] = plot_runs(
        [_time_row(summary, act) for act in outcome.acts],
        palette,
        title=wording.captions.times_title(outcome),
        xlabel="training time per epoch, seconds",
        pairs=False,
    )
    if summary.tuning is not None:
        drawn["tuning"] = plot_tuning(summary.tuning, palette)
    if summary.timing.rows:
        drawn["timing"] = plot_timing(summary.timing.rows, palette, excluded=summary.timing.excluded)
    return drawn


def save(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write the figures as PNG files on white; figures of an earlier report are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as file, matplotlib.rc_context(STYLE):
            save_figure(figure, file, format="png", facecolor="white")


# ---------------------------------------------------------------------------------------------- differences and ratios


def signed_points(value: float, interval: tuple[float, float] | None = None) -> str:
    """A difference in points with its interval: +0.82 [+0.10, +1.54]."""
    return f"{wording.numbers.signed(value)}{'' if interval is None else ' ' + signed_interval(interval)}".replace(
        "-", "−"
    )


def signed_interval(interval: tuple[float, float]) -> str:
    """An interval in points: [+0.10, +1.54]."""
    return f"[{wording.numbers.signed(interval[0])}, {wording.numbers.signed(interval[1])}]".replace("-", "−")


def times_ratio(value: float, interval: tuple[float, float] | None = None) -> str:
    """A ratio with its interval: ×1.10 [1.08, 1.12], with a third digit if the interval is narrow."""
    if interval is None:
        return f"×{value:.2f}"
    digits = 3 if interval[1] - interval[0] < 0.02 else 2
    low, high = (f"{end:.{digits}f}" if end < 1000 else "∞" if math.isinf(end) else f"{end:.0e}" for end in interval)
    return f"×{value:.{digits}f} [{low}, {high}]"


def plot_effects(metrics: Sequence[Metric], outcome: Outcome, palette: Palette, *, wide: bool = False) -> Figure:
    """The gain and the cost of each candidate relative to the baseline, with intervals and all seeds."""
    with matplotlib.rc_context(STYLE):
        height = 0.8 * max(1, len(outcome.candidates)) + 0.75
        figure = _figure(WIDE, height + 1.1) if wide else _figure(NARROW, height * len(metrics) + 1.5)
        shape = (1, len(metrics)) if wide else (len(metrics), 1)
        for axis, metric in zip(figure.subplots(*shape, squeeze=False).flat, metrics, strict=True):
            _effects(axis, metric, outcome, palette)
        _title(figure, wording.captions.effects_title(outcome))
        _legend(figure, _effect_keys(metrics, outcome), 5 if wide else 2)
    return figure


def _effects(axis: Axes, metric: Metric, outcome: Outcome, palette: Palette) -> None:
    assert metric.comparison is not None
    base, differences = outcome.baseline, metric.comparison.differences
    ratio, margin = metric.comparison.ratio, outcome.margin
    _rows(axis, len(differences))
    if ratio:
        title, xlabel = f"cost: training time relative to {base}", f"× the training time of {plain(base)}"
    else:
        title, xlabel = f"gain: mAP relative to {base}", f"difference from {plain(base)}, mAP points"
        axis.axvspan(-margin, margin, color=MUTED, alpha=0.16, lw=0)
    axis.set(title=plain(title, 90), xlabel=xlabel)
    neutral = 1.0 if ratio else 0.0
    axis.axvline(neutral, color=INK, lw=1.2)
    seen = [neutral] if ratio else [neutral, -margin, margin]
    for row, (name, each) in enumerate(differences.items()):
        color, mark = palette[name]
        words = (times_ratio if ratio else signed_points)(each.estimate, each.interval)
        _label(axis, row, name, color, words)
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
    _limits(axis, seen)


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


# ---------------------------------------------------------------------------------------------------------- the tuning


def plot_tuning(tuning: TuningSummary, palette: Palette) -> Figure:
    """The mAP on held-out images against the tuned value, by arm; a ring marks the chosen value."""
    numbers = [float(value) for value in tuning.values if isinstance(value, int | float)]
    continuous = len(numbers) == len(tuning.values)
    places = numbers if continuous else [float(number) for number in range(len(tuning.values))]
    with matplotlib.rc_context(STYLE):
        figure = _figure(NARROW, 3.4)
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
            known = [
                (x, mean)
                for x, mean in zip(sorted(places), _sorted_by(places, curve.means), strict=True)
                if mean is not None
            ]
            axis.plot(*zip(*known, strict=True), color=color, marker=mark, markersize=6, lw=1.6)
            singles = [
                (x, score) for x, row in zip(places, curve.runs, strict=True) for score in row if score is not None
            ]
            axis.plot(*zip(*singles, strict=True), "o", color=color, markersize=3.5, alpha=0.6, markeredgewidth=0)
            if (best := curve.means[curve.chosen]) is not None:
                axis.plot(places[curve.chosen], best, "o", color=color, markersize=13, fillstyle="none", mew=1.6)
        _title(figure, wording.captions.tuning_title(tuning))
        handles = [
            Line2D([], [], color=palette[curve.act][0], marker=palette[curve.act][1], label=plain(curve.act, 30))
            for curve in tuning.curves
        ]
        _legend(figure, handles, 3)
    return figure


def _sorted_by(places: Sequence[float], values: Sequence[float | None]) -> list[float | None]:
    return [value for _, value in sorted(zip(places, values, strict=True), key=lambda pair: pair[0])]


def plot_tradeoff(summary: Summary, palette: Palette) -> Figure:
    """Gain against cost: one mark per candidate at its time ratio and mAP difference, with both intervals.

    The baseline is at ×1 and 0. A thin line extends the interval of the gain to new validation images.
    """
    outcome = summary.planned
    gains, costs, margin = outcome.primary.comparison, outcome.time.comparison, outcome.margin
    assert gains is not None and costs is not None
    with matplotlib.rc_context(STYLE):
        shown = [act for act in gains.differences if act in costs.differences]
        figure = _figure(NARROW, 3.9 + 0.22 * math.ceil((len(shown) + 3) / 2))
        axis = figure.subplots()
        axis.axhspan(-margin, margin, color=MUTED, alpha=0.16, lw=0)
        axis.axhline(0, color=INK, lw=1.0)
        axis.axvline(1, color=INK, lw=1.0)
        axis.plot(1, 0, MARKS[0], color=INK, markersize=8)
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
        _limits(axis, across)
        low, high = min(up), max(up)
        axis.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
        base = plain(outcome.baseline, 24)
        axis.set(xlabel=f"cost: training time, × that of {base}", ylabel=f"gain: mAP points above {base}")
        axis.grid()
        _title(figure, wording.captions.tradeoff_title(outcome))
        _legend(figure, _tradeoff_keys(summary, shown, palette), 2)
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


# --------------------------------------------------------------------------------------------------------- single runs


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One row of a figure of single runs."""

    act: str
    values: Mapping[int, float]  # by seed
    words: str  # the numbers at the right of the row
    excluded: frozenset[int] = frozenset()  # seeds excluded from timing


def _map_row(outcome: Outcome, act: str) -> RunRow:
    arm, failed = outcome.primary.arms[act], outcome.failed[act].failed
    words = "no completed run" if arm.mean is None else f"{arm.mean:.1f}"
    words += "" if arm.sd is None else f" ± {arm.sd:.1f}"
    return RunRow(act=act, values=arm.values, words=words + (f", {failed} failed" if failed else ""))


def _time_row(summary: Summary, act: str) -> RunRow:
    """Seconds per epoch of every finished run, those excluded from timing marked."""
    outcome, values = summary.planned, {}
    for run in summary.runs:
        seed, seconds, epochs = run["seed"], run["time_train_s"], run["epochs"]
        if run["activation"] == act and run["status"] == "finished" and seed in outcome.seeds:
            assert isinstance(seed, int) and isinstance(seconds, float | int) and isinstance(epochs, int)
            values[seed] = seconds / epochs
    excluded = frozenset(seed for seed in values if (act, seed) in outcome.excluded_runs())
    mean = outcome.metrics["epoch_seconds"].mean(act)
    return RunRow(
        act=act, values=values, excluded=excluded, words="all runs excluded" if mean is None else f"{mean:.3g} s"
    )


def plot_runs(rows: Sequence[RunRow], palette: Palette, *, title: str, xlabel: str, pairs: bool) -> Figure:
    """Every run of every activation and the mean; with `pairs`, thin lines join the runs of a seed."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(NARROW, 0.68 * len(rows) + 1.9)
        axis = figure.subplots()
        _rows(axis, len(rows))
        axis.set_xlabel(xlabel)
        for number, row in enumerate(rows):
            color, mark = palette[row.act]
            _label(axis, number, row.act, color, row.words)
            values = [value for seed, value in row.values.items() if seed not in row.excluded]
            excluded = [value for seed, value in row.values.items() if seed in row.excluded]
            axis.plot(values, [number + 0.12] * len(values), mark, color=color, markersize=6.5, alpha=0.75, mew=0)
            axis.plot(excluded, [number + 0.12] * len(excluded), "x", color=MUTED, markersize=7, markeredgewidth=1.6)
            if values:
                axis.plot([np.mean(values)] * 2, (number - 0.14, number + 0.38), color=color, lw=2)
        if pairs:
            _join(axis, rows)
        _limits(axis, [value for row in rows for value in row.values.values()])
        _title(figure, title)
        keys = [
            Line2D([], [], color=INK, marker="o", ls="", markersize=6, alpha=0.75, label="one run"),
            Line2D([], [], color=INK, marker="|", ls="", markersize=14, markeredgewidth=2, label="mean"),
        ]
        if pairs:
            keys.append(Line2D([], [], color=FAINT, lw=1.2, label="same seed"))
        if any(row.excluded for row in rows):
            keys.append(Line2D([], [], color=MUTED, marker="x", ls="", mew=1.6, label="excluded from timing"))
        _legend(figure, keys, 2 if len(keys) > 3 else len(keys))
    return figure


def _join(axis: Axes, rows: Sequence[RunRow]) -> None:
    """A thin line per seed, broken if a run is missing."""
    for seed in sorted({seed for row in rows for seed in row.values}):
        values = [row.values.get(seed, math.nan) for row in rows]
        axis.plot(values, np.arange(len(rows)) + 0.12, color=FAINT, lw=1.0, zorder=1)


# -------------------------------------------------------------------------------------------------------------- curves


def scaled_curves(summary: Summary) -> tuple[dict[str, list[LearningCurve]], float | None]:
    """The curves of each activation, and the seconds at which the fastest runs end, averaged over seeds.

    The machine may be slower during one seed than during another: the times of each seed are scaled so that its fastest
    run ends at that time, which is where equal time is read. Runs excluded from timing get no times.
    """
    outcome = summary.planned
    ends, excluded = outcome.until_seconds, outcome.excluded_runs()
    until = math.fsum(ends.values()) / len(ends) if ends else None
    curves: dict[str, list[LearningCurve]] = {act: [] for act in outcome.acts}
    for curve in summary.curves:
        key = act, seed = curve.activation, curve.seed
        if act in curves and seed in outcome.seeds and len(curve.epochs) > 1:
            timed = until is not None and seed in ends and key not in excluded
            seconds = tuple(until * each / ends[seed] for each in curve.seconds) if timed and until else ()
            curves[act].append(replace(curve, seconds=seconds))
    return {act: several for act, several in curves.items() if several}, until


def _minutes(curve: LearningCurve) -> list[float]:
    return [seconds / 60 for seconds in curve.seconds]


def plot_curves(
    curves: Mapping[str, Sequence[LearningCurve]],
    palette: Palette,
    *,
    title: str,
    until: float | None = None,
    wide: bool = False,
) -> Figure:
    """mAP by epoch and by training time: mean over seeds and the range from the lowest to the highest.

    `until`: seconds at which the fastest run of each seed ends. The axes cover the second half of the training.
    """
    with matplotlib.rc_context(STYLE):
        keys = math.ceil((len(curves) + 2) / (4 if wide else 2))  # lines of the legend
        figure = _figure(WIDE, 4.4 + 0.22 * keys) if wide else _figure(NARROW, 7.0 + 0.22 * keys)
        by_epoch, by_time = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
        for number, (name, several) in enumerate(curves.items()):
            style = (*palette[name], 0.03 * number)
            _band(by_epoch, [(curve.epochs, curve.points) for curve in several], style)
            _band(by_time, [(_minutes(curve), curve.points) for curve in several if curve.seconds], style)
        by_epoch.set(title="equal epochs, second half of training", xlabel="epoch", ylabel="mAP50-95, points")
        by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        by_time.set(
            title="equal training time, second half of training",
            xlabel="training time, minutes (mean over seeds)",
            ylabel="mAP50-95, points",
        )
        if until is not None:
            by_time.axvline(until / 60, color=INK, lw=1.2, ls=":")
        every = [curve for several in curves.values() for curve in several]
        low = min((curve.points[(len(curve.points) - 1) // 2] for curve in every), default=0.0)
        high = max((max(curve.points) for curve in every), default=1.0)
        room = 0.06 * (high - low) or 1.0
        for axis, times in ((by_epoch, [c.epochs for c in every]), (by_time, [_minutes(c) for c in every])):
            begins = [each[(len(each) - 1) // 2] for each in times if len(each)]
            axis.set_ylim(max(low - room, 0), high + room)
            axis.set_xlim(left=0.97 * min(begins, default=0.0))
            axis.grid()
        _title(figure, title)
        _legend(figure, _curve_keys(curves, palette, until), 4 if wide else 2)
    return figure


def _curve_keys(
    curves: Mapping[str, Sequence[LearningCurve]], palette: Palette, until: float | None
) -> list[Line2D | Patch]:
    keys: list[Line2D | Patch] = [
        Line2D([], [], color=palette[name][0], marker=palette[name][1], lw=2, label=plain(name, 26)) for name in curves
    ]
    if max((len(several) for several in curves.values()), default=0) > 1:
        keys.append(Patch(color=MUTED, alpha=0.3, lw=0, label="lowest to highest seed"))
    if until is not None:
        keys.append(Line2D([], [], color=INK, lw=1.2, ls=":", label="fastest run ends"))
    return keys


def _band(axis: Axes, lines: Sequence[tuple[Sequence[float], Sequence[float]]], style: tuple[str, str, float]) -> None:
    """Mean and range over the interval that all seeds cover, by linear interpolation."""
    color, mark, first_mark = style
    lines = [(x, y) for x, y in lines if len(x)]
    if not lines:
        return
    low, high = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    if low >= high:
        return
    grid = np.unique(np.clip(np.concatenate([x for x, _ in lines]), low, high))
    values = np.array([np.interp(grid, x, y) for x, y in lines])
    axis.plot(grid, values.mean(axis=0), lw=2, ms=6, zorder=3, color=color, marker=mark, markevery=(first_mark, 0.15))
    if len(lines) > 1:
        axis.fill_between(grid, values.min(axis=0), values.max(axis=0), color=color, alpha=0.16, lw=0)


# -------------------------------------------------------------------------------------------------------------- timing


def plot_timing(rows: Sequence[TimingRow], palette: Palette, *, excluded: bool = False) -> Figure:
    """The isolated timing: ratios to the first row with their intervals."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(NARROW, 0.62 * len(rows) + 1.4)
        axis = figure.subplots()
        _rows(axis, len(rows))
        axis.set_xlabel("time of a training step, × that of the first row")
        axis.axvline(1, color=INK, lw=1.2)
        for number, row in enumerate(rows):
            color, mark = palette[row.act]
            _label(
                axis, number, f"{row.act}, {row.norm_act}", color, f"×{row.ratio:.3f}  [{row.low:.3f}, {row.high:.3f}]"
            )
            axis.plot((row.low, row.high), (number, number), color=color, lw=1.6, marker="|", markersize=10)
            axis.plot(row.ratio, number, mark, color=color, markersize=7.5, markeredgecolor="white", zorder=4)
        _limits(axis, [1.0, *(value for row in rows for value in (row.ratio, row.low, row.high))])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
        _title(figure, wording.captions.timing_title(rows, excluded=excluded))
    return figure


# -------------------------------------------------------------------------------------------------------------- output


def inline_svg(figure: Figure, key: str, *, words: str) -> str:
    """The figure as an <svg> element for the page: colours as CSS variables, ids prefixed with `key`, text as paths.

    `words`: the text for screen readers.
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        save_figure(figure, text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    svg = svg.replace("#ffffff", "var(--paper)")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words, quote=True)}" ', 1)
