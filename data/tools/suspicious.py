"""Boxes that are valid but look like mistakes, by the rules in KINDS. They are still used in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.progress import progress_bar
from data.annotations import Annotations

TINY = 4.0  # pixels
SLIVER = 2.0  # pixels
EXTREME_ASPECT = 20.0
WHOLE = 0.99
CLIPPED = 0.1
SAME = 0.9
MAX_COMPARED = 1000  # boxes per image for which all overlaps are computed

KINDS = {
    "tiny": f"both sides are shorter than {TINY:g} pixels",
    "sliver": f"one side is shorter than {SLIVER:g} pixels, the other at least {TINY:g}",
    "extreme-aspect": f"one side is at least {EXTREME_ASPECT:g} times the other, and the box is not a sliver",
    "whole-image": f"covers at least {WHOLE:.0%} of the width and of the height of its image",
    "clipped": f"more than {CLIPPED:.0%} of its area is outside its image",
    "twice": f"two boxes of the same class with an IoU of at least {SAME:g}",
    "two-classes": f"two boxes of different classes with an IoU of at least {SAME:g}",
}


@dataclass(frozen=True)
class Suspicion:
    """A suspicious box, or two if `kind` concerns a pair."""

    kind: str  # one of KINDS
    image: int  # position in the annotations
    rows: tuple[int, ...]  # of the annotations' boxes
    degree: float  # larger is more suspicious; comparable within a kind
    what: str  # its measurements

    def as_dict(self, annotations: Annotations) -> dict[str, object]:
        """Plain form for a JSON file; boxes as in the annotation file."""
        return {
            "kind": self.kind,
            "file": annotations.file_names[self.image],
            "image_id": annotations.image_id(self.image),
            "boxes": [annotations.boxes[row].tolist() for row in self.rows],
            "classes": [annotations.classes[annotations.labels[row]] for row in self.rows],
            "what": self.what,
        }


def find_suspicious(annotations: Annotations, *, title: str = "boxes", progress: bool = True) -> list[Suspicion]:
    """Suspicious boxes of a split with known image sizes (data.verify), by kind, the most suspicious first.

    Crowds are ignored, as in training. Sides are those of the box clipped to its image. In images with more than
    MAX_COMPARED boxes only pairs with equal coordinates are found.
    """
    suspicions = [*_single(annotations), *_pairs(annotations, title, progress)]
    order = {kind: position for position, kind in enumerate(KINDS)}
    return sorted(suspicions, key=lambda item: (order[item.kind], -item.degree, item.rows))


def _single(annotations: Annotations) -> Iterator[Suspicion]:
    rows = np.flatnonzero(~annotations.crowd)
    image = annotations.image_of[rows]
    limits = annotations.sizes[image].astype(np.float64)
    low, high = annotations.boxes[rows, :2], annotations.boxes[rows, :2] + annotations.boxes[rows, 2:]
    sides = np.clip(high, 0, limits) - np.clip(low, 0, limits)
    shorter, longer = sides.min(axis=1), sides.max(axis=1)
    aspect = longer / np.maximum(shorter, 1e-9)
    covered = (sides / limits).min(axis=1)
    outside = 1 - sides.prod(axis=1) / annotations.boxes[rows, 2:].prod(axis=1)
    sliver = (shorter < SLIVER) & (longer >= TINY)
    masks = {
        "tiny": (longer < TINY, -longer),
        "sliver": (sliver, -shorter),
        "extreme-aspect": ((aspect >= EXTREME_ASPECT) & (shorter >= SLIVER), aspect),
        "whole-image": (covered >= WHOLE, covered),
        "clipped": (outside > CLIPPED, outside),
    }
    for kind, (mask, degree) in masks.items():
        for k in np.flatnonzero(mask):
            width, height = sides[k]
            what = f"{outside[k]:.0%} outside" if kind == "clipped" else f"{width:.4g} x {height:.4g} pixels"
            yield Suspicion(kind, int(image[k]), (int(rows[k]),), float(degree[k]), what)


def _pairs(annotations: Annotations, title: str, progress: bool) -> Iterator[Suspicion]:
    """Each box that coincides with an earlier one of its image, once, paired with the one it overlaps most."""
    crowded = np.flatnonzero(np.diff(annotations.starts) >= 2)
    for index in progress_bar(crowded, f"comparing {title}", show=progress and len(crowded) >= 5000):
        boxes, labels, rows = annotations.training_boxes(int(index))
        if len(boxes) < 2:  # the others are crowds
            continue
        if len(boxes) > MAX_COMPARED:
            pairs = _equal(boxes)
        else:
            overlap = np.triu(_iou(boxes), 1)
            earlier = overlap.argmax(axis=0)
            best = overlap[earlier, np.arange(len(boxes))]
            pairs = [(int(earlier[k]), int(k), float(best[k])) for k in np.flatnonzero(best >= SAME)]
        for first, second, overlap_of_both in pairs:
            kind = "twice" if labels[first] == labels[second] else "two-classes"
            both = (int(rows[first]), int(rows[second]))
            yield Suspicion(kind, int(index), both, overlap_of_both, f"IoU {overlap_of_both:.2f}")


def _iou(boxes: np.ndarray) -> np.ndarray:
    """IoU (n, n) of boxes (n, 4) xyxy with positive areas."""
    boxes = boxes.astype(np.float64)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / (area[:, None] + area[None, :] - shared)


def _equal(boxes: np.ndarray) -> list[tuple[int, int, float]]:
    """(first, later, 1.0) for each box that is equal to an earlier one."""
    _, first, group = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
    earliest = first[group.reshape(-1)]
    return [(int(earliest[k]), int(k), 1.0) for k in np.flatnonzero(earliest != np.arange(len(boxes)))]
