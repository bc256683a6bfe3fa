"""Matching of detections to objects, for the confidence curves and the confusion matrix.

Average precision is computed by pycocotools (coco.py). This module adds precision, recall and F1 as functions of the
confidence threshold, and the confusion between classes. It works on float64 arrays in COCO's xywh format, so that
borderline overlaps are decided as in pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

COCO_LIMIT = 100  # detections of an image and class that COCO's numbers count
CONFIDENCES = np.linspace(0.0, 1.0, 1001)  # thresholds at which the confidence curves are read


@dataclass(frozen=True)
class BoxTable:
    """Boxes of many images: `image` (n,) integer keys, `boxes` (n, 4) xywh pixels, `label` (n,) class positions."""

    image: np.ndarray
    boxes: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class ConfidenceCurves:
    """Precision, recall and F1 at IoU 0.5, each (classes, 1001) over `confidence`; NaN rows for absent classes."""

    confidence: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def best(self) -> int:
        """Position of the threshold at which the F1 averaged over classes is highest (the lowest such threshold)."""
        present = ~np.isnan(self.f1).all(axis=1)
        return int(np.argmax(self.f1[present].mean(axis=0))) if present.any() else 0


def intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection areas of all pairs of xywh boxes: (n, 4), (m, 4) -> (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:])
    return np.clip(high - low, 0.0, None).prod(axis=-1)


def _shared_images(first: BoxTable, second: BoxTable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of the boxes of each image that occurs in both tables."""
    first_order = np.argsort(first.image, kind="stable")
    second_order = np.argsort(second.image, kind="stable")
    keys = np.intersect1d(first.image, second.image)
    first_from, first_to = (np.searchsorted(first.image[first_order], keys, side) for side in ("left", "right"))
    second_from, second_to = (np.searchsorted(second.image[second_order], keys, side) for side in ("left", "right"))
    for a, b, c, d in zip(first_from, first_to, second_from, second_to, strict=True):
        yield first_order[a:b], second_order[c:d]


def overlapping_pairs(
    detections: BoxTable, truths: BoxTable, *, minimum: float, same_class: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one image with IoU of at least `minimum`: (detection position, truth position, IoU)."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for rows, columns in _shared_images(detections, truths):
        boxes, others = detections.boxes[rows], truths.boxes[columns]
        shared = intersections(boxes, others)
        union = boxes[:, 2:].prod(axis=1)[:, None] + others[:, 2:].prod(axis=1)[None] - shared
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        near = iou >= minimum
        if same_class:
            near &= detections.label[rows][:, None] == truths.label[columns][None]
        i, j = np.nonzero(near)
        found.append((rows[i], columns[j], iou[i, j]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    d, t, iou = (np.concatenate(part) for part in zip(*found, strict=True))
    return d, t, iou


def inside_crowd(detections: BoxTable, crowds: BoxTable, *, minimum: float, same_class: bool) -> np.ndarray:
    """Detections of which at least the fraction `minimum` lies in a crowd box, COCO's criterion: (n,) bool."""
    inside = np.zeros(len(detections), bool)
    for rows, columns in _shared_images(detections, crowds):
        area = detections.boxes[rows][:, 2:].prod(axis=1)[:, None]
        shared = intersections(detections.boxes[rows], crowds.boxes[columns])
        near = np.divide(shared, area, out=np.zeros_like(shared), where=area > 0) >= minimum
        if same_class:
            near &= detections.label[rows][:, None] == crowds.label[columns][None]
        inside[rows] = near.any(axis=1)
    return inside


def take_in_order(first: np.ndarray, second: np.ndarray, order: np.ndarray) -> tuple[list[int], list[int]]:
    """Greedy one-to-one matching: go through the pairs in `order` and keep those with both members unmatched."""
    used_first: set[int] = set()
    used_second: set[int] = set()
    kept: tuple[list[int], list[int]] = ([], [])
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if a in used_first or b in used_second:
            continue
        used_first.add(a)
        used_second.add(b)
        kept[0].append(a)
        kept[1].append(b)
    return kept


def _best_per_image_and_class(detections: BoxTable, scores: np.ndarray, limit: int) -> np.ndarray:
    """Positions of the `limit` highest-scoring detections of each image and class, sorted by score."""
    order = np.lexsort((-scores, detections.label, detections.image))
    image, label = detections.image[order], detections.label[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (image[1:] != image[:-1]) | (label[1:] != label[:-1])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    kept = order[np.arange(len(order)) - first < limit]
    return kept[np.argsort(-scores[kept], kind="stable")]


def found_objects(
    detections: BoxTable,
    scores: np.ndarray,
    truths: BoxTable,
    crowd: np.ndarray,
    *,
    iou: float = 0.5,
    limit: int = COCO_LIMIT,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """COCO's greedy matching at one IoU: (positions by falling score; true positive; ignored because in a crowd).

    In order of score, each detection is matched to the unmatched object of its class with the highest IoU; at most
    `limit` detections of an image and class take part, as in pycocotools.
    """
    kept = _best_per_image_and_class(detections, scores, limit)
    table = BoxTable(detections.image[kept], detections.boxes[kept], detections.label[kept])
    single, crowds = (BoxTable(truths.image[m], truths.boxes[m], truths.label[m]) for m in (~crowd, crowd))
    d, t, overlap = overlapping_pairs(table, single, minimum=iou, same_class=True)
    # For equal overlaps pycocotools takes the later object.
    order = np.lexsort((-t, -overlap, d))
    matched, _ = take_in_order(d, t, order)
    true_positive = np.zeros(len(kept), bool)
    true_positive[matched] = True
    ignored = inside_crowd(table, crowds, minimum=iou, same_class=True) & ~true_positive
    return kept, true_positive, ignored


def confidence_curves(
    detections: BoxTable,
    scores: np.ndarray,
    truths: BoxTable,
    crowd: np.ndarray,
    *,
    num_classes: int,
    limit: int = COCO_LIMIT,
) -> ConfidenceCurves:
    """Precision, recall and F1 at IoU 0.5 against the confidence threshold; precision is 0 without detections."""
    kept, true_positive, ignored = found_objects(detections, scores, truths, crowd, limit=limit)
    objects = np.bincount(truths.label[~crowd], minlength=num_classes)
    precision, recall = (np.full((num_classes, len(CONFIDENCES)), np.nan) for _ in range(2))
    label, score = detections.label[kept], scores[kept]
    for k in np.flatnonzero(objects):
        mine = (label == k) & ~ignored
        hits = np.concatenate(([0], np.cumsum(true_positive[mine])))
        count = np.searchsorted(-score[mine], -CONFIDENCES, side="right")  # detections at or above the threshold
        precision[k] = hits[count] / np.maximum(count, 1)
        recall[k] = hits[count] / objects[k]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
    return ConfidenceCurves(CONFIDENCES, precision, recall, f1)


def confusion_counts(
    detections: BoxTable,
    scores: np.ndarray,
    truths: BoxTable,
    crowd: np.ndarray,
    *,
    num_classes: int,
    conf: float = 0.25,
    iou: float = 0.45,
) -> np.ndarray:
    """Confusion matrix (classes + 1, classes + 1), rows predicted, columns true, the last of each is background.

    Detections above `conf` and objects are matched by falling IoU regardless of class, as in other YOLO projects. An
    unmatched detection counts as background unless it lies in a crowd; an unmatched object as missed.
    """
    sure = scores > conf
    table = BoxTable(detections.image[sure], detections.boxes[sure], detections.label[sure])
    single, crowds = (BoxTable(truths.image[m], truths.boxes[m], truths.label[m]) for m in (~crowd, crowd))
    d, t, overlap = overlapping_pairs(table, single, minimum=iou, same_class=False)
    order = np.lexsort((d, -overlap))
    paired, found = take_in_order(d, t, order)
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(counts, (table.label[paired], single.label[found]), 1)
    alone = ~inside_crowd(table, crowds, minimum=iou, same_class=False)
    alone[paired] = False
    missed = np.ones(len(single), bool)
    missed[found] = False
    counts[:num_classes, num_classes] = np.bincount(table.label[alone], minlength=num_classes)
    counts[num_classes, :num_classes] = np.bincount(single.label[missed], minlength=num_classes)
    return counts
