"""Figures of single runs: their results side by side, and their learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from comparison.figure_style import (
    FAINT,
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
from comparison.summary import LearningCurve, Outcome, Summary


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One row of a figure of single runs."""

    act: str
    values: Mapping[int, float]  # by seed
    words: str  # the numbers at the right of the row
    excluded: frozenset[int] = frozenset()  # seeds excluded from timing


def map_row(outcome: Outcome, act: str) -> RunRow:
    arm, failed = outcome.primary.arms[act], outcome.failed[act].failed
    words = "no completed run" if arm.mean is None else f"{arm.mean:.1f}"
    words += "" if arm.sd is None else f" ± {arm.sd:.1f}"
    return RunRow(act=act, values=arm.values, words=words + (f", {failed} failed" if failed else ""))


def time_row(summary: Summary, act: str) -> RunRow:
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


@in_style
def plot_runs(rows: Sequence[RunRow], palette: Palette, *, title: str, xlabel: str, pairs: bool) -> Figure:
    """Every run of every activation and the mean; with `pairs`, thin lines join the runs of a seed."""
    figure = new_figure(0.68 * len(rows) + 1.9)
    axis = figure.subplots()
    as_rows(axis, len(rows))
    axis.set_xlabel(xlabel)
    for number, row in enumerate(rows):
        color, mark = palette[row.act]
        label_row(axis, number, row.act, color, row.words)
        values = [value for seed, value in row.values.items() if seed not in row.excluded]
        excluded = [value for seed, value in row.values.items() if seed in row.excluded]
        axis.plot(values, [number + 0.12] * len(values), mark, color=color, markersize=6.5, alpha=0.75, mew=0)
        axis.plot(excluded, [number + 0.12] * len(excluded), "x", color=MUTED, markersize=7, markeredgewidth=1.6)
        if values:
            axis.plot([np.mean(values)] * 2, (number - 0.14, number + 0.38), color=color, lw=2)
    if pairs:
        _join(axis, rows)
    fit_limits(axis, [value for row in rows for value in row.values.values()])
    add_title(figure, title)
    keys = [
        Line2D([], [], color=INK, marker="o", ls="", markersize=6, alpha=0.75, label="one run"),
        Line2D([], [], color=INK, marker="|", ls="", markersize=14, markeredgewidth=2, label="mean"),
    ]
    if pairs:
        keys.append(Line2D([], [], color=FAINT, lw=1.2, label="same seed"))
    if any(row.excluded for row in rows):
        keys.append(Line2D([], [], color=MUTED, marker="x", ls="", mew=1.6, label="excluded from timing"))
    add_legend(figure, keys, 2 if len(keys) > 3 else len(keys))
    return figure


def _join(axis: Axes, rows: Sequence[RunRow]) -> None:
    """A thin line per seed, broken if a run is missing."""
    for seed in sorted({seed for row in rows for seed in row.values}):
        values = [row.values.get(seed, math.nan) for row in rows]
        axis.plot(values, np.arange(len(rows)) + 0.12, color=FAINT, lw=1.0, zorder=1)


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


def _epochs(curve: LearningCurve) -> Sequence[float]:
    return curve.epochs


def _minutes(curve: LearningCurve) -> Sequence[float]:
    return [seconds / 60 for seconds in curve.seconds]


@in_style
def plot_curves(
    curves: Mapping[str, Sequence[LearningCurve]],
    palette: Palette,
    *,
    title: str,
    until: float | None = None,
    wide: bool = False,
) -> Figure:
    """mAP by epoch and, if any training time counts, by training time: mean over seeds, range from lowest to highest.

    `until`: seconds at which the fastest run of each seed ends. The axes cover the second half of the training.
    """
    every = [curve for several in curves.values() for curve in several]
    panels = [("equal epochs", "epoch", _epochs)]
    if any(curve.seconds for curve in every):
        panels.append(("equal training time", "training time, minutes (mean over seeds)", _minutes))
    keys = math.ceil((len(curves) + 2) / (4 if wide else 2))  # lines of the legend
    height = (4.4 if wide else 3.5 * len(panels)) + 0.22 * keys
    figure = new_figure(height, wide=wide)
    shape = (1, len(panels)) if wide else (len(panels), 1)
    low = min((curve.points[(len(curve.points) - 1) // 2] for curve in every), default=0.0)
    high = max((max(curve.points) for curve in every), default=1.0)
    room = 0.06 * (high - low) or 1.0
    for axis, (budget, xlabel, times) in zip(figure.subplots(*shape, squeeze=False).flat, panels, strict=True):
        for number, (name, several) in enumerate(curves.items()):
            _band(axis, [(times(curve), curve.points) for curve in several], (*palette[name], 0.03 * number))
        axis.set(title=f"{budget}, second half of training", xlabel=xlabel, ylabel="mAP50-95, points")
        begins = [each[(len(each) - 1) // 2] for curve in every if len(each := times(curve))]
        axis.set_ylim(max(low - room, 0), high + room)
        axis.set_xlim(left=0.97 * min(begins, default=0.0))
        axis.grid()
        if times is _epochs:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        elif until is not None:
            axis.axvline(until / 60, color=INK, lw=1.2, ls=":")
    add_title(figure, title)
    add_legend(figure, _curve_keys(curves, palette, until), 4 if wide else 2)
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
