"""Pictures of a training run: curves by epoch, statistics of its labels, batches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from core.metrics import BY_KEY, EVALUATION, LOSSES, Panel
from core.types import Batch
from data.annotations import Annotations
from engine.loggers import Row
from engine.pictures.drawing import class_color, save_mosaic
from engine.pictures.figures import MAX_INCHES, new_figure, plain_names, unit_rgb, write_figure

TRAIN, VAL, THIRD, FOURTH, FIFTH = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"


# ------------------------------------------------------------------------------------------------------- the training


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    """One column of results.csv as floats; NaN if missing or empty, or for COCO's -1."""
    values = [row.get(name) for row in rows]
    column = np.array([np.nan if value in (None, "", "-") else value for value in values]).astype(float)
    return np.where(column == -1, np.nan, column) if name.startswith("metrics/") else column


def plot_results(path: str | os.PathLike, rows: Sequence[Row]) -> None:
    """results.png: losses, precision and recall, mAP, AP by object size, learning rate and time by epoch."""
    if not rows:
        return
    terms = [key.removeprefix("train/").removesuffix("_loss") for key in rows[-1] if key.startswith("train/")]
    columns = max(4, len(terms) + 1)
    figure = new_figure(4.25 * columns, 8)
    axes = figure.subplots(2, columns)
    epoch = _column(rows, "epoch")
    for axis, term in zip(axes[0], terms, strict=False):
        series = {"train": f"train/{term}_loss", "validation": f"val/{term}_loss"}
        _lines(axis, rows, epoch, LOSSES.get(term, f"{term} loss"), series, "loss")
    _lines(axes[0, -1], rows, epoch, "precision and recall", _panel("precision and recall"), "fraction")
    _lines(axes[1, 0], rows, epoch, "mean average precision", _panel("mAP"), "mAP", best=True)
    _lines(axes[1, 1], rows, epoch, "mAP50-95 by object size", _panel("AP by size"), "AP")
    _lines(axes[1, 2], rows, epoch, "learning rate", {"learning rate": "lr"}, "step size", log=True)
    _epoch_times(axes[1, 3], rows, epoch)
    for axis in axes[1, 4:]:
        axis.axis("off")
    write_figure(figure, path)


def _panel(panel: Panel) -> dict[str, str]:
    """The columns of results.csv that a panel of results.png shows, by the label of their line."""
    return {metric.title: metric.key for metric in EVALUATION if metric.panel == panel}


def _lines(
    axis: Axes,
    rows: Sequence[Row],
    epoch: np.ndarray,
    title: str,
    series: Mapping[str, str],
    unit: str,
    *,
    best: bool = False,
    log: bool = False,
) -> None:
    shown = 0
    for (name, column), color in zip(series.items(), cycle((TRAIN, VAL, THIRD, FOURTH, FIFTH)), strict=False):
        values = _column(rows, column)
        there = ~np.isnan(values)
        if there.any():
            axis.plot(epoch[there], values[there], ".-" if there.sum() < 60 else "-", color=color, label=name)
            shown += 1
    if best and shown:
        values = _column(rows, "metrics/mAP50-95")
        if not np.isnan(values).all():
            top = int(np.nanargmax(values))
            axis.plot(epoch[top], values[top], "*", color="black", markersize=12, zorder=5)
            axis.plot([], [], "*", color="black", label=f"best {values[top]:.3f}, epoch {epoch[top]:.0f}")
    axis.set(title=title, ylabel=unit)
    _epoch_axis(axis, epoch)
    if log and shown:
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if unit in ("fraction", "mAP", "AP"):
        axis.set_ylim(0, 1.02)
    elif not log:
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if shown and (len(series) > 1 or best):
        axis.legend(framealpha=0.7)
    if not shown:
        axis.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axis.transAxes, color="grey")


def _epoch_axis(axis: Axes, epoch: np.ndarray) -> None:
    """Ticks at whole epochs, even for a single one."""
    axis.set(xlabel="epoch", xlim=(np.nanmin(epoch) - 0.6, np.nanmax(epoch) + 0.6))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _epoch_times(axis: Axes, rows: Sequence[Row], epoch: np.ndarray) -> None:
    parts = ("time_train_s", "time_warmup_s", "time_data_s", "time_val_s", "time_save_s")
    base = np.zeros(len(epoch))
    for key, color in zip(parts, (TRAIN, FIFTH, VAL, THIRD, FOURTH), strict=True):
        values = np.nan_to_num(_column(rows, key))
        if not values.any():
            continue
        axis.bar(epoch, values, 0.9, bottom=base, color=color, label=BY_KEY[key].title)
        base += values
    slowed = np.nan_to_num(_column(rows, "time_contended_s")) > 0
    if slowed.any():
        axis.plot(epoch[slowed], base[slowed] * 1.04, "v", color="black", label="slowed by other processes")
    axis.set(title="time per epoch", ylabel="seconds", ylim=(0, max(base.max() * 1.35, 1e-3)))
    _epoch_axis(axis, epoch)
    if base.any():
        axis.legend(framealpha=0.7, ncols=2, fontsize="small")


# ------------------------------------------------------------------------------------------------------------ the data


def plot_labels(
    path: str | os.PathLike,
    *,
    boxes: np.ndarray,
    labels: np.ndarray,
    boxes_per_image: np.ndarray,
    names: Sequence[str],
    title: str = "",
) -> None:
    """labels.png: objects by class, their positions and sizes, and the number of objects per image.

    `boxes` (n, 4): center x, center y, width, height as fractions of the image; `labels` (n,) class positions;
    `boxes_per_image` (images,), zeros included.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    figure = new_figure(16, min(max(9.0, 1.5 + 0.165 * len(names)), MAX_INCHES))
    grid = figure.add_gridspec(2, 3, width_ratios=(1.1, 1, 1))
    _class_bars(figure.add_subplot(grid[:, 0]), np.bincount(np.asarray(labels, int), minlength=len(names)), names)
    centres, sizes, scales, crowding = (figure.add_subplot(grid[row, column]) for row in (0, 1) for column in (1, 2))
    _heat(centres, boxes[:, 0], boxes[:, 1])
    centres.set(title="box centres", xlabel="x / image width", ylabel="y / image height")
    centres.invert_yaxis()
    _heat(sizes, boxes[:, 2], boxes[:, 3])
    sizes.set(title="box sizes", xlabel="box width / image width", ylabel="box height / image height")
    scale = np.sqrt(np.clip(boxes[:, 2] * boxes[:, 3], 0, 1))
    scales.hist(scale, np.linspace(0, max(scale.max(initial=0.05), 0.05), 41).tolist(), color=TRAIN)
    scales.set(title="object scale", xlabel="√(box area / image area)", ylabel="objects", box_aspect=1)
    counts = np.asarray(boxes_per_image, int)
    top = int(counts.max(initial=0))
    edges = np.arange(-0.5, top + 1.5 + (top + 1) // 40, max(1, (top + 1) // 40))
    crowding.hist(counts, edges.tolist(), color=THIRD)
    crowding.set(title="objects per image", xlabel="objects in the image", ylabel="images", box_aspect=1)
    for axis in (crowding.xaxis, crowding.yaxis, scales.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    none = int((counts == 0).sum())
    head = f"{title}: " if title else ""
    figure.suptitle(f"{head}{len(labels)} objects in {len(counts)} images, {none} of them without objects")
    write_figure(figure, path)


def plot_dataset(path: str | os.PathLike, annotations: Annotations, *, title: str = "") -> None:
    """labels.png of a loaded split."""
    counts = np.diff(annotations.starts)
    image = np.repeat(np.arange(len(counts)), counts)
    single = ~np.asarray(annotations.crowd, bool)
    sizes = np.asarray(annotations.sizes, float)[image]
    shown = single & (sizes > 0).all(axis=1)  # the size of an image may be unknown
    low = np.clip(annotations.boxes[:, :2], 0, sizes)[shown]
    high = np.clip(annotations.boxes[:, :2] + annotations.boxes[:, 2:], 0, sizes)[shown]
    plot_labels(
        path,
        boxes=np.concatenate([(low + high) / 2, high - low], axis=1) / np.tile(sizes[shown], 2),
        labels=annotations.labels[single],
        boxes_per_image=np.bincount(image[single], minlength=len(counts)),
        names=annotations.classes,
        title=title,
    )


def _class_bars(axis: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    small = len(names) > 16
    positions = list(range(len(names)))
    axis.barh(positions, counts, color=[unit_rgb(class_color(k)) for k in positions], height=0.8)
    axis.set_yticks(positions, plain_names(names), fontsize=8 if small else 10)
    axis.set(
        title="objects by class", xlabel="objects", ylim=(max(len(names), 6) - 0.4, -0.6)
    )  # keeps a single bar thin
    axis.set_xlim(0, max(counts.max(initial=0) * 1.18, 1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    for place, count in zip(positions, counts.tolist(), strict=True):
        axis.text(count, place, f" {count}", va="center", fontsize=7 if small else 9)


def _heat(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """A two-dimensional histogram with a square-root color scale, which shows rare values."""
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    if not len(x):
        axis.text(0.5, 0.5, "no objects", ha="center", va="center", transform=axis.transAxes, color="grey")
        return
    grid = [np.linspace(0, 1, 51)] * 2
    counts, _, _ = np.histogram2d(np.clip(x, 0, 1), np.clip(y, 0, 1), bins=grid)
    norm = PowerNorm(0.5, 0, max(counts.max(), 4))
    picture = axis.pcolormesh(*grid, np.ma.masked_equal(counts.T, 0), cmap="viridis", norm=norm)
    bar = axis.figure.colorbar(picture, ax=axis, label="objects in a cell", fraction=0.045, pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def plot_train_batch(path: str | os.PathLike, batch: Batch, names: Sequence[str]) -> None:
    """train_batch*.jpg: a training batch as the network sees it."""
    masks = batch.targets.mask.cpu().numpy().astype(bool)
    boxes, labels = batch.targets.boxes.cpu().numpy(), batch.targets.labels.cpu().numpy()
    save_mosaic(
        path,
        batch.images.cpu().numpy(),
        [b[m] for b, m in zip(boxes, masks, strict=True)],
        [k[m] for k, m in zip(labels, masks, strict=True)],
        names=names,
        captions=[str(p) for p in batch.paths],
    )
