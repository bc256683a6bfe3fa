"""A model run over a loader: its detections as COCO has them, scored, with its speed and losses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core.progress import Progress
from engine.evaluation.coco import BOX_DECIMALS, SCORE_DECIMALS, EvalStats, coco_stats, confusion_matrix, official_stats
from engine.evaluation.ground_truth import GroundTruth


@dataclass(frozen=True)
class Sample:
    """A validation batch kept for pictures: network images (B, 3, H, W) uint8 with boxes in network pixels."""

    images: torch.Tensor
    paths: list[str]
    target_boxes: list[np.ndarray]
    target_labels: list[np.ndarray]
    boxes: list[np.ndarray]
    scores: list[np.ndarray]
    labels: list[np.ndarray]


@dataclass(frozen=True)
class EvalResult:
    """What `evaluate` found.

    `predictions`: (n, 7) rows (image key, x, y, width, height, score, category id), rounded as written to JSON.
    `speed`: milliseconds an image for preprocess (NaN where the loader does not say), inference and nms.
    `losses`: mean loss parts over images, empty unless asked for. `confusion`: (classes + 1, classes + 1) counts.
    """

    stats: EvalStats
    predictions: np.ndarray
    truth: GroundTruth
    speed: dict[str, float]
    losses: dict[str, float]
    confusion: np.ndarray
    samples: list[Sample]

    @property
    def names(self) -> list[str]:
        """Class names."""
        return self.truth.names


class _Stopwatch:
    """Milliseconds by part; waits for the device at both ends, and leaves the first batch out where there are more."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batches: list[tuple[int, dict[str, float]]] = []

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() * 1e3

    def mean(self) -> dict[str, float]:
        used = self.batches[1:] or self.batches
        images = sum(count for count, _ in used)
        parts = ("preprocess", "inference", "nms")
        return {part: sum(spent[part] for _, spent in used) / images if images else float("nan") for part in parts}


def evaluate(
    model: Any,
    loader: Iterable,
    *,
    device: torch.device | str,
    truth: Any,
    conf: float = 0.001,
    iou: float = 0.7,
    max_det: int = 300,
    amp_dtype: torch.dtype | None = None,
    progress: bool = True,
    official: bool = False,
    loss: bool = False,
    single_cls: bool = False,
    pictures: int = 3,
    suppress: Callable | None = None,
) -> EvalResult:
    """Detect on every image of a loader and score the detections; the result does not depend on the batch size.

    `model`: a detector (forward, decode, loss, nms). `loader` yields batches with images, targets, image_ids,
    geometries and paths. `truth`: the loaded data set (`.source`, `.image_ids`, `.category_ids`, `.classes`) or a
    ready `GroundTruth`, which saves reading the JSON again each epoch. `official`: pycocotools instead of hotcoco.
    `suppress` stands in for `model.nms`. `pictures`: how many batches to keep for drawing.
    """
    device = torch.device(device)
    reference = truth if isinstance(truth, GroundTruth) else GroundTruth.from_annotations(truth, single_cls=single_cls)
    category_ids = np.array([category["id"] for category in reference.categories], np.int64)
    if not isinstance(truth, GroundTruth):
        category_ids = np.array(truth.category_ids, np.int64)
    suppress = suppress if suppress is not None else model.nms
    options = {"conf": conf, "iou": iou, "max_det": max_det, "multi_label": True}
    watch, rows, seen = _Stopwatch(device), [], 0
    samples: list[Sample] = []
    totals: dict[str, float] = {}
    was_training = model.training
    model.eval()
    try:
        for batch in _shown(loader, progress):
            outputs, detections = _detect(model, batch, device, amp_dtype, suppress, options, watch)
            if loss:
                for name, value in _losses(model, outputs, batch, device).items():
                    totals[name] = totals.get(name, 0.0) + value * len(batch.images)
            rows.append(_to_rows(detections, batch, category_ids, reference))
            seen += len(batch.images)
            if len(samples) < pictures:
                samples.append(_keep(batch, detections))
    finally:
        model.train(was_training)
    predictions = np.concatenate(rows) if rows else np.zeros((0, 7))
    stats = official_stats(reference, predictions) if official else coco_stats(reference, predictions, backend="fast")
    return EvalResult(
        stats=stats,
        predictions=predictions,
        truth=reference,
        speed=watch.mean(),
        losses={name: value / seen for name, value in totals.items()},
        confusion=confusion_matrix(reference, predictions),
        samples=samples,
    )


def _shown(loader: Any, progress: bool) -> Iterator[Any]:
    """The loader's batches, with a progress bar where asked for."""
    if not progress:
        yield from loader
        return
    with Progress(len(loader), title="evaluating") as bar:
        for batch in loader:
            yield batch
            bar.update()


@torch.no_grad()  # not inference_mode: tensors a model keeps (anchor points) must stay usable in training
def _detect(
    model: Any,
    batch: Any,
    device: torch.device,
    amp_dtype: torch.dtype | None,
    suppress: Callable,
    options: dict,
    watch,
) -> tuple[Any, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Raw outputs and each image's (boxes xyxy network pixels, scores, labels) on the CPU, timed by part."""
    start = watch.now()
    images = batch.images.to(device, non_blocking=True).to(_float_type(model)) / 255
    with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        outputs = model(images)
    boxes, scores = model.decode(outputs)
    middle = watch.now()
    found = suppress(boxes, scores, **options)
    counts = [len(one.scores) for one in found]
    parts = [torch.cat([getattr(one, name) for one in found]).cpu() for name in ("boxes", "scores", "labels")]
    end = watch.now()
    spent = {"preprocess": getattr(batch, "preprocess_ms", None), "inference": middle - start, "nms": end - middle}
    spent["preprocess"] = float("nan") if spent["preprocess"] is None else float(spent["preprocess"])
    watch.batches.append((len(images), spent))
    split = (torch.split(part, counts) for part in parts)
    detections = [(b.float().numpy(), s.float().numpy(), k.numpy()) for b, s, k in zip(*split, strict=True)]
    return outputs, detections


def _float_type(model: nn.Module) -> torch.dtype:
    """The type of the weights, which the images must have."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@torch.no_grad()
def _losses(model: Any, outputs: Any, batch: Any, device: torch.device) -> dict[str, float]:
    """The loss parts of a batch, outside autocast as in training."""
    _, items = model.loss(outputs, batch.targets.to(device))
    return {name: float(value) for name, value in items.items()}


def _to_rows(detections: list, batch: Any, category_ids: np.ndarray, truth: GroundTruth) -> np.ndarray:
    """One batch's detections as prediction rows in pixels of the original images, rounded as they are written."""
    rows = []
    for (boxes, scores, labels), geometry, identity in zip(detections, batch.geometries, batch.image_ids, strict=True):
        if identity not in truth.key_of:
            raise ValueError(f"the loader gave image id {identity!r}, which the ground truth does not have")
        corners = np.asarray(geometry.to_image(boxes), np.float64).reshape(-1, 4)
        table = np.empty((len(corners), 7))
        table[:, 0] = truth.key_of[identity]
        table[:, 1:3] = np.round(corners[:, :2], BOX_DECIMALS)
        table[:, 3:5] = np.round(corners[:, 2:] - corners[:, :2], BOX_DECIMALS)
        table[:, 5] = np.round(scores.astype(np.float64), SCORE_DECIMALS)
        table[:, 6] = category_ids[labels]
        rows.append(table[(table[:, 3:5] > 0).all(axis=1)])  # outside the image: nothing is left after clipping
    return np.concatenate(rows) if rows else np.zeros((0, 7))


def _keep(batch: Any, detections: list) -> Sample:
    """The first 16 images of a batch with what to draw on them."""
    count = min(16, len(batch.images))
    targets = batch.targets
    masks = [targets.mask[i].cpu().numpy().astype(bool) for i in range(count)]
    return Sample(
        images=batch.images[:count].cpu(),
        paths=[str(path) for path in batch.paths[:count]],
        target_boxes=[targets.boxes[i].cpu().numpy()[m] for i, m in enumerate(masks)],
        target_labels=[targets.labels[i].cpu().numpy()[m] for i, m in enumerate(masks)],
        boxes=[boxes for boxes, _, _ in detections[:count]],
        scores=[scores for _, scores, _ in detections[:count]],
        labels=[labels for _, _, labels in detections[:count]],
    )
