"""The loss of the detector: cross-entropy with soft class targets, CIoU and distribution focal loss of boxes."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from core.boxes import pair_ciou
from core.types import Targets
from models.assign import Assignment, assign
from models.decode import anchor_points, decode_boxes, flatten_levels

LOSS_NAMES = ("box", "cls", "dfl")
"""The terms of the loss; their gains are `model.loss` of configs/yolo.yaml."""


def detection_loss(
    outputs: Sequence[Tensor],
    targets: Targets,
    *,
    strides: Sequence[int],
    num_classes: int,
    gains: Mapping[str, float],
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    over_processes: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of raw maps (B, 4 * reg_max + C, h, w), a float32 scalar, and its detached terms, weighted by `gains`.

    Each term is a sum over the batch divided by the sum of the target scores, at least 1 (TOOD, arXiv 2108.07755, sec.
    3.3.2), so that its scale depends neither on the batch size nor on the number of objects. `over_processes` sums
    over the processes that share a batch: each gets its part of the loss, and the sum of the parts is the loss.
    """
    with torch.autocast(outputs[0].device.type, enabled=False):
        flat = flatten_levels(outputs)  # (B, A, 4 * reg_max + C)
        shapes = [(x.shape[2], x.shape[3]) for x in outputs]
        points, sizes = anchor_points(shapes, strides, flat.device)
        distributions, logits = flat.split((flat.shape[-1] - num_classes, num_classes), dim=-1)
        with torch.no_grad():
            boxes = decode_boxes(distributions, points, sizes)
            assigned = assign(logits, boxes, targets, shapes=shapes, strides=strides, topk=topk, alpha=alpha, beta=beta)
        sums = {"cls": class_loss(logits, targets, assigned)}
        sums |= box_losses(distributions, points, sizes, targets, assigned)
        total = assigned.scores.sum()
        if over_processes is not None:
            total = over_processes(total)
        total = total.clamp(min=1)
        terms = {name: gains[name] * sums[name] / total for name in LOSS_NAMES}
        loss = reduce(torch.add, terms.values())
    return loss, {name: term.detach() for name, term in terms.items()}


def class_loss(logits: Tensor, targets: Targets, assigned: Assignment) -> Tensor:
    """Sum of binary cross-entropy of logits (B, A, C); targets are the target scores of the positives.

    BCE(x, z) = softplus(x) - x z: only the first term needs computing for all logits.
    """
    width = logits.shape[-1]
    index = assigned.anchors * width + targets.labels.unsqueeze(-1)  # (B, M, K)
    chosen = logits.flatten(1).gather(1, index.flatten(1))
    return F.softplus(logits).sum() - (chosen * assigned.scores.flatten(1)).sum()


def box_losses(
    distributions: Tensor, points: Tensor, sizes: Tensor, targets: Targets, assigned: Assignment
) -> dict[str, Tensor]:
    """Sums over the positives, weighted by the target scores: 1 - CIoU (box), distribution focal loss (dfl)."""
    anchors = assigned.anchors.flatten(1)  # (B, N), N = M * K
    chosen = distributions.gather(1, anchors.unsqueeze(-1).expand(-1, -1, distributions.shape[-1]))
    points, sizes = points[anchors], sizes[anchors]  # (B, N, 2), (B, N, 1)
    wanted = targets.boxes.unsqueeze(2).expand(-1, -1, assigned.anchors.shape[2], -1).flatten(1, 2)  # (B, N, 4)
    # Non-positive candidates get a valid dummy box: a weight of 0 times a gradient of NaN would still be NaN.
    dummy = torch.cat((points - sizes, points + sizes), dim=-1)
    wanted = torch.where(assigned.positive.flatten(1).unsqueeze(-1), wanted, dummy)
    weights = assigned.scores.flatten(1)
    overlap = (1 - pair_ciou(decode_boxes(chosen, points, sizes), wanted)) * weights
    distances = torch.cat((points - wanted[..., :2], wanted[..., 2:] - points), dim=-1) / sizes
    focal = distribution_focal_loss(chosen, distances) * weights
    return {"box": overlap.sum(), "dfl": focal.sum()}


def distribution_focal_loss(distributions: Tensor, distances: Tensor) -> Tensor:
    """(...,) mean over the four sides of -((n - y) log S(n - 1) + (y - n + 1) log S(n)), where n - 1 <= y < n.

    Logits (..., 4 * reg_max), distances y (..., 4) in strides, clamped to the bins (Li et al., arXiv 2006.04388,
    eq. 6).
    """
    logs = distributions.unflatten(-1, (4, -1)).log_softmax(-1)  # (..., 4, reg_max)
    distances = distances.clamp(0, logs.shape[-1] - 1.01)
    lower = distances.floor()
    near = lower.long().unsqueeze(-1)
    fraction = distances - lower
    either = logs.gather(-1, torch.cat((near, near + 1), dim=-1))  # (..., 4, 2)
    return -((1 - fraction) * either[..., 0] + fraction * either[..., 1]).mean(-1)
