"""The table and the picture of where the networks run after export."""

from __future__ import annotations

import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from comparison import wording
from comparison.figure_style import FAINT, INK, Palette, add_legend, add_title, fit_limits, in_style, new_figure, plain
from comparison.summary import Place, Summary
from comparison.tables import Cell, Column, Table, build, difference_of, mean_of, points
from comparison.wording.numbers import level, signed_points, times_ratio

Row = tuple[Place, str]  # with the activation


def place_table(summary: Summary, palette: Palette) -> Table:
    """One row for each activation in each runtime and precision; no rows if nothing was exported."""
    outcome = summary.planned
    sure = f"simultaneous {level(outcome.alpha)} CI"

    def text_of(row: Row, value: str) -> Cell:
        return Cell(value, value, "text")

    def loss(row: Row) -> Cell:
        found = row[0].losses.get(row[1])
        return Cell("–") if found is None else Cell(signed_points(found.estimate, found.interval), found.estimate)

    def loss_apart(row: Row) -> Cell:
        return Cell("–") if row[0].loss is None else difference_of(row[0].loss, outcome)(row[1])

    def training(row: Row) -> Cell:
        return difference_of(outcome.cost, outcome)(row[1])

    columns: list[tuple[Column, Callable[[Row], Cell]]] = [
        (Column("activation", text=True), lambda row: Cell(row[1], row[1])),
        (Column("runtime", text=True), lambda row: text_of(row, row[0].runtime)),
        (Column("precision", text=True), lambda row: text_of(row, row[0].precision)),
        (Column("mAP50-95", "exported, points"), lambda row: mean_of(row[0].score, points)(row[1])),
        (Column("difference", f"points, {sure}"), lambda row: difference_of(row[0].score, outcome)(row[1])),
        (Column("latency", "ms, batch 1"), lambda row: mean_of(row[0].latency)(row[1])),
        (Column("latency ratio", sure), lambda row: difference_of(row[0].latency, outcome)(row[1])),
        (Column("int8 minus fp32", "points, simultaneous"), loss),
        (Column("against the baseline's", f"points, {sure}"), loss_apart),
        (Column("size", "MB"), lambda row: mean_of(row[0].size)(row[1])),
        (Column("peak memory", "MiB"), lambda row: mean_of(row[0].memory)(row[1])),
        (Column(outcome.cost.title, sure), training),
    ]
    rows = [(place, act) for place in summary.places for act in outcome.acts]
    return build(rows, columns, lambda row: palette.variable(row[1]))


@in_style
def plot_places(summary: Summary, palette: Palette) -> Figure:
    """mAP against latency, a panel for each runtime; fp32 filled, other precisions open, joined by a thin line."""
    outcome = summary.planned
    shown = [place for place in summary.places if place.latency.measured]
    runtimes = list(dict.fromkeys(place.runtime for place in shown))
    lines = math.ceil((len(outcome.acts) + 3) / 2)
    figure = new_figure(2.7 * len(runtimes) + 0.7 + 0.22 * lines)
    axes = figure.subplots(len(runtimes), 1, squeeze=False)[:, 0]
    for axis, runtime in zip(axes, runtimes, strict=True):
        _draw_runtime(axis, [place for place in shown if place.runtime == runtime], summary, palette)
    axes[-1].set_xlabel("latency at batch 1, ms")
    add_title(figure, wording.places.title(shown, outcome))
    add_legend(figure, _keys(summary, shown, palette), 2)
    return figure


def _draw_runtime(axis: Axes, places: list[Place], summary: Summary, palette: Palette) -> None:
    threads = wording.numbers.count(places[0].threads, "thread")
    axis.set(title=plain(f"{places[0].runtime}, {threads}", 60), ylabel="mAP50-95, points")
    axis.grid()
    seen = []
    for act in summary.planned.acts:
        color, mark = palette[act]
        means = [(place.latency.mean(act), place.score.mean(act), place.precision == "fp32") for place in places]
        known = [(x, y, full) for x, y, full in means if x is not None and y is not None]
        axis.plot([x for x, _, _ in known], [y for _, y, _ in known], color=FAINT, lw=1.0, zorder=1)
        for x, y, full in known:
            face = color if full else "white"
            axis.plot(x, y, mark, color=color, markersize=8.5, markerfacecolor=face, markeredgewidth=1.5, zorder=4)
        for place in places:
            times, scores = place.latency.arms[act].values, place.score.arms[act].values
            dots = [(times[seed], scores[seed]) for seed in times.keys() & scores.keys()]
            axis.plot([x for x, _ in dots], [y for _, y in dots], "o", color=color, markersize=3, alpha=0.5, mew=0)
            seen += [x for x, _ in dots]
    fit_limits(axis, seen)


def _keys(summary: Summary, places: list[Place], palette: Palette) -> list[Line2D | Patch]:
    """The activations with their training cost, and the precisions."""
    outcome = summary.planned
    keys: list[Line2D | Patch] = []
    for act in outcome.acts:
        cost = outcome.cost.difference(act)
        words = f"{plain(act, 20)}, training {times_ratio(cost.estimate)}" if cost else plain(act, 26)
        color, mark = palette[act]
        keys.append(Line2D([], [], color=color, marker=mark, ls="", ms=7, label=words))
    for precision in dict.fromkeys(place.precision for place in places):
        face = INK if precision == "fp32" else "white"
        keys.append(Line2D([], [], color=INK, marker="o", ls="", ms=7, markerfacecolor=face, mew=1.5, label=precision))
    return keys
