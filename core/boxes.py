"""Box overlaps of pairs, which torchvision.ops lacks (it computes all against all)."""

import math

import torch
from torch import Tensor


def pair_iou(first: Tensor, second: Tensor, *, eps: float = 1e-9) -> Tensor:
    """Intersection over union of pairs of boxes (..., 4) xyxy, broadcast; 0 for two empty boxes."""
    x1, y1, x2, y2 = first.unbind(-1)
    u1, v1, u2, v2 = second.unbind(-1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)
    intersection = width * height
    return intersection / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - intersection + eps)


def pair_ciou(predicted: Tensor, target: Tensor, *, eps: float = 1e-9) -> Tensor:
    """Complete IoU of pairs of boxes (..., 4) xyxy (Zheng et al., arXiv 1911.08287, eq. 8 to 12).

    IoU - d^2 / c^2 - alpha v: d is the distance of the centers, c the diagonal of the enclosing box, v the difference
    in aspect ratio.
    The trade-off alpha = v / (1 - IoU + v) has no gradient, as in the paper. `eps` keeps empty boxes finite.
    """
    x1, y1, x2, y2 = predicted.unbind(-1)
    u1, v1, u2, v2 = target.unbind(-1)
    iou = pair_iou(predicted, target, eps=eps)
    enclosing = (torch.maximum(x2, u2) - torch.minimum(x1, u1)) ** 2
    enclosing = enclosing + (torch.maximum(y2, v2) - torch.minimum(y1, v1)) ** 2
    distance = ((x1 + x2 - u1 - u2) ** 2 + (y1 + y2 - v1 - v2) ** 2) / 4
    # atan2 has a gradient everywhere except at (0, 0), which eps avoids; atan(w / h) has none at h = 0.
    aspect = torch.atan2(u2 - u1, v2 - v1 + eps) - torch.atan2(x2 - x1, y2 - y1 + eps)
    v = (4 / math.pi**2) * aspect**2
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return iou - distance / (enclosing + eps) - alpha * v
