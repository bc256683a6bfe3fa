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
from typing import Any, cast

import numpy as np

from core.files import replacing, write_text
from core.metrics import COCO, EVALUATION
from engine.evaluation.ground_truth import RECALLS, GroundTruth
from engine.evaluation.matching import COCO_LIMIT, BoxTable, ConfidenceCurves, confidence_curves, confusion_counts

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
    at IoU 0.5, NaN for classes without objects. `notes`: caveats for readers of the numbers. `at_max_det`: mAP50-95 and
    others without COCO's limit of 100 detections per image and class, if objects exceed it, from pycocotools only.
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
    at_max_det: dict[str, float] = field(default_factory=dict)

    def columns(self) -> dict[str, float]:
        """The numbers under the column names of results.csv."""
        values = {**self.numbers, "precision": self.precision, "recall": self.recall}
        return {metric.key: values[metric.name] for metric in EVALUATION}


def coco_stats(
    truth: GroundTruth, predictions: np.ndarray, *, backend: str = "pycocotools", max_det: int | None = None
) -> EvalStats:
    """COCO box evaluation of predictions, an (n, 7) array.

    `backend`: 'pycocotools' (the headline) or 'fast' (hotcoco). `max_det`: the number of detections to which each image
    was limited, for the notes. Raises ValueError for an unknown backend or a prediction on an image that is not in the
    ground truth.
    """
    predictions, notes = _checked(predictions, truth)
    runners = {"pycocotools": _run_pycocotools, "fast": _run_hotcoco}
    if backend not in runners:
        raise ValueError(f"backend {backend!r}, expected one of {', '.join(sorted(runners))}")
    found = runners[backend](truth, predictions)
    notes = [*truth.notes, *truth.limit_notes(max_det), *notes]
    return _assemble(truth, predictions, found, backend=backend, notes=notes)


def differences(first: EvalStats, second: EvalStats, *, tolerance: float = 1e-12) -> dict[str, float]:
    """Which of the twelve numbers differ by more than `tolerance`, and by how much (second minus first)."""
    gaps = {name: second.numbers[name] - first.numbers[name] for name in STAT_NAMES}
    return {name: gap for name, gap in gaps.items() if not abs(gap) <= tolerance}


def official_stats(truth: GroundTruth, predictions: np.ndarray, *, max_det: int | None = None) -> EvalStats:
    """pycocotools' statistics, with a note if the fast backend differs; see `coco_stats`."""
    stats = coco_stats(truth, predictions, backend="pycocotools", max_det=max_det)
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


@dataclass(frozen=True)
class _Found:
    """What a library computes: the twelve numbers, and precision (IoU, recall, class, area) at COCO's limit.

    `unlimited`: precision without that limit, None if no class has more objects in an image.
    """

    numbers: np.ndarray
    precision: np.ndarray
    unlimited: np.ndarray | None = None


def _run_pycocotools(truth: GroundTruth, predictions: np.ndarray) -> _Found:
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
        beyond = bool(truth.limit_notes())
        if beyond:  # one limit more; the numbers are those at the third
            run.params.maxDets = [*run.params.maxDets, max(len(predictions), COCO_LIMIT + 1)]
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = np.asarray(run.eval["precision"])
    numbers = np.asarray(run.stats, np.float64)
    return _Found(numbers, precision[..., 2], precision[..., 3] if beyond else None)


def hotcoco_run(truth: GroundTruth, predictions: np.ndarray) -> Any:
    """hotcoco's evaluation, matched but not yet accumulated; detections are numbered from 1, as objects are."""
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
    return run


def _run_hotcoco(truth: GroundTruth, predictions: np.ndarray) -> _Found:
    run = hotcoco_run(truth, predictions)
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
        run.summarize()
    return _Found(np.asarray(run.stats, np.float64), np.asarray((run.eval or {})["precision"])[..., -1])


def _assemble(
    truth: GroundTruth, predictions: np.ndarray, found: _Found, *, backend: str, notes: list[str]
) -> EvalStats:
    """Combine the twelve numbers, the precision array and the matching of matching.py."""
    by_id = np.argsort(truth.category_ids)
    ordered = np.empty_like(found.precision[:, :, :, 0])
    ordered[:, :, by_id] = found.precision[:, :, :, 0]  # both libraries sort classes by category id
    objects, crowd = truth.table(), truth.crowd
    curves = _curves(truth, predictions, COCO_LIMIT)
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
    beyond = {} if found.unlimited is None else _at_max_det(truth, predictions, found.unlimited)
    if beyond:
        listed = ", ".join(f"{name} {value:.4f}" for name, value in beyond.items())
        notes = [*notes, f"without COCO's limit, with all detections up to max_det: {listed}"]
    return EvalStats(
        numbers={name: float(value) for name, value in zip(STAT_NAMES, found.numbers, strict=True)},
        per_class=rows,
        precision=float(np.mean([row.precision for row in present])) if present else UNDEFINED,
        recall=float(np.mean([row.recall for row in present])) if present else UNDEFINED,
        confidence=float(curves.confidence[best]),
        images=len(truth.image_ids),
        instances=sum(row.instances for row in rows),
        pr_recall=RECALLS,
        pr_precision=np.where(ordered[0].T < 0, np.nan, ordered[0].T),
        curves=curves,
        backend=backend,
        notes=list(notes),
        at_max_det=beyond,
    )


def _at_max_det(truth: GroundTruth, predictions: np.ndarray, precision: np.ndarray) -> dict[str, float]:
    """The numbers without COCO's limit: mAP from the precision array (IoU, recall, class, area), precision, recall."""
    everywhere = precision[:, :, :, 0]
    parts = {"mAP50-95": everywhere, "mAP50": everywhere[0], "mAP75": everywhere[5]}
    curves = _curves(truth, predictions, max(1, len(predictions)))
    best = curves.best()
    return {name: float(part[part > UNDEFINED].mean()) for name, part in parts.items()} | {
        "precision": float(np.nanmean(curves.precision[:, best])),
        "recall": float(np.nanmean(curves.recall[:, best])),
    }


def _curves(truth: GroundTruth, predictions: np.ndarray, limit: int) -> ConfidenceCurves:
    table, scores = _detection_table(truth, predictions), predictions[:, 5]
    return confidence_curves(table, scores, truth.table(), truth.crowd, num_classes=len(truth.names), limit=limit)


def confusion_matrix(truth: GroundTruth, predictions: np.ndarray) -> np.ndarray:
    """Confusion matrix (classes + 1, classes + 1), the last row and column for the background."""
    table = _detection_table(truth, predictions)
    return confusion_counts(table, predictions[:, 5], truth.table(), truth.crowd, num_classes=len(truth.names))


def _detection_table(truth: GroundTruth, predictions: np.ndarray) -> BoxTable:
    labels = truth.labels_of(predictions[:, 6].astype(np.int64))
    return BoxTable(predictions[:, 0].astype(np.int64), predictions[:, 1:5], labels)
