"""Darknet layers other than convolutions: pooling, routing, softmax; decoding of its heads; DIoU suppression."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A box of e^16 times its anchor exceeds any image; larger exponents would overflow.
MAX_EXPONENT = 16.0


class Add(nn.Module):
    """Sum of two feature maps."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, H, W) to one of the same shape."""
        return x + y


class MaxPool(nn.Module):
    """Max pooling with `padding` pixels in total: half of them (rounded down) before the map, the rest after it."""

    def __init__(self, size: int, *, stride: int, padding: int):
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, (H + padding - size) / stride + 1, ...)."""
        before = self.padding // 2
        if self.padding % 2 == 0 and before <= self.size // 2:
            return F.max_pool2d(x, self.size, self.stride, padding=before)
        after = self.padding - before
        lowest = torch.finfo(x.dtype).min  # as Darknet; ncnn cannot read an infinite one
        return F.max_pool2d(F.pad(x, (before, after, before, after), value=lowest), self.size, self.stride)


class Route(nn.Module):
    """Concatenation of feature maps, or of the `group`-th of `groups` equal groups of channels of each."""

    def __init__(self, *, groups: int = 1, group: int = 0):
        super().__init__()
        self.groups, self.group = groups, group

    def forward(self, *features: Tensor) -> Tensor:
        """(B, C_i, H, W) to (B, sum of C_i / groups, H, W)."""
        parts = [x.chunk(self.groups, dim=1)[self.group] for x in features] if self.groups > 1 else features
        return torch.cat(list(parts), dim=1) if len(parts) > 1 else parts[0]


class Softmax(nn.Module):
    """Softmax over each of `groups` equal groups of all values of an image."""

    def __init__(self, *, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; each group sums to 1."""
        return x.flatten(1).unflatten(1, (self.groups, -1)).softmax(-1).view(x.shape)


@dataclass(frozen=True)
class BoxHead:
    """The parameters that decode the raw map of a `[yolo]` layer."""

    anchors: tuple[tuple[float, float], ...]  # width and height in pixels of the input
    classes: int
    stride: int
    scale: float  # scale_x_y
    new_coords: bool


def head_boxes(raw: Tensor, head: BoxHead) -> tuple[Tensor, Tensor]:
    """A map (B, n * (5 + C), h, w) to boxes (B, A, 4) xyxy in network pixels, and its objectness and classes, float32.

    A runs over rows, columns, anchors. For each anchor: x, y within the cell, scaled by `scale` about its centre
    (YOLOv4, arXiv 2004.10934, sec. 3.4); width and height as anchor * e^t (YOLOv3, arXiv 1804.02767, sec. 2.1), or with
    `new_coords` anchor * (2 t)^2, where the map holds sigmoids already (Scaled-YOLOv4, arXiv 2011.08036). Objectness
    and classes (B, A, 1 + C) are returned as in the map: logits, or probabilities with `new_coords`.
    """
    batch, _, height, width = raw.shape
    maps = raw.float().view(batch, len(head.anchors), 5 + head.classes, height, width).permute(0, 3, 4, 1, 2)
    xy, wh, rest = maps.split((2, 2, 1 + head.classes), dim=-1)  # each (B, h, w, n, ...)
    anchors = raw.new_tensor(head.anchors, dtype=torch.float32)  # (n, 2)
    if head.new_coords:
        doubled = 2 * wh
        sides = doubled * doubled * anchors  # LiteRT has no square of five dimensions
    else:
        xy = xy.sigmoid()
        sides = wh.clamp(max=MAX_EXPONENT).exp() * anchors
    rows = torch.arange(height, device=raw.device, dtype=torch.float32)
    columns = torch.arange(width, device=raw.device, dtype=torch.float32)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack((x, y), dim=-1)[:, :, None]  # (h, w, 1, 2)
    centres = (head.scale * xy - (head.scale - 1) / 2 + corners) * head.stride
    boxes = torch.cat((centres - sides / 2, centres + sides / 2), dim=-1)
    return boxes.flatten(1, 3), rest.flatten(1, 3)


def decode_head(raw: Tensor, head: BoxHead) -> tuple[Tensor, Tensor]:
    """A map (B, n * (5 + C), h, w) to boxes (B, A, 4) and scores (B, A, C), objectness times class, float32."""
    boxes, rest = head_boxes(raw, head)
    rest = rest if head.new_coords else rest.sigmoid()
    return boxes, rest[..., :1] * rest[..., 1:]


def decode_heads(outputs: Sequence[Tensor], heads: Sequence[BoxHead]) -> tuple[Tensor, Tensor]:
    """All raw maps to boxes (B, A, 4) xyxy in network pixels and scores (B, A, C), float32."""
    with torch.autocast(outputs[0].device.type, enabled=False):
        decoded = [decode_head(raw, head) for raw, head in zip(outputs, heads, strict=True)]
    return torch.cat([boxes for boxes, _ in decoded], dim=1), torch.cat([scores for _, scores in decoded], dim=1)


def diou_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, *, beta: float) -> Tensor:
    """Indices of the boxes kept, best first; a better box of its class suppresses one if IoU - (d^2/c^2)^beta > `iou`.

    d is the distance of their centres, c the diagonal of the box around both (Zheng et al., arXiv 1911.08287, eq. 9,
    with the exponent beta_nms of YOLOv4).
    """
    kept = []
    for label in labels.unique().tolist():
        remaining = (labels == label).nonzero().squeeze(-1)
        remaining = remaining[scores[remaining].argsort(descending=True, stable=True)]
        while len(remaining):
            kept.append(remaining[:1])
            best, rest = boxes[remaining[0]], boxes[remaining[1:]]
            remaining = remaining[1:][_diou(best, rest, beta) <= iou]
    if not kept:
        return labels.new_zeros(0)
    rows = torch.cat(kept)
    return rows[scores[rows].argsort(descending=True, stable=True)]


def _diou(box: Tensor, others: Tensor, beta: float) -> Tensor:
    """(n,) IoU of a box (4,) with others (n, 4), minus the distance term."""
    inner = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0).prod(-1)
    areas = (box[2:] - box[:2]).prod(-1) + (others[:, 2:] - others[:, :2]).prod(-1)
    overlap = inner / (areas - inner).clamp(min=1e-9)
    diagonal = (torch.maximum(box[2:], others[:, 2:]) - torch.minimum(box[:2], others[:, :2])).square().sum(-1)
    distance = ((box[:2] + box[2:] - others[:, :2] - others[:, 2:]) / 2).square().sum(-1)
    return overlap - (distance / diagonal.clamp(min=1e-9)).pow(beta)
