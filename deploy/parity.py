"""How far an exported file's results are from those of the PyTorch network, on real images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from core.arguments import ImageSize
from core.options import NmsOptions
from core.types import Detections, DetectorModel
from deploy.metadata import Precision
from deploy.runtime import DeployedDetector

LEAST_SCORE = 0.001  # of a box that the comparison before NMS looks at: val.py's confidence threshold
CONFIDENCES = (0.25, 0.05, 0.01, LEAST_SCORE)  # the first at which the network detects anything is used
CHAINS = 500  # detections, of which one may lack a counterpart: suppression by boxes that others nearly suppressed
SAME_OBJECT = 0.5  # IoU above which two detections of a class are taken for the same object


@dataclass(frozen=True)
class Tolerance:
    """The largest differences allowed: of scores, and of boxes as 1 - IoU."""

    score: float
    overlap: float


TOLERANCES: dict[Precision, Tolerance] = {"fp32": Tolerance(0.001, 0.005), "fp16": Tolerance(0.05, 0.1)}


@dataclass(frozen=True)
class Parity:
    """The differences over all images; `tolerance` None (int8): measured, not judged.

    Before NMS: over boxes with a score above LEAST_SCORE, the largest and mean difference of scores, of sides in
    pixels, and of boxes as 1 - IoU (NaN for a file that holds only detections). After NMS, at confidence `conf`:
    detections of PyTorch (`expected`) and of the file (`found`), pairs of the same object, and those without a
    counterpart that a threshold does not explain.
    """

    images: int
    conf: float
    candidates: int
    score: float
    mean_score: float
    pixels: float
    overlap: float
    expected: int
    found: int
    pairs: int
    unexplained: int
    pair_score: float  # mean difference of scores of pairs
    pair_overlap: float  # mean 1 - IoU of pairs
    tolerance: Tolerance | None

    @property
    def holds(self) -> bool:
        """Whether all differences are within the tolerance."""
        if self.tolerance is None:
            return True
        limits = ((self.score, self.tolerance.score), (self.overlap, self.tolerance.overlap))
        return self.unexplained <= self.allowed and not any(value > limit for value, limit in limits)

    @property
    def allowed(self) -> int:
        """How many detections may lack a counterpart: none, but for the hundreds of boxes of an untrained network."""
        return self.expected // CHAINS

    def lines(self) -> list[str]:
        """The check in words."""
        lines, limits = [], self.tolerance
        if not math.isnan(self.score):
            allowed = f" (at most {limits.score:g})" if limits else ""
            allowed_boxes = f" (at most {limits.overlap:g})" if limits else ""
            lines.append(
                f"heads: {self.candidates} boxes with a score above {LEAST_SCORE:g} on {self.images} images; scores "
                f"differ by up to {self.score:.2g}{allowed}, boxes by up to {self.pixels:.2g} pixels, 1 - IoU "
                f"{self.overlap:.2g}{allowed_boxes}"
            )
        pairs = f"{self.pairs} of {self.expected} found again, {self.found - self.pairs} others"
        lines.append(
            f"detections at confidence {self.conf:g}: {pairs}; same objects differ by {self.pair_score:.2g} in score "
            f"and {self.pair_overlap:.2g} in 1 - IoU on average"
            + (f"; {self.unexplained} without a counterpart (at most {self.allowed})" if limits else "")
        )
        return lines


@dataclass
class _Sums:
    candidates: int = 0
    score: float = 0.0
    score_sum: float = 0.0
    score_count: int = 0
    pixels: float = 0.0
    overlap: float = 0.0


@torch.no_grad()
def compare(
    model: DetectorModel,
    deployed: DeployedDetector,
    images: Sequence[np.ndarray],
    *,
    imgsz: ImageSize,
    iou: float,
    max_det: int,
) -> Parity:
    """Run both on images (H, W, 3) uint8 RGB and compare boxes and scores before NMS, and detections after it.

    `model` in fp32 on the CPU. A dynamic file is run on batches and sizes other than the one it was traced with.
    """
    inside = deployed.metadata.nms
    pairs = [_forward(model, deployed, batch) for batch in _batches(model, deployed, images, imgsz)]
    sums = _Sums()
    if not inside.inside:
        for (boxes, scores), (other_boxes, other_scores) in pairs:
            _add(sums, boxes, scores, other_boxes, other_scores)
    conf = inside.conf if inside.inside else _confidence([expected for expected, _ in pairs])
    tolerance = TOLERANCES.get(deployed.metadata.precision)
    options = NmsOptions(conf, inside.iou if inside.inside else iou, inside.max_det if inside.inside else max_det)
    expected = [found for (boxes, scores), _ in pairs for found in model.nms(boxes, scores, options)]
    found = [each for _, (boxes, scores) in pairs for each in deployed.nms(boxes, scores, options)]
    matches = [_match(a, b, options, tolerance) for a, b in zip(expected, found, strict=True)]
    count = sum(match[0] for match in matches)
    nothing = float("nan") if inside.inside else 0.0
    return Parity(
        images=len(images),
        conf=conf,
        candidates=sums.candidates,
        score=sums.score + nothing,
        mean_score=sums.score_sum / max(1, sums.score_count) + nothing,
        pixels=sums.pixels + nothing,
        overlap=sums.overlap + nothing,
        expected=sum(len(each.scores) for each in expected),
        found=sum(len(each.scores) for each in found),
        pairs=count,
        unexplained=sum(match[1] for match in matches),
        pair_score=sum(match[2] for match in matches) / max(1, count),
        pair_overlap=sum(match[3] for match in matches) / max(1, count),
        tolerance=tolerance,
    )


Predictions = tuple[Tensor, Tensor]  # boxes (B, A, 4) and scores (B, A, C)


def _batches(
    model: DetectorModel, deployed: DeployedDetector, images: Sequence[np.ndarray], imgsz: ImageSize
) -> list[Tensor]:
    """The images as inputs (B, 3, H, W): one by one; for a dynamic file half of them as a batch, half padded less."""
    dynamic = deployed.metadata.dynamic
    half = len(images) // 2 if dynamic else 0
    fitted = [deployed.preprocess(image, imgsz, rect=k >= half)[0] for k, image in enumerate(images)]
    inputs = [torch.from_numpy(each).permute(2, 0, 1)[None].float() / 255 for each in fitted]
    return ([torch.cat(inputs[:half])] if half else []) + inputs[half:]


def _forward(model: DetectorModel, deployed: DeployedDetector, images: Tensor) -> tuple[Predictions, Predictions]:
    results = model.decode(model(images)), deployed.decode(deployed(images))
    for what, tensors in zip(("PyTorch", "the file"), results, strict=True):
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise FloatingPointError(f"{what} computes numbers that are not finite on real images")
    (boxes, scores), (other_boxes, other_scores) = results
    if not deployed.metadata.nms.inside and (boxes.shape != other_boxes.shape or scores.shape != other_scores.shape):
        raise FloatingPointError(
            f"the file has outputs of {tuple(other_boxes.shape)} and {tuple(other_scores.shape)}, expected "
            f"{tuple(boxes.shape)} and {tuple(scores.shape)}"
        )
    return results


def _add(sums: _Sums, boxes: Tensor, scores: Tensor, other_boxes: Tensor, other_scores: Tensor) -> None:
    difference = (scores - other_scores).abs()
    seen = torch.maximum(scores.amax(-1), other_scores.amax(-1)) > LEAST_SCORE
    sums.score = max(sums.score, float(difference.max()))
    sums.score_sum += float(difference[seen].sum())
    sums.score_count += difference[seen].numel()
    if not bool(seen.any()):
        return
    a, b = boxes[seen], other_boxes[seen]
    sums.candidates += len(a)
    sums.pixels = max(sums.pixels, float((a - b).abs().max()))
    sums.overlap = max(sums.overlap, float((1 - _pair_iou(a, b)).max()))


def _pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (n, 4) with those in the same row of others; 1 for equal boxes, empty ones too."""
    a, b = a.double(), b.double()
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
    areas = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(-1) + (b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1)
    return torch.where((a == b).all(-1), 1.0, inner / (areas - inner).clamp(min=1e-12))


def _confidence(predictions: Sequence[Predictions]) -> float:
    best = max((float(scores.max()) for _, scores in predictions), default=0.0)
    return next((conf for conf in CONFIDENCES if best > conf), LEAST_SCORE)


def _match(
    expected: Detections, found: Detections, options: NmsOptions, tolerance: Tolerance | None
) -> tuple[int, int, float, float]:
    """Pairs of the same object, detections that have none for no reason, and the sums of the pairs' differences."""
    overlaps = box_iou(expected.boxes, found.boxes)
    overlaps = overlaps * (expected.labels[:, None] == found.labels[None])
    ours, theirs = set(range(len(expected.scores))), set(range(len(found.scores)))
    score = overlap = 0.0
    pairs = 0
    for place in torch.argsort(overlaps.flatten(), descending=True, stable=True).tolist():
        row, column = divmod(place, max(1, len(found.scores)))
        if float(overlaps[row, column]) <= SAME_OBJECT:
            break
        if row in ours and column in theirs:
            ours.discard(row)
            theirs.discard(column)
            pairs += 1
            score += abs(float(expected.scores[row] - found.scores[column]))
            overlap += 1 - float(overlaps[row, column])
    if tolerance is None:
        return pairs, 0, score, overlap
    lonely = [(expected, k) for k in ours] + [(found, k) for k in theirs]
    unexplained = sum(not _is_close_call(side, k, options, tolerance) for side, k in lonely)
    return pairs, unexplained, score, overlap


def _is_close_call(side: Detections, k: int, options: NmsOptions, tolerance: Tolerance) -> bool:
    """Whether a difference within the tolerance decides if this detection exists.

    Its score is near the confidence threshold or near that of the last of the most detections allowed, or its overlap
    with a better one is near the IoU threshold.
    """
    score = float(side.scores[k])
    cut = float(side.scores[-1]) if len(side.scores) == options.max_det else options.conf
    if score - max(cut, options.conf) <= 2 * tolerance.score:
        return True
    overlaps = box_iou(side.boxes[k : k + 1], side.boxes)[0]
    overlaps[k] = 0
    return bool(((overlaps - options.iou).abs() <= 2 * tolerance.overlap).any())
