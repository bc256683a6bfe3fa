"""Pictures of an evaluation: curves over recall and confidence, confusion matrices, sample batches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import FuncFormatter

from engine.evaluation.coco import EvalStats
from engine.evaluation.evaluate import DrawnBatch, EvalResult
from engine.pictures.drawing import class_color, save_mosaic
from engine.pictures.figures import MAX_INCHES, new_figure, plain_names, unit_rgb, write_figure

MANY = 20  # classes; with more, their curves are drawn thin, without a legend


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
    names = plain_names([row.name for row in stats.per_class])
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
    names = plain_names([row.name for row in stats.per_class])
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
    figure = new_figure(10.5 if few else 8.5, 6.5)
    axis = figure.subplots()
    for k, (name, curve, number) in enumerate(entries if len(entries) > 1 else ()):
        if few:
            style = ("-", "--", ":")[k // 8]
            axis.plot(x, curve, style, color=unit_rgb(class_color(k % 8)), lw=1.4, label=f"{name} {number}")
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
    write_figure(figure, path)


def plot_confusion(path: str | os.PathLike, counts: np.ndarray, names: Sequence[str], *, normalise: bool) -> None:
    """The confusion matrix, rows predicted and columns true; `normalise`: as fractions of each true class.

    The last column holds detections on background, the last row missed objects.
    """
    size = len(counts)
    ticks = [*plain_names(names), "background"]
    values = counts.astype(float)
    if normalise:
        values = np.divide(
            values, values.sum(axis=0, keepdims=True), out=np.zeros_like(values), where=values.sum(axis=0) > 0
        )
    cell = 0.62 if size <= 12 else 0.42 if size <= 32 else 0.27
    side = min(max(5.0, cell * size), MAX_INCHES)
    figure = new_figure(side + 3.2, side + 2.2)
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
    write_figure(figure, path)


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
