"""Task-aligned assignment of boxes to anchors, the cells (Feng et al., TOOD, arXiv 2108.07755, sec. 3.3.1).

The alignment of an anchor with a box is t = s^alpha u^beta, where s is its score for the class of the box and u the IoU
of its predicted box with the box (eq. 2). The `topk` best aligned anchors inside a box are positive. An anchor chosen
by several boxes is assigned to the one with the largest IoU. The target score of a positive is t, scaled such that the
largest t of a box equals the largest u among the positives of that box.

All shapes depend on the shape of the batch only, so that a GPU is never synchronised: the result has the shape
(B, M, K), at most K anchors for each of M boxes, instead of masks over all anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.boxes import pair_iou
from core.types import Targets
from models.decode import cell_centres

MIN_IOU = 1e-9


@dataclass
class Assignment:
    """The candidate anchors of each box; an anchor is positive for at most one box."""

    anchors: Tensor  # (B, M, K) int64
    positive: Tensor  # (B, M, K) bool
    scores: Tensor  # (B, M, K) float32 target scores; 0 where not positive


@torch.no_grad()
def assign(
    logits: Tensor,
    boxes: Tensor,
    targets: Targets,
    *,
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    dense: bool | None = None,
) -> Assignment:
    """Assign anchors with class `logits` (B, A, C) and predicted `boxes` (B, A, 4) to `targets`; all float32.

    `dense`: compute the alignment of all pairs, without synchronisation, instead of the pairs inside only, which is
    several times faster on a CPU. None: dense except on a CPU. The assignment is the same.
    """
    inside = _inside(targets, shapes, strides)  # (B, M, A)
    dense = logits.device.type != "cpu" if dense is None else dense
    alignment = (_align_all if dense else _align_inside)(logits, boxes, targets, inside, alpha, beta)
    best, anchors = alignment.topk(min(topk, alignment.shape[-1]), dim=-1)  # (B, M, K)
    overlaps = _overlaps(boxes, targets, anchors)
    positive = _one_box_each(anchors, best > -torch.inf, overlaps, logits.shape[1])
    return Assignment(anchors, positive, _target_scores(best, overlaps, positive))


def _inside(targets: Targets, shapes: Sequence[tuple[int, int]], strides: Sequence[int]) -> Tensor:
    """(B, M, A) whether the centre of an anchor is inside a box: left <= x < right and top <= y < bottom.

    Boxes thinner than a cell of the finest level are widened to a cell, else they might contain no centre.
    """
    centre, size = (
        (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2,
        targets.boxes[..., 2:] - targets.boxes[..., :2],
    )
    half = size.clamp(min=min(strides)) / 2
    (left, top), (right, bottom) = (corner.unsqueeze(-1).unbind(-2) for corner in (centre - half, centre + half))
    levels = []
    for (height, width), stride in zip(shapes, strides, strict=True):
        x, y = cell_centres(width, stride, left.device), cell_centres(height, stride, left.device)
        columns = (x >= left) & (x < right) & targets.mask.unsqueeze(-1)  # (B, M, width)
        rows = (y >= top) & (y < bottom)  # (B, M, height)
        levels.append((rows.unsqueeze(-1) & columns.unsqueeze(-2)).flatten(2))
    return torch.cat(levels, dim=-1)


def _alignment(logits: Tensor, overlaps: Tensor, alpha: float, beta: float) -> Tensor:
    # The logarithm of eq. 2 has the same order and does not underflow in float32, unlike u^6.
    return alpha * F.logsigmoid(logits) + beta * overlaps.clamp(min=MIN_IOU).log()


def _align_all(logits: Tensor, boxes: Tensor, targets: Targets, inside: Tensor, alpha: float, beta: float) -> Tensor:
    """(B, M, A) logarithm of the alignment, -inf outside the boxes."""
    labels = targets.labels.unsqueeze(-1).expand(inside.shape)
    overlaps = pair_iou(boxes.unsqueeze(1), targets.boxes.unsqueeze(2))
    alignment = _alignment(logits.transpose(1, 2).gather(1, labels), overlaps, alpha, beta)
    return alignment.masked_fill(~inside, -torch.inf)


def _align_inside(logits: Tensor, boxes: Tensor, targets: Targets, inside: Tensor, alpha: float, beta: float) -> Tensor:
    """The same as `_align_all`, computed for the pairs inside only."""
    image, box, anchor = inside.nonzero(as_tuple=True)
    overlaps = pair_iou(boxes[image, anchor], targets.boxes[image, box])
    values = _alignment(logits[image, anchor, targets.labels[image, box]], overlaps, alpha, beta)
    alignment = torch.full(inside.shape, -torch.inf, device=logits.device)
    alignment[image, box, anchor] = values
    return alignment


def _overlaps(boxes: Tensor, targets: Targets, anchors: Tensor) -> Tensor:
    """(B, M, K) IoU of each box with the predicted boxes of its candidates."""
    index = anchors.flatten(1).unsqueeze(-1).expand(-1, -1, 4)
    predicted = boxes.gather(1, index).unflatten(1, anchors.shape[1:])
    return pair_iou(predicted, targets.boxes.unsqueeze(2))


def _one_box_each(anchors: Tensor, candidate: Tensor, overlaps: Tensor, count: int) -> Tensor:
    """(B, M, K) `candidate` without anchors that have a larger IoU with another box; ties go to the first box."""
    batch, boxes, _ = anchors.shape
    index = anchors.flatten(1)
    overlap = overlaps.masked_fill(~candidate, -1.0).flatten(1)
    largest = overlap.new_full((batch, count), -1.0).scatter_reduce(1, index, overlap, "amax")
    wins = candidate.flatten(1) & (overlap == largest.gather(1, index))
    box = torch.arange(boxes, device=index.device).unsqueeze(-1).expand(anchors.shape).flatten(1)
    first = index.new_full((batch, count), boxes).scatter_reduce(1, index, box.masked_fill(~wins, boxes), "amin")
    return (wins & (box == first.gather(1, index))).view_as(candidate)


def _target_scores(alignment: Tensor, overlaps: Tensor, positive: Tensor) -> Tensor:
    """(B, M, K) t / max t * max u with maxima over the positives of a box; 0 where not positive."""
    alignment = alignment.masked_fill(~positive, -torch.inf)
    largest = alignment.amax(dim=-1, keepdim=True)
    overlap = overlaps.masked_fill(~positive, 0.0).amax(dim=-1, keepdim=True)
    # For a box without positives this is -inf - -inf = NaN, which is masked.
    return ((alignment - largest).exp() * overlap).masked_fill(~positive, 0.0)
