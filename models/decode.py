"""Raw maps to boxes and scores, and those to detections; computed in float32, without parameters."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from core.types import Detections

MAX_CANDIDATES = 30_000  # per image, the best ones: the cost of suppression grows with the square of their number
# Boxes (n, 4), scores (n,), labels (n,) and an IoU threshold to the indices of the boxes kept, best first.
Suppress = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def flatten_levels(outputs: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, h, w) of all levels to one (B, A, C) in float32; A runs over levels, rows, columns."""
    return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2).float() for x in outputs], dim=1)


def cell_centres(count: int, stride: int, device: torch.device) -> Tensor:
    """(count,) centres of the cells along one axis in pixels: (i + 0.5) * stride."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * stride


def anchor_points(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Centres (A, 2) in pixels and strides (A, 1) of the cells of maps of (height, width), as in `flatten_levels`."""
    points, sizes = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(cell_centres(height, stride, device), cell_centres(width, stride, device), indexing="ij")
        points.append(torch.stack((x, y), dim=-1).flatten(0, 1))
        sizes.append(torch.full((height * width, 1), float(stride), device=device))
    return torch.cat(points), torch.cat(sizes)


def decode_boxes(distributions: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy in pixels from logits (..., 4 * reg_max) over the distances to left, top, right and bottom.

    A distance is the expectation over its bins, in units of the stride (Li et al., arXiv 2006.04388, eq. 4).
    """
    bins = distributions.unflatten(-1, (4, -1))  # (..., 4, reg_max)
    distances = bins.softmax(-1) @ torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)
    left_top, right_bottom = (distances * strides).chunk(2, dim=-1)
    return torch.cat((points - left_top, points + right_bottom), dim=-1)


def decode(outputs: Sequence[Tensor], *, strides: Sequence[int], num_classes: int) -> tuple[Tensor, Tensor]:
    """Raw maps (B, 4 * reg_max + C, h, w) to boxes (B, A, 4) xyxy in network pixels and scores (B, A, C)."""
    with torch.autocast(outputs[0].device.type, enabled=False):
        flat = flatten_levels(outputs)
        points, sizes = anchor_points([(x.shape[2], x.shape[3]) for x in outputs], strides, flat.device)
        distributions, logits = flat.split((flat.shape[-1] - num_classes, num_classes), dim=-1)
        return decode_boxes(distributions, points, sizes), logits.sigmoid()


def nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool = True,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    suppress: Suppress = batched_nms,
) -> list[Detections]:
    """Boxes (B, A, 4) and scores (B, A, C) to the detections of each image, by non-maximum suppression per class.

    A box is a candidate for every class with a score above `conf`, or only for its best class unless `multi_label`.
    `classes`: keep these labels only; `agnostic`: suppress across classes; `suppress`: the suppression itself, by IoU
    by default. The result of an image does not depend on the rest of the batch.
    """
    if classes is not None:
        wanted = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        wanted[list(classes)] = True
        scores = scores * wanted
    found = []
    for image_boxes, image_scores in zip(boxes.float(), scores.float(), strict=True):
        rows, kept, labels = _candidates(image_scores, conf=conf, multi_label=multi_label)
        groups = torch.zeros_like(labels) if agnostic else labels
        # Sorted by score; equal scores keep the order of the cells.
        chosen = suppress(image_boxes[rows], kept, groups, iou)[:max_det]
        found.append(Detections(image_boxes[rows[chosen]], kept[chosen], labels[chosen]))
    return found


def _candidates(scores: Tensor, *, conf: float, multi_label: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, scores and labels of an image's scores above `conf`, the best MAX_CANDIDATES of them."""
    if multi_label:
        rows, labels = (scores > conf).nonzero(as_tuple=True)
        kept = scores[rows, labels]
    else:
        best, labels = scores.max(dim=-1)
        rows = (best > conf).nonzero().squeeze(-1)
        kept, labels = best[rows], labels[rows]
    if len(kept) > MAX_CANDIDATES:
        kept, order = kept.topk(MAX_CANDIDATES)
        rows, labels = rows[order], labels[order]
    return rows, kept, labels
