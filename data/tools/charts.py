"""Histograms of a data check: objects per class, sizes of boxes, sizes of images."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from engine.pictures.figures import new_figure, plain_names, write_figure

SMALL, LARGE = 32, 96  # COCO's bounds of small and large objects: square roots of areas in pixels
MAX_BARS = 100  # classes in one chart
COLORS = ("#0072B2", "#D55E00", "#009E73")  # of the splits


def plot_classes(path: str | os.PathLike[str], counts: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Objects per class, one panel per split; `counts`: {split: (C,)}. Of many classes, draw the most frequent."""
    total = np.sum(list(counts.values()), axis=0)
    shown = np.arange(len(names))
    if len(names) > MAX_BARS:
        shown = np.sort(np.argsort(-total, kind="stable")[:MAX_BARS])
    figure = new_figure(2.6 + 4.2 * len(counts), max(2.4, 1.2 + 0.2 * len(shown)))
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for axis, (split, values), color in zip(axes, counts.items(), COLORS, strict=False):
        axis.barh(range(len(shown)), values[shown], color=color, height=0.8)
        for place, count in enumerate(values[shown].tolist()):
            axis.text(count, place, f" {count:,}", va="center", fontsize=8, color="black" if count else "red")
        axis.set(title=f"{split}: {values.sum():,} objects", xlabel="objects")
        axis.set(xlim=(0, max(values.max(initial=0) * 1.25, 1)), ylim=(len(shown) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    labels = plain_names(names)
    axes[0].set_yticks(range(len(shown)), [labels[label] for label in shown.tolist()], fontsize=8)
    if len(shown) < len(names):
        figure.suptitle(f"the {len(shown)} most frequent of {len(names)} classes")
    write_figure(figure, path)


def plot_box_sizes(path: str | os.PathLike[str], sides: Mapping[str, np.ndarray]) -> None:
    """Square roots of box areas in pixels, {split: (n,)}, a panel per split, with fractions of COCO's size classes."""
    top = max((values.max() for values in sides.values() if len(values)), default=LARGE)
    bins = np.geomspace(1, max(float(top), 2 * LARGE) * 1.05, 46)
    axes, figure = _panels(len(sides), 1)
    for axis, (split, values), color in zip(axes[:, 0], sides.items(), COLORS, strict=False):
        axis.hist(np.maximum(values, 1), bins.tolist(), color=color)
        axis.set(xscale="log", xlim=(bins[0], bins[-1]), title=f"{split}: {len(values):,} boxes", ylabel="boxes")
        axis.set_ylim(0, axis.get_ylim()[1] * 1.25)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        edges = (1.0, SMALL, LARGE, float(bins[-1]))
        parts = (values < SMALL, (values >= SMALL) & (values < LARGE), values >= LARGE)
        for name, part, low, high in zip(("small", "medium", "large"), parts, edges, edges[1:], strict=False):
            fraction = part.mean() if len(values) else 0.0
            place = (math.sqrt(low * high), 0.97)
            axis.text(*place, f"{name} {fraction:.0%}", ha="center", va="top", transform=axis.get_xaxis_transform())
        for bound in (SMALL, LARGE):
            axis.axvline(bound, color="black", lw=1, ls="--")
    axes[-1, 0].set_xlabel("√(box area) in pixels of the image, boxes clipped to it")
    write_figure(figure, path)


def plot_image_sizes(path: str | os.PathLike[str], sizes: Mapping[str, np.ndarray]) -> None:
    """Widths and heights of images in pixels, {split: (n, 2)}, one row of panels per split."""
    every = np.concatenate([values.reshape(-1) for values in sizes.values()])
    low, high = float(every.min(initial=10**9)), float(every.max(initial=1))
    margin = max(8.0, 0.04 * (high - low))
    bins = np.linspace(max(0.0, low - margin), high + margin, 41)
    axes, figure = _panels(len(sizes), 2)
    for row, (split, values), color in zip(axes, sizes.items(), COLORS, strict=False):
        for axis, column, side in zip(row, (0, 1), ("width", "height"), strict=True):
            axis.hist(values[:, column], bins.tolist(), color=color)
            axis.set(title=f"{split}: {side} {_span(values[:, column])}", ylabel="images", xlim=(bins[0], bins[-1]))
            axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    for axis, side in zip(axes[-1], ("width", "height"), strict=True):
        axis.set_xlabel(f"{side} in pixels")
    write_figure(figure, path)


def _span(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}, median {np.median(values):.0f}"


def _panels(rows: int, columns: int) -> tuple[np.ndarray, Figure]:
    figure = new_figure(11, 2.4 * rows + 0.5)
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        assert isinstance(axis, Axes)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    return axes, figure
