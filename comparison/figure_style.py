"""What the figures of a comparison share: colours, labels, rows, limits; saving them, and inlining them in the page.

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
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from core.files import replacing
from core.fonts import save_figure

INK, FAINT, MUTED = "#1b1f24", "#c9ced6", "#6e7681"
# Of candidates in order: the palette of Okabe and Ito for colour-blind readers without black and yellow, and two more.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d46", "#7f7f7f")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "h")
VARIABLES = {INK: "--ink", FAINT: "--faint", MUTED: "--muted"} | {color: f"--c{k}" for k, color in enumerate(COLORS)}
STYLE: Any = {
    "text.color": INK, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": FAINT, "grid.linewidth": 0.6, "font.size": 10.5, "axes.titlesize": 11, "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 9.5, "svg.fonttype": "path", "svg.hashsalt": "comparison", "figure.titlesize": 11.5,
}  # fmt: skip
in_style = matplotlib.rc_context(STYLE)
"""Decorates what draws or saves a figure."""
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


def new_figure(height: float, *, wide: bool = False) -> Figure:
    return Figure(figsize=(WIDE if wide else NARROW, height), dpi=160, layout="constrained")


def add_title(figure: Figure, text: str) -> None:
    """The title, left-aligned and wrapped."""
    characters = round(figure.get_figwidth() * 9.2)
    lines = "\n".join(textwrap.wrap(plain(text, 400), characters))
    figure.suptitle(lines, x=0.008, ha="left", weight="bold")


def add_legend(figure: Figure, handles: Sequence[Line2D | Patch], columns: int) -> None:
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handletextpad=0.5, columnspacing=1.2)


def as_rows(axis: Axes, count: int) -> None:
    """A vertical list of rows, the first at the top; labels are inside, so there are no ticks."""
    axis.set_ylim(count - 0.5, -0.62)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    for k in range(1, count):
        axis.axhline(k - 0.56, color=FAINT, lw=0.6)


def label_row(axis: Axes, row: int, name: str, color: str, words: str) -> None:
    """The row's name at the left and its numbers at the right, above its marks."""
    transform, box = axis.get_yaxis_transform(), {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    lines = folded(name, max(MAX_LABEL - len(words), 18))
    size = 10.5 if len(lines) == 1 else 8.5
    text = "\n".join(map(plain, lines))
    name_text = axis.text(0.002, row - 0.36, text, weight="bold", color=color, fontsize=size, linespacing=1.0)
    numbers_text = axis.text(0.998, row - 0.36, plain(words), ha="right", fontsize=9.5)
    for label in (name_text, numbers_text):
        label.set(transform=transform, va="center", zorder=5, bbox=box)


def fit_limits(axis: Axes, values: Sequence[float]) -> None:
    """Limits with room at both ends, also if all values are equal."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    pad = 0.06 * (high - low) or max(abs(high) * 0.02, 1e-6)
    axis.set_xlim(low - pad, high + pad)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))


@in_style
def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write the figures as PNG files on white; figures of an earlier report are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as file:
            save_figure(figure, file, format="png", facecolor="white")


@in_style
def inline_svg(figure: Figure, key: str, *, words: str) -> str:
    """The figure as an <svg> element for the page: colours as CSS variables, ids prefixed with `key`, text as paths.

    `words`: the text for screen readers.
    """
    text = io.StringIO()
    save_figure(figure, text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    svg = svg.replace("#ffffff", "var(--paper)")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words, quote=True)}" ', 1)
