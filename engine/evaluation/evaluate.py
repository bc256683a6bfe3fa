"""Run a detector over a loader and score its detections; measure its speed and losses."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from core.device import synchronize
from core.options import NmsOptions
from core.progress import Progress
from core.types import Batch, Detections, DetectorModel, Outputs
from engine.evaluation.coco import BOX_DECIMALS, SCORE_DECIMALS, EvalStats, coco_stats, confusion_matrix, official_stats
from engine.evaluation.ground_truth import GroundTruth

DRAWN_BATCHES = 3
DRAWN_IMAGES = 16  # of a batch


@dataclass(frozen=True)
class DrawnBatch:
    """A validation batch kept for pictures: network images (B, 3, H, W) uint8 with boxes in network pixels."""

    images: torch.Tensor
    paths: list[str]
    target_boxes: list[np.ndarray]
    target_labels: list[np.ndarray]
    detections: list[Detections]


@dataclass(frozen=True)
class EvalResult:
    """The result of `evaluate`.

    `predictions`: (n, 7) rows (image key, x, y, width, height, score, category id), rounded as written to JSON.
    `speed`: milliseconds per image for preprocess (NaN if images come preprocessed from a cache), inference and nms.
    `losses`: mean loss terms over images, empty unless requested. `confusion`: (classes + 1, classes + 1) counts.
    `batches_crc32`: over the checksums of the batches, which shows that two evaluations saw the same images.
    """

    stats: EvalStats
    predictions: np.ndarray
    truth: GroundTruth
    speed: dict[str, float]
    losses: dict[str, float]
    confusion: np.ndarray
    drawn: list[DrawnBatch]
    batches_crc32: int = 0


class _Stopwatch:
    """Milliseconds by part, waiting for the device; the mean leaves out the first batch if there are others."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batches: list[tuple[int, dict[str, float]]] = []

    def now(self) -> float:
        synchronize(self.device)
        return time.perf_counter() * 1e3

    def mean(self) -> dict[str, float]:
        used = self.batches[1:] or self.batches
        images = sum(count for count, _ in used)
        parts = ("preprocess", "inference", "nms")
        return {part: sum(spent[part] for _, spent in used) / images if images else float("nan") for part in parts}


def evaluate(
    model: DetectorModel,
    batches: Iterable[Batch],
    *,
    truth: GroundTruth,
    nms: NmsOptions,
    amp_dtype: torch.dtype | None = None,
    official: bool = False,
    loss: bool = False,
    merge_classes: bool = False,
) -> EvalResult:
    """Detect on every image and score the detections; the result does not depend on the batch size.

    `official`: score with pycocotools instead of hotcoco. `loss`: also compute the mean loss terms.
    `merge_classes`: the ground truth has a single class, and the score of a box is that of its best class.
    """
    device = next(model.parameters()).device
    watch, rows, seen, crc32 = _Stopwatch(device), [], 0, 0
    drawn: list[DrawnBatch] = []
    totals: dict[str, float] = {}
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            outputs, detections = _detect(model, batch, amp_dtype, nms, merge_classes, watch)
            if loss:
                for name, value in _losses(model, outputs, batch, device).items():
                    totals[name] = totals.get(name, 0.0) + value * len(batch.images)
            rows.append(_to_rows(detections, batch, truth))
            seen += len(batch.images)
            crc32 = zlib.crc32(batch.crc32.to_bytes(4), crc32)
            if len(drawn) < DRAWN_BATCHES:
                drawn.append(_for_drawing(batch, detections))
    finally:
        model.train(was_training)
    predictions = np.concatenate(rows) if rows else np.zeros((0, 7))
    if official:
        stats = official_stats(truth, predictions, max_det=nms.max_det)
    else:
        stats = coco_stats(truth, predictions, backend="fast", max_det=nms.max_det)
    return EvalResult(
        stats=stats,
        predictions=predictions,
        truth=truth,
        speed=watch.mean(),
        losses={name: value / seen for name, value in totals.items()},
        confusion=confusion_matrix(truth, predictions),
        drawn=drawn,
        batches_crc32=crc32,
    )


def with_progress(batches: Iterable[Batch], *, total: int) -> Iterator[Batch]:
    """The batches, with a progress bar."""
    with Progress(total, title="evaluating") as bar:
        for batch in batches:
            yield batch
            bar.update()


@torch.no_grad()  # not inference_mode: tensors a model keeps (anchor points) must stay usable in training
def _detect(
    model: DetectorModel,
    batch: Batch,
    amp_dtype: torch.dtype | None,
    nms: NmsOptions,
    merge_classes: bool,
    watch: _Stopwatch,
) -> tuple[Outputs, list[Detections]]:
    """Raw outputs and the detections of each image on the CPU, timed by part."""
    device, start = watch.device, watch.now()
    images = batch.images.to(device, non_blocking=True).to(_float_type(model)) / 255
    with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        outputs: Outputs = model(images)
    boxes, scores = model.decode(outputs)
    if merge_classes:
        scores = scores.amax(dim=-1, keepdim=True)
    middle = watch.now()
    detections = _to_cpu(model.nms(boxes, scores, nms))
    spent = {"preprocess": batch.preprocess_ms, "inference": middle - start, "nms": watch.now() - middle}
    watch.batches.append((len(images), spent))
    return outputs, detections


def _to_cpu(detections: list[Detections]) -> list[Detections]:
    """Copy detections to the CPU, all images at once: each copy waits for a GPU."""
    counts = [len(each.scores) for each in detections]
    boxes = torch.cat([each.boxes for each in detections]).cpu().float().split(counts)
    scores = torch.cat([each.scores for each in detections]).cpu().float().split(counts)
    labels = torch.cat([each.labels for each in detections]).cpu().split(counts)
    return [Detections(*parts) for parts in zip(boxes, scores, labels, strict=True)]


def _float_type(model: DetectorModel) -> torch.dtype:
    """The floating-point type of the weights, which the images must have."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@torch.no_grad()
def _losses(model: DetectorModel, outputs: Outputs, batch: Batch, device: torch.device) -> dict[str, float]:
    """The loss terms of a batch, computed outside autocast as in training."""
    _, terms = model.loss(outputs, batch.targets.to(device))
    return {name: float(value) for name, value in terms.items()}


def _to_rows(detections: list[Detections], batch: Batch, truth: GroundTruth) -> np.ndarray:
    """The detections of a batch as prediction rows in pixels of the original images, rounded as written to JSON."""
    category_ids = np.array(truth.category_ids, np.int64)
    tables = []
    for found, geometry, image_id in zip(detections, batch.geometries, batch.image_ids, strict=True):
        if image_id not in truth.key_of:
            raise ValueError(f"the loader returned image id {image_id!r}, which is not in the ground truth")
        corners = np.asarray(geometry.to_image(found.boxes.numpy()), np.float64).reshape(-1, 4)
        table = np.empty((len(corners), 7))
        table[:, 0] = truth.key_of[image_id]
        table[:, 1:3] = np.round(corners[:, :2], BOX_DECIMALS)
        table[:, 3:5] = np.round(corners[:, 2:] - corners[:, :2], BOX_DECIMALS)
        table[:, 5] = np.round(found.scores.numpy().astype(np.float64), SCORE_DECIMALS)
        table[:, 6] = category_ids[found.labels.numpy()]
        tables.append(table[(table[:, 3:5] > 0).all(axis=1)])  # a box outside the image is empty after clipping
    return np.concatenate(tables) if tables else np.zeros((0, 7))


def _for_drawing(batch: Batch, detections: list[Detections]) -> DrawnBatch:
    """The first images of a batch with their targets and detections."""
    count = min(DRAWN_IMAGES, len(batch.images))
    targets = batch.targets
    masks = [targets.mask[i].cpu().numpy().astype(bool) for i in range(count)]
    return DrawnBatch(
        images=batch.images[:count].cpu(),
        paths=[str(path) for path in batch.paths[:count]],
        target_boxes=[targets.boxes[i].cpu().numpy()[mask] for i, mask in enumerate(masks)],
        target_labels=[targets.labels[i].cpu().numpy()[mask] for i, mask in enumerate(masks)],
        detections=detections[:count],
    )
