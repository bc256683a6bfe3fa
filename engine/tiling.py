"""Large images in overlapping tiles (core/tiles.py): which of their detections make one result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import batched_nms

from core.tiles import Place

EDGE = 1.0  # pixels from an inner border of a tile within which a box counts as cut off
MERGE_IOU = 0.5  # views at different scales agree less than boxes of one view


def merge_tiles(
    parts: Sequence[tuple[Place, np.ndarray, np.ndarray, np.ndarray]],
    *,
    size: tuple[int, int],
    iou: float,
    max_det: int,
    agnostic: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) in pixels of the image, scores (n,) and labels (n,), best first, of the detections of its parts.

    `parts`: where each lies, and its boxes in its own pixels, scores and labels. Boxes that an inner border of their
    part cuts off are left out: a neighbour or the whole image, which is a part as well, shows the object. The rest go
    through NMS per class, or across classes if `agnostic`. `size`: width and height of the image.
    """
    boxes, scores, labels = [], [], []
    for place, own, certain, kinds in parts:
        limits = np.array([*(place[:2]), place[2] - size[0], place[3] - size[1]])  # 0: a border of the image itself
        ends = np.array([0, 0, place[2] - place[0], place[3] - place[1]])
        cut = ((np.abs(own - ends) <= EDGE) & (limits != 0)).any(axis=1)
        boxes.append(own[~cut] + np.array([place[0], place[1]] * 2, np.float32))
        scores.append(certain[~cut])
        labels.append(kinds[~cut])
    all_boxes, all_scores, all_labels = np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels)
    groups = torch.from_numpy(all_labels * (not agnostic))
    kept = batched_nms(torch.from_numpy(all_boxes), torch.from_numpy(all_scores), groups, min(iou, MERGE_IOU)).numpy()[
        :max_det
    ]
    return all_boxes[kept], all_scores[kept], all_labels[kept]
