"""Pictures of a run: curves, label statistics, batches, confusion matrices. Figures are built without pyplot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from core.files import replacing
from core.fonts import drawable_names, save_figure
from core.metrics import BY_KEY, EVALUATION, LOSSES, Panel
from core.text import printable
from core.types import Batch
from data.annotations import Annotations
from engine.evaluation.coco import EvalStats
from engine.evaluation.evaluate import DrawnBatch, EvalResult
from engine.loggers import Row
from engine.pictures.drawing import class_color, draw_detections, mosaic, save_image, save_mosaic

__all__ = [
    "draw_detections",
    "mosaic",
    "plot_confusion",
    "plot_dataset",
    "plot_evaluation",
    "plot_f1_curve",
    "plot_labels",
    "plot_pr_curve",
    "plot_results",
    "plot_samples",
    "plot_train_batch",
    "save_image",
    "save_mosaic",
]

MAX_INCHES = 60.0  # of a figure that grows with the number of classes: 7,200 pixels
MAX_NAME = 40  # characters of a class name
MANY = 20  # classes; with more, their curves are drawn thin, without a legend
TRAIN, VAL, THIRD, FOURTH, FIFTH = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(name: str) -> str:
    """A class name for matplotlib: one line, without formulas between dollar signs."""
    short = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return printable(short).replace("$", r"\$")


def _save(figure: Figure, path: str | os.PathLike) -> None:
    """Write the figure atomically, so that a viewer never sees half a picture."""
    with replacing(path) as file:
        save_figure(figure, file, format=Path(path).suffix.removeprefix("."))


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
    figure = _figure(4.25 * columns, 8)
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
    _save(figure, path)


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
    figure = _figure(16, min(max(9.0, 1.5 + 0.165 * len(names)), MAX_INCHES))
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
    _save(figure, path)


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
    axis.barh(positions, counts, color=[_unit_rgb(class_color(k)) for k in positions], height=0.8)
    axis.set_yticks(positions, [_plain(name) for name in drawable_names(names)], fontsize=8 if small else 10)
    axis.set(
        title="objects by class", xlabel="objects", ylim=(max(len(names), 6) - 0.4, -0.6)
    )  # keeps a single bar thin
    axis.set_xlim(0, max(counts.max(initial=0) * 1.18, 1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    for place, count in zip(positions, counts.tolist(), strict=True):
        axis.text(count, place, f" {count}", va="center", fontsize=7 if small else 9)


def _unit_rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """A color in 0..1, for matplotlib."""
    return color[0] / 255, color[1] / 255, color[2] / 255


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


def plot_samples(
    folder: str | os.PathLike, batches: Sequence[DrawnBatch], names: Sequence[str], *, conf: float = 0.25
) -> None:
    """val_batch*_labels.jpg and val_batch*_pred.jpg; detections with a score of at least `conf` are drawn."""
    for number, batch in enumerate(batches):
        images, captions = batch.images.numpy(), batch.paths
        target = Path(folder) / f"val_batch{number}_labels.jpg"
        save_mosaic(target, images, batch.target_boxes, batch.target_labels, names=names, captions=captions)
        kept = [each.scores >= conf for each in batch.detections]
        boxes = [each.boxes[mask].numpy() for each, mask in zip(batch.detections, kept, strict=True)]
        scores = [each.scores[mask].numpy() for each, mask in zip(batch.detections, kept, strict=True)]
        labels = [each.labels[mask].numpy() for each, mask in zip(batch.detections, kept, strict=True)]
        target = Path(folder) / f"val_batch{number}_pred.jpg"
        save_mosaic(target, images, boxes, labels, scores=scores, names=names, captions=captions)


# ------------------------------------------------------------------------------------------------------ the evaluation


def plot_evaluation(folder: str | os.PathLike, result: EvalResult) -> None:
    """All pictures of an evaluation: PR and F1 curves, both confusion matrices, sample batches."""
    folder = Path(folder)
    plot_pr_curve(folder / "PR_curve.png", result.stats)
    plot_f1_curve(folder / "F1_curve.png", result.stats)
    plot_confusion(folder / "confusion_matrix.png", result.confusion, result.truth.names, normalise=False)
    plot_confusion(folder / "confusion_matrix_normalized.png", result.confusion, result.truth.names, normalise=True)
    plot_samples(folder, result.drawn, result.truth.names)


def plot_pr_curve(path: str | os.PathLike, stats: EvalStats) -> None:
    """PR_curve.png: COCO's interpolated precision over recall at IoU 0.5, by class and their mean."""
    names = drawable_names([row.name for row in stats.per_class])
    entries = [
        (names[k], stats.pr_precision[k], f"{row.ap50:.3f}") for k, row in enumerate(stats.per_class) if row.instances
    ]
    mean = np.mean([curve for _, curve, _ in entries], axis=0) if entries else None
    label = f"mean of {len(entries)} classes:\nmAP50 {stats.numbers['mAP50']:.3f}"
    axes = {"title": "precision over recall at IoU 0.5 (number: AP50)", "xlabel": "recall", "ylabel": "precision"}
    _curves(path, stats.pr_recall, entries, mean, label, axes, None)


def plot_f1_curve(path: str | os.PathLike, stats: EvalStats) -> None:
    """F1_curve.png: F1 at IoU 0.5 over the confidence threshold, by class and their mean, with its maximum."""
    f1 = stats.curves.f1
    names = drawable_names([row.name for row in stats.per_class])
    entries = [(names[k], f1[k], f"{f1[k].max():.3f}") for k, row in enumerate(stats.per_class) if row.instances]
    mean = np.mean([curve for _, curve, _ in entries], axis=0) if entries else None
    top = 0.0 if mean is None else mean.max()
    label = f"mean of {len(entries)} classes:\nF1 {top:.3f} at confidence {stats.confidence:.3f}"
    axes = {
        "title": "F1 over confidence at IoU 0.5 (number: highest F1)",
        "xlabel": "confidence threshold",
        "ylabel": "F1",
    }
    _curves(path, stats.curves.confidence, entries, mean, label, axes, stats.confidence)


def _curves(
    path: str | os.PathLike,
    x: np.ndarray,
    entries: Sequence[tuple[str, np.ndarray, str]],
    mean: np.ndarray | None,
    label: str,
    axes: Mapping[str, str],
    mark: float | None,
) -> None:
    """One line per class, with a legend if they are few and thin grey if they are many, and the mean."""
    few = 1 < len(entries) <= MANY
    figure = _figure(10.5 if few else 8.5, 6.5)
    axis = figure.subplots()
    entries = [(_plain(name), curve, number) for name, curve, number in entries]
    for k, (name, curve, number) in enumerate(entries if len(entries) > 1 else ()):
        if few:
            style = ("-", "--", ":")[k // 8]
            axis.plot(x, curve, style, color=_unit_rgb(class_color(k % 8)), lw=1.4, label=f"{name} {number}")
        else:
            axis.plot(x, curve, color="grey", lw=0.6, alpha=0.5, label="single classes" if k == 0 else None)
    if mean is not None:
        axis.plot(x, mean, color="black", lw=3, label=label if len(entries) > 1 else f"{entries[0][0]} {entries[0][2]}")
        if mark is not None:
            axis.axvline(
                mark, color="black", lw=1, ls=":", label=None if len(entries) > 1 else f"confidence {mark:.3f}"
            )
        handles, texts = axis.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right upper" if few else "outside lower center", fontsize="medium")
    else:
        axis.text(0.5, 0.5, "no objects to find", ha="center", va="center", color="grey")
    axis.set(**axes, xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    _save(figure, path)


def plot_confusion(path: str | os.PathLike, counts: np.ndarray, names: Sequence[str], *, normalise: bool) -> None:
    """The confusion matrix, rows predicted and columns true; `normalise`: as fractions of each true class.

    The last column holds detections on background, the last row missed objects.
    """
    size = len(counts)
    ticks = [*map(_plain, drawable_names(names)), "background"]
    values = counts.astype(float)
    if normalise:
        values = np.divide(
            values, values.sum(axis=0, keepdims=True), out=np.zeros_like(values), where=values.sum(axis=0) > 0
        )
    cell = 0.62 if size <= 12 else 0.42 if size <= 32 else 0.27
    side = min(max(5.0, cell * size), MAX_INCHES)
    figure = _figure(side + 3.2, side + 2.2)
    axis = figure.subplots()
    norm = PowerNorm(0.5, 0, 1 if normalise else max(values.max(), 1))
    picture = axis.imshow(np.ma.masked_equal(values, 0), cmap="Blues", norm=norm)
    font = 10 if size <= 12 else 8 if size <= 32 else 7
    axis.set_xticks(range(size), ticks, rotation=90 if size > 5 else 0, fontsize=font)
    axis.set_yticks(range(size), ticks, fontsize=font)
    axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="lightgrey", lw=0.5)
    axis.tick_params(which="minor", length=0)
    _cell_texts(axis, values, normalise=normalise, font=font)
    what = "fraction of the column" if normalise else "number of objects"
    axis.set_xlabel("true class (last column: background)", fontsize=font + 3)
    axis.set_ylabel("predicted class (last row: missed)", fontsize=font + 3)
    axis.set_title(f"confusion matrix, {what} (confidence > 0.25, IoU > 0.45)", fontsize=font + 4)
    bar = figure.colorbar(picture, ax=axis, shrink=0.8, aspect=35, label=what)
    if not normalise:
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    _save(figure, path)


def _cell_texts(axis: Axes, values: np.ndarray, *, normalise: bool, font: int) -> None:
    """Numbers in the cells that are not zero; white on dark cells."""
    dark = 0.35 * (1.0 if normalise else max(values.max(), 1))
    crowded = len(values) > 32
    for row, column in zip(*np.nonzero(values), strict=True):
        value = values[row, column]
        if normalise and crowded and value < 0.01:
            continue
        text = f"{value:.2f}".removeprefix("0" if crowded else "") if normalise else _short(int(value))
        color = "white" if value > dark else "black"
        axis.text(column, row, text, ha="center", va="center", color=color, fontsize=font - (1 if crowded else 0))


def _short(count: int) -> str:
    """A count in at most four characters: 12345 becomes 12k."""
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"
