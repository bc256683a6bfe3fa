"""Pictures of a comparison. Plain numbers in, figures out; a figure becomes a PNG file or an SVG inside the page.

Every picture is narrow, with its labels inside the rows, so that it can be read on a telephone. An activation has the
same colour and mark in all pictures of a report; the baseline has that of the text. In the page colours are variables
of the style sheet, so that a picture follows the light or dark scheme.
"""

from __future__ import annotations

import html
import io
import math
import os
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from core.files import replacing

INK, FAINT, VOID = "#1b1f24", "#c9ced6", "#6e7681"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d46", "#7f7f7f")
"""Okabe and Ito's colours, told apart by the colour-blind, and two more; the candidates in their order."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "h")
VARIABLES = {INK: "--ink", FAINT: "--faint", VOID: "--void"} | {color: f"--c{k}" for k, color in enumerate(COLORS)}
STYLE: Any = {
    "text.color": INK, "axes.edgecolor": VOID, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": FAINT, "grid.linewidth": 0.6, "font.size": 10.5, "axes.titlesize": 11, "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 9.5, "svg.fonttype": "path", "svg.hashsalt": "comparison", "figure.titlesize": 11.5,
}  # fmt: skip
NARROW, WIDE = 5.0, 10.4  # inches
LONGEST = 41  # letters of a label and its numbers in a row


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One row of a picture of differences or ratios; `singles`: each seed's own value."""

    name: str
    estimate: float | None
    interval: tuple[float, float] | None = None  # simultaneous, 95 % or what the look has
    inner: tuple[float, float] | None = None  # simultaneous at twice the error rate, 90 %
    singles: Mapping[int, float] = field(default_factory=dict)
    words: str = ""  # the numbers, at the right of the row


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A column of effects with its axis; `neutral`: where nothing differs; `band`: what counts as the same."""

    title: str
    axis: str
    effects: Sequence[Effect]
    neutral: float
    band: tuple[float, float] | None = None
    band_words: str = ""
    alpha: float = 0.05  # of the intervals; the inner ones have twice that


@dataclass(frozen=True, kw_only=True)
class Dots:
    """One row of a picture of single runs; `void`: seeds whose value does not count."""

    name: str
    values: Mapping[int, float]
    void: frozenset[int] = frozenset()
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run's curve: epochs, minutes of training until then (none where they do not count), mAP in points."""

    epochs: Sequence[float]
    minutes: Sequence[float]
    points: Sequence[float]


class Palette:
    """Colour and mark of each activation, the same in all pictures."""

    def __init__(self, names: Sequence[str], *, baseline: str) -> None:
        others = [name for name in names if name != baseline]
        self.colors = {name: COLORS[k % len(COLORS)] for k, name in enumerate(others)} | {baseline: INK}
        self.marks = {name: MARKS[(k + 1) % len(MARKS)] for k, name in enumerate(others)} | {baseline: MARKS[0]}

    def __getitem__(self, name: str) -> tuple[str, str]:
        """Colour and mark; of a name that was not announced, those of what does not count."""
        return self.colors.get(name, VOID), self.marks.get(name, "o")

    def variable(self, name: str) -> str:
        """The style sheet's variable of the activation's colour."""
        return VARIABLES[self[name][0]]


def plain(name: str, longest: int = LONGEST) -> str:
    """A label as matplotlib draws it letter by letter: one line, no formulas between dollar signs."""
    short = name if len(name) <= longest else f"{name[: longest - 1]}…"
    fit = (letter if letter.isprintable() or letter == "\N{NO-BREAK SPACE}" else "?" for letter in short)
    return "".join(fit).replace("$", r"\$")


def folded(name: str, room: int) -> list[str]:
    """A label in one line or, longer than `room`, in two, parted behind a comma or bracket if there is one."""
    if len(name) <= room:
        return [name]
    wide = round(1.25 * room)  # two lines are set smaller
    cuts = [place + 1 for place, letter in enumerate(name[:wide]) if letter in ",([ " and place > wide // 3]
    cut = cuts[-1] if cuts else wide
    rest = name[cut:].strip()
    return [name[:cut].rstrip(), rest if len(rest) <= wide else f"{rest[: wide - 1]}…"]


# ------------------------------------------------------------------------------------------------------------- figures


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _headline(figure: Figure, text: str) -> None:
    """The message, at the left, in as many lines as it takes."""
    letters = round(figure.get_figwidth() * 9.2)
    lines = "\n".join(textwrap.wrap(plain(text, 400), letters))
    figure.suptitle(lines, x=0.008, ha="left", weight="bold")


def _legend(figure: Figure, handles: Sequence[Line2D | Patch], columns: int) -> None:
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handletextpad=0.5, columnspacing=1.2)


def _rows(axis: Axes, count: int) -> None:
    """A vertical list of rows, the first on top; labels stand inside, so there are no ticks at the side."""
    axis.set_ylim(count - 0.5, -0.62)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    for k in range(1, count):
        axis.axhline(k - 0.56, color=FAINT, lw=0.6)


def _label(axis: Axes, row: int, name: str, color: str, words: str) -> None:
    """The row's name at the left, its numbers at the right, above what the row shows."""
    place: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center", "zorder": 5}
    place["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    lines = folded(name, max(LONGEST - len(words), 18))
    size = 10.5 if len(lines) == 1 else 8.5
    text = "\n".join(map(plain, lines))
    axis.text(0.002, row - 0.36, text, **place, weight="bold", color=color, fontsize=size, linespacing=1.0)
    axis.text(0.998, row - 0.36, plain(words), **place, ha="right", fontsize=9.5)


def _limits(axis: Axes, values: Sequence[float]) -> None:
    """Limits with room at both ends, also where all values are the same."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    pad = 0.06 * (high - low) or max(abs(high) * 0.02, 1e-6)
    axis.set_xlim(low - pad, high + pad)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))


# ----------------------------------------------------------------------------------------------- differences and ratios


def plot_effects(panels: Sequence[Panel], palette: Palette, *, title: str, wide: bool = False) -> Figure:
    """What each candidate gains and costs against the baseline, with intervals and every single seed."""
    with matplotlib.rc_context(STYLE):
        count = max(1, *(len(panel.effects) for panel in panels))
        height = 0.8 * count + 0.75
        figure = _figure(WIDE, height + 1.1) if wide else _figure(NARROW, height * len(panels) + 1.5)
        shape = (1, len(panels)) if wide else (len(panels), 1)
        for axis, panel in zip(figure.subplots(*shape, squeeze=False).flat, panels, strict=True):
            _effects(axis, panel, palette)
        _headline(figure, title)
        _legend(figure, _effect_keys(panels), 5 if wide else 2)
    return figure


def _effects(axis: Axes, panel: Panel, palette: Palette) -> None:
    _rows(axis, max(1, len(panel.effects)))
    axis.set(title=plain(panel.title, 90), xlabel=panel.axis)
    if panel.band is not None:
        axis.axvspan(*panel.band, color=VOID, alpha=0.16, lw=0)
    axis.axvline(panel.neutral, color=INK, lw=1.2)
    seen = [panel.neutral, *(panel.band or ())]
    for row, effect in enumerate(panel.effects):
        color, mark = palette[effect.name]
        _label(axis, row, effect.name, color, effect.words)
        for interval, width in ((effect.interval, 1.4), (effect.inner, 4.5)):
            if interval is not None:
                axis.plot(interval, (row, row), color=color, lw=width, solid_capstyle="butt")
                seen += interval
        if effect.interval is not None:
            axis.plot(effect.interval, (row, row), "|", color=color, markersize=11, markeredgewidth=1.4)
        if effect.estimate is not None:
            axis.plot(effect.estimate, row, mark, color=color, markersize=8.5, markeredgecolor="white", zorder=4)
            seen.append(effect.estimate)
        values = list(effect.singles.values())
        axis.plot(values, [row + 0.24] * len(values), "o", color=color, markersize=5, alpha=0.6, markeredgewidth=0)
        seen += values
    _limits(axis, seen)


def _effect_keys(panels: Sequence[Panel]) -> list[Line2D | Patch]:
    """The legend: only of what is drawn."""
    effects = [effect for panel in panels for effect in panel.effects]
    keys: list[Line2D | Patch] = [Line2D([], [], color=INK, marker="D", ls="", markersize=7, label="mean over seeds")]
    if any(effect.singles for effect in effects):
        keys.append(Line2D([], [], color=INK, marker="o", ls="", markersize=5, alpha=0.6, label="one seed"))
    if any(effect.interval for effect in effects):
        words = f"{100 * (1 - panels[0].alpha):g} % simultaneous"
        keys.append(Line2D([], [], color=INK, lw=1.4, marker="|", markersize=10, label=words))
    if any(effect.inner for effect in effects):
        words = f"{100 * (1 - 2 * panels[0].alpha):g} % simultaneous"
        keys.append(Line2D([], [], color=INK, lw=4.5, solid_capstyle="butt", label=words))
    words = next((panel.band_words for panel in panels if panel.band is not None), "")
    return [*keys, Patch(color=VOID, alpha=0.16, lw=0, label=words)] if words else keys


# --------------------------------------------------------------------------------------------------------- single runs


def plot_runs(rows: Sequence[Dots], palette: Palette, *, title: str, axis_words: str, pairs: bool = True) -> Figure:
    """Every run of every activation and the mean; thin lines join the runs of a seed where `pairs`."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(NARROW, 0.68 * len(rows) + 1.9)
        axis = figure.subplots()
        _rows(axis, len(rows))
        axis.set_xlabel(axis_words)
        every: list[float] = []
        for row, dots in enumerate(rows):
            color, mark = palette[dots.name]
            _label(axis, row, dots.name, color, dots.words)
            good = {seed: value for seed, value in dots.values.items() if seed not in dots.void}
            void = [value for seed, value in dots.values.items() if seed in dots.void]
            values = list(good.values())
            axis.plot(values, [row + 0.12] * len(values), mark, color=color, markersize=6.5, alpha=0.75, mew=0)
            axis.plot(void, [row + 0.12] * len(void), "x", color=VOID, markersize=7, markeredgewidth=1.6)
            if values:
                axis.plot([np.mean(values)] * 2, (row - 0.14, row + 0.38), color=color, lw=2)
            every += [*values, *void]
        if pairs:
            _join(axis, rows)
        _limits(axis, every)
        _headline(figure, title)
        keys = [
            Line2D([], [], color=INK, marker="o", ls="", markersize=6, alpha=0.75, label="one run"),
            Line2D([], [], color=INK, marker="|", ls="", markersize=14, markeredgewidth=2, label="mean"),
        ]
        if pairs:
            keys.append(Line2D([], [], color=FAINT, lw=1.2, label="same seed"))
        if any(dots.void for dots in rows):
            keys.append(Line2D([], [], color=VOID, marker="x", ls="", mew=1.6, label="time does not count"))
        _legend(figure, keys, 2 if len(keys) > 3 else len(keys))
    return figure


def _join(axis: Axes, rows: Sequence[Dots]) -> None:
    """A thin line a seed, broken where a run is missing."""
    for seed in sorted({seed for dots in rows for seed in dots.values}):
        values = [dots.values.get(seed, math.nan) for dots in rows]
        axis.plot(values, np.arange(len(rows)) + 0.12, color=FAINT, lw=1.0, zorder=1)


# -------------------------------------------------------------------------------------------------------------- curves


def plot_curves(
    curves: Mapping[str, Sequence[Curve]],
    palette: Palette,
    *,
    title: str,
    until: float | None = None,
    wide: bool = False,
) -> Figure:
    """mAP over epochs and over minutes of training: the mean over seeds and the range from the lowest to the highest.

    `until`: minutes at which the fastest run of each seed has ended, to which the times of the seeds are scaled: where
    the budget of equal time is read off. Shown is the height that the second half of the training takes up.
    """
    with matplotlib.rc_context(STYLE):
        keys = math.ceil((len(curves) + 2) / (4 if wide else 2))  # lines of them
        figure = _figure(WIDE, 4.4 + 0.22 * keys) if wide else _figure(NARROW, 7.0 + 0.22 * keys)
        by_epoch, by_time = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
        for number, (name, several) in enumerate(curves.items()):
            style = {"color": palette[name][0], "marker": palette[name][1], "markevery": (0.03 * number, 0.15)}
            _band(by_epoch, [(curve.epochs, curve.points) for curve in several], style)
            _band(by_time, [(curve.minutes, curve.points) for curve in several if len(curve.minutes)], style)
        by_epoch.set(title="equal epochs, second half of the training", xlabel="epoch", ylabel="mAP50-95, points")
        by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        by_time.set(
            title="equal training time, second half",
            xlabel="training time, minutes of a mean seed",
            ylabel="mAP50-95, points",
        )
        if until is not None:
            by_time.axvline(until, color=INK, lw=1.2, ls=":")
        every = [curve for several in curves.values() for curve in several]
        low = min((curve.points[(len(curve.points) - 1) // 2] for curve in every), default=0.0)
        high = max((max(curve.points) for curve in every), default=1.0)
        room = 0.06 * (high - low) or 1.0
        for axis, part in ((by_epoch, "epochs"), (by_time, "minutes")):
            begins = [
                getattr(curve, part)[(len(curve.points) - 1) // 2] for curve in every if len(getattr(curve, part))
            ]
            axis.set_ylim(max(low - room, 0), high + room)
            axis.set_xlim(left=0.97 * min(begins, default=0.0))
            axis.grid()
        _headline(figure, title)
        _legend(figure, _curve_keys(curves, palette, until), 4 if wide else 2)
    return figure


def _curve_keys(curves: Mapping[str, Sequence[Curve]], palette: Palette, until: float | None) -> list[Line2D | Patch]:
    keys: list[Line2D | Patch] = [
        Line2D([], [], color=palette[name][0], marker=palette[name][1], lw=2, label=plain(name, 26)) for name in curves
    ]
    if max((len(several) for several in curves.values()), default=0) > 1:
        keys.append(Patch(color=VOID, alpha=0.3, lw=0, label="lowest to highest seed"))
    if until is not None:
        keys.append(Line2D([], [], color=INK, lw=1.2, ls=":", label="the fastest has ended"))
    return keys


def _band(axis: Axes, lines: Sequence[tuple[Sequence[float], Sequence[float]]], style: Mapping[str, Any]) -> None:
    """Mean and range over the stretch that all seeds cover, read by linear interpolation."""
    lines = [(x, y) for x, y in lines if len(x)]
    if not lines:
        return
    low, high = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    if low >= high:
        return
    grid = np.unique(np.clip(np.concatenate([x for x, _ in lines]), low, high))
    values = np.array([np.interp(grid, x, y) for x, y in lines])
    axis.plot(grid, values.mean(axis=0), lw=2, markersize=6, zorder=3, **style)
    if len(lines) > 1:
        axis.fill_between(grid, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.16, lw=0)


# --------------------------------------------------------------------------------------------------------------- times


def plot_timing(rows: Sequence[tuple[str, str, float, float, float]], palette: Palette, *, title: str) -> Figure:
    """The clean timing: (label, activation, ratio, low, high) to the first row, as bars from 1 with their intervals."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(NARROW, 0.62 * len(rows) + 1.4)
        axis = figure.subplots()
        _rows(axis, len(rows))
        axis.set_xlabel("time of a training step, × the first row's")
        axis.axvline(1, color=INK, lw=1.2)
        for row, (label, name, ratio, low, high) in enumerate(rows):
            color, mark = palette[name]
            _label(axis, row, label, color, f"×{ratio:.3f}  [{low:.3f}, {high:.3f}]")
            axis.plot((low, high), (row, row), color=color, lw=1.6, marker="|", markersize=10)
            axis.plot(ratio, row, mark, color=color, markersize=7.5, markeredgecolor="white", zorder=4)
        _limits(axis, [1.0, *(value for row in rows for value in row[2:])])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
        _headline(figure, title)
    return figure


# -------------------------------------------------------------------------------------------------------------- output


def save_png(figure: Figure, path: str | os.PathLike) -> None:
    """Write the picture on white."""
    with replacing(path) as file, matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for a letter that the font lacks
        figure.savefig(file, format="png", facecolor="white")


def inline_svg(figure: Figure, key: str, *, words: str) -> str:
    """The picture as an <svg> element for the page: colours as variables, ids that start with `key`, text as outlines.

    `words`: what a person who cannot see it is told.
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    svg = svg.replace("#ffffff", "var(--paper)")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words, quote=True)}" ', 1)
