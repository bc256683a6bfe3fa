"""The loss of a Darknet detector: CIoU of boxes, cross-entropy of objectness and classes, over all `[yolo]` heads.

Positives are chosen as in Darknet: for each box the anchor of the best shape among all anchors of the cfg and, if
`iou_thresh` is below 1, every other one whose shape has a larger IoU than that (YOLOv4, arXiv 2004.10934, sec. 3.4:
several anchors for one box), in the cell that contains the centre of the box. The target of objectness is 1 there and 0
elsewhere; predictions whose IoU with any box is above `ignore_thresh` are ignored (YOLOv3, arXiv 1804.02767, sec. 2.1),
or have that IoU as their target if `objectness_smooth`. All shapes depend on the shape of the batch only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.boxes import pair_ciou, pair_iou
from core.types import Targets
from models.darknet.cfg import Section
from models.darknet.layers import BoxHead, head_boxes

COMPARED = 32  # boxes of an image compared with all predictions at a time, which bounds the memory
# Maps of `new_coords` hold probabilities, clamped to this distance from 0 and 1 so that gradients do not overflow.
LOGIT_EPS = 1e-7


@dataclass(frozen=True)
class LossRule:
    """The loss parameters of a `[yolo]` section, with the defaults of Darknet."""

    shapes: tuple[tuple[float, float], ...]  # all anchors of the cfg; `mask` selects those of the head
    mask: tuple[int, ...]
    iou_thresh: float
    ignore_thresh: float
    objectness_smooth: bool
    box: float
    obj: float
    cls: float
    label_smoothing: float

    @staticmethod
    def of(section: Section, *, label_smoothing: float | None) -> "LossRule":
        """The rule of a section; `label_smoothing` overrides its label_smooth_eps.

        iou_normalizer defaults to 0.07 as in the cfgs with CIoU; the 0.75 of Darknet applies to squared errors.
        """
        given = section.values
        shapes = tuple(zip(section["anchors"][::2], section["anchors"][1::2], strict=True))
        smoothing = given.get("label_smooth_eps", 0.0) if label_smoothing is None else label_smoothing
        return LossRule(
            shapes=shapes,
            mask=tuple(section["mask"] or range(section["num"])),
            iou_thresh=given.get("iou_thresh", 1.0),
            ignore_thresh=given.get("ignore_thresh", 0.5),
            objectness_smooth=bool(given.get("objectness_smooth", 0)),
            box=given.get("iou_normalizer", 0.07) if given.get("iou_loss", "mse") != "mse" else 0.07,
            obj=given.get("obj_normalizer", 1.0),
            cls=given.get("cls_normalizer", 1.0),
            label_smoothing=smoothing,
        )


def darknet_loss(
    outputs: Sequence[Tensor],
    targets: Targets,
    *,
    heads: Sequence[BoxHead],
    rules: Sequence[LossRule],
    gains: Mapping[str, float],
    over_processes: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of raw maps (B, n * (5 + C), h, w), a float32 scalar, and its terms box, obj and cls, detached.

    Each term is a sum over the batch, weighted by the normalizer of the cfg and by `gains`, divided by the number of
    positives (at least 1), so that its scale depends neither on the batch size nor on the number of objects. Darknet
    divides by the number of images. `over_processes`: as in models/loss.py.
    """
    with torch.autocast(outputs[0].device.type, enabled=False):
        sums = [_head_sums(raw, targets, head, rule) for raw, head, rule in zip(outputs, heads, rules, strict=True)]
        positives = torch.stack([count for *_, count in sums]).sum()
        if over_processes is not None:
            positives = over_processes(positives)
        positives = positives.clamp(min=1)
        terms = {
            name: sum(getattr(rule, name) * total[place] for rule, total in zip(rules, sums, strict=True))
            * (gains[name] / positives)
            for place, name in enumerate(("box", "obj", "cls"))
        }
        loss = terms["box"] + terms["obj"] + terms["cls"]
    return loss, {name: term.detach() for name, term in terms.items()}


def _head_sums(raw: Tensor, targets: Targets, head: BoxHead, rule: LossRule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over one head: 1 - CIoU of the positives, cross-entropies of objectness and classes, number of positives."""
    boxes, rest = head_boxes(raw, head)
    logits = rest.logit(eps=LOGIT_EPS) if head.new_coords else rest
    anchors, chosen = match(targets, head, rule, (raw.shape[2], raw.shape[3]))
    place, weight = anchors.flatten(1), chosen.flatten(1).float()  # (B, M * n)
    predicted = boxes.gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
    wanted = targets.boxes.unsqueeze(2).expand(-1, -1, chosen.shape[2], -1).flatten(1, 2)
    # Elsewhere the prediction itself is a valid target: a weight of 0 times a gradient of NaN would still be NaN.
    wanted = torch.where(chosen.flatten(1).unsqueeze(-1), wanted, predicted.detach())
    box = ((1 - pair_ciou(predicted, wanted)) * weight).sum()
    positive = torch.zeros_like(boxes[..., 0]).scatter_reduce(1, place, weight, "amax")  # (B, A)
    overlap = best_overlap(boxes, targets)
    ignored = overlap > rule.ignore_thresh
    if rule.objectness_smooth:
        obj = _entropy(logits[..., 0], torch.where(ignored, overlap, positive)).sum()
    else:
        obj = (_entropy(logits[..., 0], positive) * (~ignored | (positive > 0))).sum()
    named = place * head.classes + targets.labels.unsqueeze(-1).expand(chosen.shape).flatten(1)
    classes = torch.zeros_like(logits[..., 1:]).flatten(1).scatter_reduce(1, named, weight, "amax")
    smooth = rule.label_smoothing
    classes = classes.view_as(logits[..., 1:]) * (1 - smooth) + smooth / 2
    cls = (_entropy(logits[..., 1:], classes) * positive.unsqueeze(-1)).sum()
    return box, obj, cls, weight.sum()


def _entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


@torch.no_grad()
def match(targets: Targets, head: BoxHead, rule: LossRule, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """For each box and anchor of a head (B, M, n): its index as in `head_boxes`, and whether it is positive.

    `shape` is the (height, width) of the map.
    """
    height, width = shape
    sides = (targets.boxes[..., 2:] - targets.boxes[..., :2]).unsqueeze(2)  # (B, M, 1, 2)
    shapes = sides.new_tensor(rule.shapes)  # (N, 2)
    inner = torch.minimum(sides, shapes).prod(-1)
    overlap = inner / (sides.prod(-1) + shapes.prod(-1) - inner)  # (B, M, N), with a common centre
    chosen = (overlap > rule.iou_thresh).scatter(-1, overlap.argmax(-1, keepdim=True), True)
    chosen = chosen[..., list(rule.mask)] & targets.mask.unsqueeze(-1)
    centres = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / (2 * head.stride)
    column, row = centres[..., 0].long().clamp(0, width - 1), centres[..., 1].long().clamp(0, height - 1)
    count = len(rule.mask)
    return (row * width + column).unsqueeze(-1) * count + torch.arange(count, device=row.device), chosen


@torch.no_grad()
def best_overlap(boxes: Tensor, targets: Targets) -> Tensor:
    """(B, A) largest IoU of each predicted box (B, A, 4) with a box of its image; 0 without boxes."""
    best = torch.zeros_like(boxes[..., 0])
    for start in range(0, targets.boxes.shape[1], COMPARED):
        truth = targets.boxes[:, start : start + COMPARED].unsqueeze(1)
        best = torch.maximum(best, pair_iou(boxes.unsqueeze(2), truth).amax(-1))
    return best
