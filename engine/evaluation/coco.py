"""Detections against COCO ground truth: the twelve numbers, the table by class, the confusion matrix.

The headline is pycocotools' own. Every epoch hotcoco computes the same numbers from arrays some hundred times faster;
an official evaluation runs both and says so where they differ. Predictions are compact (n, 7) float64 arrays with
COCO's columns (image id, x, y, width, height, score, category id); JSON exists only on disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.files import replacing
from engine.evaluation.ground_truth import GroundTruth
from engine.evaluation.matching import BoxTable, ConfidenceCurves, confidence_curves, confusion_counts

STAT_NAMES = (
    "mAP50-95", "mAP50", "mAP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""COCO's twelve numbers in COCO's order."""

UNDEFINED = -1.0  # what COCO reports where there are no objects to average over
BOX_DECIMALS, SCORE_DECIMALS = 3, 5  # as written to predictions.json, and as scored


# ------------------------------------------------------------------------------------------------------- predictions


def predictions_from_coco(entries: Sequence[dict[str, Any]], truth: GroundTruth) -> np.ndarray:
    """COCO result dictionaries as an (n, 7) array whose first column holds the image keys of `truth`."""
    rows = np.zeros((len(entries), 7))
    for row, entry in zip(rows, entries, strict=True):
        if entry["image_id"] not in truth.key_of:
            raise ValueError(f"predictions name image id {entry['image_id']!r}, which the ground truth does not have")
        row[0] = truth.key_of[entry["image_id"]]
        row[1:5] = entry["bbox"]
        row[5], row[6] = entry["score"], entry["category_id"]
    return rows


def write_predictions(path: str | os.PathLike, predictions: np.ndarray, truth: GroundTruth) -> None:
    """COCO result JSON, one detection a line, written to a temporary file and renamed.

    Boxes have 3 decimals and scores 5: `evaluate` rounds before it scores, so the file gives the same numbers again.
    """
    with replacing(path, "w", encoding="utf-8") as file:
        file.write("[")
        for n, (key, x, y, width, height, score, category) in enumerate(predictions.tolist()):
            entry = {
                "image_id": truth.id_of[int(key)],
                "category_id": int(category),
                "bbox": [round(value, BOX_DECIMALS) for value in (x, y, width, height)],
                "score": round(score, SCORE_DECIMALS),
            }
            file.write((",\n" if n else "\n") + json.dumps(entry))
        file.write("\n]\n")


# -------------------------------------------------------------------------------------------------------- statistics


@dataclass(frozen=True)
class ClassRow:
    """One line of the table by class. `instances` leaves crowds out; AP is -1 where there are no objects."""

    name: str
    category_id: int
    images: int
    instances: int
    ap: float
    ap50: float
    precision: float
    recall: float


@dataclass(frozen=True)
class EvalStats:
    """COCO's numbers and the curves behind them.

    `numbers`: the twelve, by name, -1 where undefined. `precision`, `recall`: means over classes at IoU 0.5 and at
    `confidence`, the threshold of the highest mean F1. `pr_precision` (classes, 101) over `pr_recall`: COCO's curve at
    IoU 0.5, NaN for classes without objects. `notes`: what a reader of the numbers must know.
    """

    numbers: dict[str, float]
    per_class: list[ClassRow]
    precision: float
    recall: float
    confidence: float
    images: int
    instances: int
    pr_recall: np.ndarray
    pr_precision: np.ndarray
    curves: ConfidenceCurves
    backend: str
    notes: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, float]:
        """The numbers under the column names of results.csv."""
        return {
            "metrics/precision": self.precision,
            "metrics/recall": self.recall,
            "metrics/mAP50": self.numbers["mAP50"],
            "metrics/mAP50-95": self.numbers["mAP50-95"],
            "metrics/mAP75": self.numbers["mAP75"],
            "metrics/AP_small": self.numbers["AP_small"],
            "metrics/AP_medium": self.numbers["AP_medium"],
            "metrics/AP_large": self.numbers["AP_large"],
        }


def coco_stats(
    truth: GroundTruth | dict[str, Any] | str | os.PathLike,
    predictions: np.ndarray | Sequence[dict[str, Any]],
    *,
    backend: str = "pycocotools",
    image_ids: Iterable | None = None,
) -> EvalStats:
    """COCO box evaluation of predictions: an (n, 7) array or COCO result dictionaries.

    `backend`: 'pycocotools' (the headline) or 'fast' (hotcoco); `image_ids`: evaluate these images only.
    Raises ValueError for an unknown backend or a prediction on an image that the ground truth does not have.
    """
    if not isinstance(truth, GroundTruth):
        truth = GroundTruth(truth, image_ids=image_ids)
    elif image_ids is not None:
        raise ValueError("image_ids: restrict the GroundTruth itself, GroundTruth(source, image_ids=...)")
    if not isinstance(predictions, np.ndarray):
        allowed = truth.key_of.keys()
        entries = [p for p in predictions if image_ids is None or p["image_id"] in allowed]
        predictions = predictions_from_coco(entries, truth)
    elif image_ids is not None:
        predictions = predictions[np.isin(predictions[:, 0], list(truth.id_of))]
    predictions, notes = _checked(predictions, truth)
    runners = {"pycocotools": _run_pycocotools, "fast": _run_hotcoco}
    if backend not in runners:
        raise ValueError(f"backend {backend!r}; expected one of {sorted(runners)}")
    numbers, precision = runners[backend](truth, predictions)
    return _assemble(truth, predictions, numbers, precision, backend=backend, notes=truth.notes + notes)


def differences(first: EvalStats, second: EvalStats, *, tolerance: float = 1e-12) -> dict[str, float]:
    """Which of the twelve numbers differ by more than `tolerance`, and by how much (second minus first)."""
    gaps = {name: second.numbers[name] - first.numbers[name] for name in STAT_NAMES}
    return {name: gap for name, gap in gaps.items() if not abs(gap) <= tolerance}


def assert_equal(first: EvalStats, second: EvalStats, *, tolerance: float = 1e-12) -> None:
    """Raise ValueError naming the numbers in which two evaluations differ."""
    gaps = differences(first, second, tolerance=tolerance)
    if gaps:
        listed = ", ".join(f"{name} by {gap:+.3g}" for name, gap in gaps.items())
        raise ValueError(f"{second.backend} differs from {first.backend}: {listed}")


def official_stats(truth: GroundTruth, predictions: np.ndarray) -> EvalStats:
    """pycocotools' statistics, checked against the fast ones; a difference is noted and pycocotools' numbers stand."""
    stats = coco_stats(truth, predictions, backend="pycocotools")
    gaps = differences(stats, coco_stats(truth, predictions, backend="fast"))
    if gaps:
        listed = ", ".join(f"{name} {gap:+.2g}" for name, gap in gaps.items())
        stats.notes.append(f"the fast evaluation used during training differs from pycocotools: {listed}")
    return stats


def _checked(predictions: np.ndarray, truth: GroundTruth) -> tuple[np.ndarray, list[str]]:
    """Predictions as float64 (n, 7) on known images and of known categories, and what was left out."""
    rows = np.asarray(predictions, np.float64).reshape(-1, 7)
    known = np.isin(rows[:, 0], list(truth.id_of))
    if not known.all():
        raise ValueError(f"predictions name image id {rows[~known][0, 0]:.0f}, which the ground truth does not have")
    strange = truth.labels(rows[:, 6].astype(np.int64)) < 0 if len(rows) else np.zeros(0, bool)
    if strange.any():
        ids = sorted(set(rows[strange, 6].astype(int).tolist()))[:5]
        return rows[~strange], [f"{strange.sum()} detections of categories {ids} unknown to the ground truth left out"]
    return rows, []


def _run_pycocotools(truth: GroundTruth, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The twelve numbers and the precision array (IoU, recall, class, area, limit) by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference, found = COCO(), COCO()
        reference.dataset = truth.as_coco()
        reference.createIndex()
        if len(predictions):
            found = reference.loadRes(predictions)
        else:  # loadRes looks at the first detection, so it cannot take none
            found.dataset = {**reference.dataset, "annotations": []}
            found.createIndex()
        run = COCOeval(reference, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats, np.float64), np.asarray(run.eval["precision"])


def _run_hotcoco(truth: GroundTruth, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same by hotcoco, from arrays."""
    import hotcoco

    with contextlib.redirect_stdout(io.StringIO()):
        reference = hotcoco.COCO.from_arrays(
            [{"id": truth.key_of[identity]} for identity in truth.image_ids],
            truth.categories,
            truth.image_key,
            truth.category_id,
            truth.boxes,
            ids=truth.annotation_id,
            area=truth.area,
            iscrowd=truth.crowd,
        )
        run = hotcoco.COCOeval(reference, reference.load_res(np.ascontiguousarray(predictions)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    arrays: Any = run.eval
    return np.asarray(run.stats, np.float64), np.asarray(arrays["precision"])


def _assemble(
    truth: GroundTruth,
    predictions: np.ndarray,
    numbers: np.ndarray,
    precision: np.ndarray,
    *,
    backend: str,
    notes: list[str],
) -> EvalStats:
    """Numbers, table by class and curves from the precision array and our own matching."""
    by_id = np.argsort([category["id"] for category in truth.categories])
    ordered = np.empty_like(precision[:, :, :, 0, -1])
    ordered[:, :, by_id] = precision[:, :, :, 0, -1]  # both libraries sort classes by category id
    objects, crowd = truth.table()
    detections = BoxTable(
        predictions[:, 0].astype(np.int64), predictions[:, 1:5], truth.labels(predictions[:, 6].astype(np.int64))
    )
    curves = confidence_curves(detections, predictions[:, 5], objects, crowd, num_classes=len(truth.categories))
    best = curves.best()
    rows = []
    for k, category in enumerate(truth.categories):
        mine = (objects.label == k) & ~crowd
        values = ordered[:, :, k]
        rows.append(
            ClassRow(
                name=category["name"],
                category_id=category["id"],
                images=len(np.unique(objects.image[mine])),
                instances=int(mine.sum()),
                ap=float(values.mean()) if mine.any() else UNDEFINED,
                ap50=float(values[0].mean()) if mine.any() else UNDEFINED,
                precision=float(curves.precision[k, best]),
                recall=float(curves.recall[k, best]),
            )
        )
    present = [row for row in rows if row.instances]
    return EvalStats(
        numbers={name: float(value) for name, value in zip(STAT_NAMES, numbers, strict=True)},
        per_class=rows,
        precision=float(np.mean([row.precision for row in present])) if present else UNDEFINED,
        recall=float(np.mean([row.recall for row in present])) if present else UNDEFINED,
        confidence=float(curves.confidence[best]),
        images=len(truth.image_ids),
        instances=sum(row.instances for row in rows),
        pr_recall=np.linspace(0.0, 1.0, ordered.shape[1]),
        pr_precision=np.where(ordered[0].T < 0, np.nan, ordered[0].T),
        curves=curves,
        backend=backend,
        notes=list(notes),
    )


def format_stats(stats: EvalStats, *, per_class: bool = True) -> str:
    """The twelve numbers and the table by class as lines of text; '-' stands for undefined."""

    def show(value: float) -> str:
        return "-" if np.isnan(value) or value < 0 else f"{value:.3f}"

    width = max([len("all classes"), *(len(row.name) for row in stats.per_class)]) if per_class else len("all classes")
    head = f"{'class':<{width}}  images  objects  precision  recall  mAP50  mAP50-95"
    lines = [head]
    both = (stats.numbers["mAP50"], stats.numbers["mAP50-95"])
    rows = [("all classes", stats.images, stats.instances, stats.precision, stats.recall, *both)]
    if per_class:
        rows += [(r.name, r.images, r.instances, r.precision, r.recall, r.ap50, r.ap) for r in stats.per_class]
    for name, images, instances, precision, recall, ap50, ap in rows:
        lines.append(
            f"{name:<{width}}  {images:>6}  {instances:>7}  {show(precision):>9}  {show(recall):>6}  "
            f"{show(ap50):>5}  {show(ap):>8}"
        )
    lines.append(f"precision and recall at IoU 0.5 and confidence {stats.confidence:.3f}, where the mean F1 is highest")
    lines.append("  ".join(f"{name} {show(stats.numbers[name])}" for name in STAT_NAMES[:6]))
    lines.append("  ".join(f"{name} {show(stats.numbers[name])}" for name in STAT_NAMES[6:]))
    lines += [f"note: {note}" for note in stats.notes]
    return "\n".join(lines)


def confusion_matrix(truth: GroundTruth, predictions: np.ndarray) -> np.ndarray:
    """Counts (classes + 1, classes + 1) of true and found classes, the background last."""
    objects, crowd = truth.table()
    labels = truth.labels(predictions[:, 6].astype(np.int64))
    table = BoxTable(predictions[:, 0].astype(np.int64), predictions[:, 1:5], labels)
    return confusion_counts(table, predictions[:, 5], objects, crowd, num_classes=len(truth.categories))
