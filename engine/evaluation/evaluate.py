"""Run a detector over a loader and score its detections; measure its speed and losses."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

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


@dataclass(frozen=True)
class Detected:
    """What `detect` found in a batch: prediction rows as in EvalResult, sums of the loss terms over images."""

    images: int
    predictions: np.ndarray
    losses: dict[str, float]
    crc32: int
    milliseconds: dict[str, float]
    drawn: DrawnBatch | None  # of the first batches


class _Stopwatch:
    """Milliseconds, waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        synchronize(self.device)
        return time.perf_counter() * 1e3


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
    found = detect(model, batches, truth=truth, nms=nms, amp_dtype=amp_dtype, loss=loss, merge_classes=merge_classes)
    return score(found, truth=truth, nms=nms, official=official)


def detect(
    model: DetectorModel,
    batches: Iterable[Batch],
    *,
    truth: GroundTruth,
    nms: NmsOptions,
    amp_dtype: torch.dtype | None = None,
    loss: bool = False,
    merge_classes: bool = False,
) -> list[Detected]:
    """Detect on every image, as for `evaluate`; what was found in each batch."""
    watch = _Stopwatch(next(model.parameters()).device)
    found: list[Detected] = []
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            outputs, detections, spent = _detect(model, batch, amp_dtype, nms, merge_classes, watch)
            terms = _losses(model, outputs, batch, watch.device) if loss else {}
            found.append(
                Detected(
                    images=len(batch.images),
                    predictions=_batch_rows(detections, batch, truth),
                    losses={name: value * len(batch.images) for name, value in terms.items()},
                    crc32=batch.crc32,
                    milliseconds=spent,
                    drawn=_for_drawing(batch, detections) if len(found) < DRAWN_BATCHES else None,
                )
            )
    finally:
        model.train(was_training)
    return found


def score(found: Sequence[Detected], *, truth: GroundTruth, nms: NmsOptions, official: bool = False) -> EvalResult:
    """Score what was found in all batches, in their order."""
    predictions = np.concatenate([each.predictions for each in found]) if found else np.zeros((0, 7))
    totals: dict[str, float] = {}
    crc32 = 0
    for each in found:
        crc32 = zlib.crc32(each.crc32.to_bytes(4), crc32)
        for name, value in each.losses.items():
            totals[name] = totals.get(name, 0.0) + value
    if official:
        stats = official_stats(truth, predictions, max_det=nms.max_det)
    else:
        stats = coco_stats(truth, predictions, backend="fast", max_det=nms.max_det)
    images = sum(each.images for each in found)
    return EvalResult(
        stats=stats,
        predictions=predictions,
        truth=truth,
        speed=_speed(found),
        losses={name: value / images for name, value in totals.items()},
        confusion=confusion_matrix(truth, predictions),
        drawn=[each.drawn for each in found if each.drawn is not None][:DRAWN_BATCHES],
        batches_crc32=crc32,
    )


def in_turn(parts: Sequence[Sequence[Detected]]) -> list[Detected]:
    """The batches of several processes of which each had every n-th, in the order of a single process."""
    return [each for turn in zip_longest(*parts) for each in turn if each is not None]


def _speed(found: Sequence[Detected]) -> dict[str, float]:
    """Mean milliseconds per image by part; the first batch is left out if there are others."""
    used = found[1:] or found
    images = sum(each.images for each in used)
    parts = ("preprocess", "inference", "nms")
    return {part: sum(each.milliseconds[part] for each in used) / images if images else float("nan") for part in parts}


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
) -> tuple[Outputs, list[Detections], dict[str, float]]:
    """Raw outputs, the detections of each image on the CPU, and the milliseconds of each part."""
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
    return outputs, detections, spent


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


def _batch_rows(detections: list[Detections], batch: Batch, truth: GroundTruth) -> np.ndarray:
    """The prediction rows of a batch."""
    tables = []
    for found, geometry, image_id in zip(detections, batch.geometries, batch.image_ids, strict=True):
        corners = geometry.to_image(found.boxes.numpy())
        tables.append(to_rows(corners, found.scores.numpy(), found.labels.numpy(), image_id=image_id, truth=truth))
    return np.concatenate(tables) if tables else np.zeros((0, 7))


def to_rows(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, *, image_id: int | str, truth: GroundTruth
) -> np.ndarray:
    """Detections in an image, with boxes (n, 4) xyxy in its pixels, as prediction rows, rounded as written to JSON."""
    if image_id not in truth.key_of:
        raise ValueError(f"the loader returned image id {image_id!r}, which is not in the ground truth")
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    table = np.empty((len(corners), 7))
    table[:, 0] = truth.key_of[image_id]
    table[:, 1:3] = np.round(corners[:, :2], BOX_DECIMALS)
    table[:, 3:5] = np.round(corners[:, 2:] - corners[:, :2], BOX_DECIMALS)
    table[:, 5] = np.round(scores.astype(np.float64), SCORE_DECIMALS)
    table[:, 6] = np.array(truth.category_ids, np.int64)[labels]
    return table[(table[:, 3:5] > 0).all(axis=1)]  # a box outside the image is empty after clipping


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
