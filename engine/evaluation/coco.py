"""COCO evaluation of detections: the twelve numbers, the table by class, the confusion matrix.

The headline numbers are computed by pycocotools. After each epoch hotcoco computes the same numbers from arrays, about
a hundred times faster; an official evaluation runs both and notes any difference. Predictions are (n, 7) float64 arrays
with COCO's columns (image id, x, y, width, height, score, category id); JSON is only written to disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from core.files import replacing, write_text
from core.metrics import COCO, EVALUATION
from engine.evaluation.ground_truth import GroundTruth
from engine.evaluation.matching import BoxTable, ConfidenceCurves, confidence_curves, confusion_counts

STAT_NAMES = tuple(metric.key for metric in COCO)
UNDEFINED = -1.0  # COCO's value for an average over no objects
BOX_DECIMALS, SCORE_DECIMALS = 3, 5  # as written to predictions.json, and as scored


def write_predictions(path: str | os.PathLike, predictions: np.ndarray, truth: GroundTruth) -> None:
    """Write COCO result JSON, one detection per line.

    Boxes have 3 decimals and scores 5. `evaluate` rounds before scoring, so the file reproduces the same numbers.
    """
    with replacing(path, "w", encoding="utf-8") as file:
        file.write("[")
        id_of = truth.id_of
        for n, (key, x, y, width, height, score, category) in enumerate(predictions.tolist()):
            entry = {
                "image_id": id_of[int(key)],
                "category_id": int(category),
                "bbox": [round(value, BOX_DECIMALS) for value in (x, y, width, height)],
                "score": round(score, SCORE_DECIMALS),
            }
            file.write((",\n" if n else "\n") + json.dumps(entry))
        file.write("\n]\n")


def write_ground_truth(path: str | os.PathLike, truth: GroundTruth) -> None:
    """Write the objects of an evaluation as COCO JSON, with the image ids of predictions.json.

    It holds exactly what was scored: without what was skipped as damaged, with the classes of the training.
    """
    content, id_of = truth.as_coco(), truth.id_of
    for rows, key in (("images", "id"), ("annotations", "image_id")):
        for row in cast("list[dict[str, object]]", content[rows]):
            row[key] = id_of[cast(int, row[key])]
    write_text(path, json.dumps(content))


@dataclass(frozen=True)
class ClassRow:
    """One line of the table by class. `instances` excludes crowds; AP is -1 for a class without objects."""

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

    `numbers`: the twelve by name, -1 if undefined. `precision`, `recall`: means over classes at IoU 0.5 and at
    `confidence`, the threshold with the highest mean F1. `pr_precision` (classes, 101) over `pr_recall`: COCO's curve
    at IoU 0.5, NaN for classes without objects. `notes`: caveats for readers of the numbers.
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
        values = {**self.numbers, "precision": self.precision, "recall": self.recall}
        return {metric.key: values[metric.name] for metric in EVALUATION}


def coco_stats(truth: GroundTruth, predictions: np.ndarray, *, backend: str = "pycocotools") -> EvalStats:
    """COCO box evaluation of predictions, an (n, 7) array.

    `backend`: 'pycocotools' (the headline) or 'fast' (hotcoco). Raises ValueError for an unknown backend or a
    prediction on an image that is not in the ground truth.
    """
    predictions, notes = _checked(predictions, truth)
    runners = {"pycocotools": _run_pycocotools, "fast": _run_hotcoco}
    if backend not in runners:
        raise ValueError(f"backend {backend!r}, expected one of {', '.join(sorted(runners))}")
    numbers, precision = runners[backend](truth, predictions)
    return _assemble(truth, predictions, numbers, precision, backend=backend, notes=truth.notes + notes)


def differences(first: EvalStats, second: EvalStats, *, tolerance: float = 1e-12) -> dict[str, float]:
    """Which of the twelve numbers differ by more than `tolerance`, and by how much (second minus first)."""
    gaps = {name: second.numbers[name] - first.numbers[name] for name in STAT_NAMES}
    return {name: gap for name, gap in gaps.items() if not abs(gap) <= tolerance}


def official_stats(truth: GroundTruth, predictions: np.ndarray) -> EvalStats:
    """pycocotools' statistics, with a note if the fast backend differs."""
    stats = coco_stats(truth, predictions, backend="pycocotools")
    gaps = differences(stats, coco_stats(truth, predictions, backend="fast"))
    if gaps:
        listed = ", ".join(f"{name} {gap:+.2g}" for name, gap in gaps.items())
        stats.notes.append(f"the fast evaluation used during training differs from pycocotools: {listed}")
    return stats


def _checked(predictions: np.ndarray, truth: GroundTruth) -> tuple[np.ndarray, list[str]]:
    """Predictions as float64 (n, 7) of known categories, and a note on those left out."""
    rows = np.asarray(predictions, np.float64).reshape(-1, 7)
    known = np.isin(rows[:, 0], list(truth.key_of.values()))
    if not known.all():
        raise ValueError(f"predictions for image id {rows[~known][0, 0]:.0f}, which is not in the ground truth")
    unknown = truth.labels_of(rows[:, 6].astype(np.int64)) < 0
    if unknown.any():
        ids = sorted(set(rows[unknown, 6].astype(int).tolist()))[:5]
        return rows[~unknown], [f"{unknown.sum()} detections of categories {ids} left out: not in the ground truth"]
    return rows, []


def _run_pycocotools(truth: GroundTruth, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The twelve numbers and the precision array (IoU, recall, class, area, limit) by pycocotools."""
    from pycocotools.coco import COCO as CocoIndex
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference, detections = CocoIndex(), CocoIndex()
        reference.dataset = truth.as_coco()
        reference.createIndex()
        if len(predictions):
            detections = reference.loadRes(predictions)
        else:  # loadRes reads the first detection, so it fails without any
            detections.dataset = {**reference.dataset, "annotations": []}
            detections.createIndex()
        run = COCOeval(reference, detections, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats, np.float64), np.asarray(run.eval["precision"])


def _run_hotcoco(truth: GroundTruth, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The twelve numbers and the precision array by hotcoco, from arrays."""
    import hotcoco

    with contextlib.redirect_stdout(io.StringIO()):
        reference = hotcoco.COCO.from_arrays(
            [{"id": key} for key in truth.key_of.values()],
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
    return np.asarray(run.stats, np.float64), np.asarray((run.eval or {})["precision"])


def _assemble(
    truth: GroundTruth,
    predictions: np.ndarray,
    numbers: np.ndarray,
    precision: np.ndarray,
    *,
    backend: str,
    notes: list[str],
) -> EvalStats:
    """Combine the twelve numbers, the precision array and the matching of matching.py."""
    by_id = np.argsort(truth.category_ids)
    ordered = np.empty_like(precision[:, :, :, 0, -1])
    ordered[:, :, by_id] = precision[:, :, :, 0, -1]  # both libraries sort classes by category id
    objects, crowd = truth.table(), truth.crowd
    curves = confidence_curves(
        _detection_table(truth, predictions), predictions[:, 5], objects, crowd, num_classes=len(truth.names)
    )
    best = curves.best()
    rows = []
    for k, (name, category_id) in enumerate(zip(truth.names, truth.category_ids, strict=True)):
        mine = (objects.label == k) & ~crowd
        values = ordered[:, :, k]
        rows.append(
            ClassRow(
                name=name,
                category_id=category_id,
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


def confusion_matrix(truth: GroundTruth, predictions: np.ndarray) -> np.ndarray:
    """Confusion matrix (classes + 1, classes + 1), the last row and column for the background."""
    table = _detection_table(truth, predictions)
    return confusion_counts(table, predictions[:, 5], truth.table(), truth.crowd, num_classes=len(truth.names))


def _detection_table(truth: GroundTruth, predictions: np.ndarray) -> BoxTable:
    labels = truth.labels_of(predictions[:, 6].astype(np.int64))
    return BoxTable(predictions[:, 0].astype(np.int64), predictions[:, 1:5], labels)
