"""Figures of matplotlib, built without pyplot and written atomically, and class names in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from core.files import replacing
from core.fonts import drawable_names, save_figure
from core.text import printable

MAX_INCHES = 60.0  # of a figure that grows with the number of classes: 7,200 pixels
MAX_NAME = 40  # characters of a class name


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, at 120 pixels per inch."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def write_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write the figure atomically, so that a viewer never sees half a picture."""
    with replacing(path) as file:
        save_figure(figure, file, format=Path(path).suffix.removeprefix("."))


def plain_names(names: Sequence[str]) -> list[str]:
    """Class names for matplotlib: one line each, in characters that can be drawn, no formulas between dollar signs."""
    short = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in drawable_names(names)]
    return [printable(name).replace("$", r"\$") for name in short]


def unit_rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """A color in 0..1, for matplotlib."""
    return color[0] / 255, color[1] / 255, color[2] / 255
